//! Connections, and attempts to open one, are counted by what came of them.

use std::time::Duration;

use mqtt_client::{
    QoS, ReconnectConfig, SessionConfig, SessionConnector, Subscribe, Version,
    proto::{
        ReasonCode,
        packet::{ConnAck, Disconnect, Packet},
    },
};
use mqtt_testkit::MemoryListener;

use crate::{
    accept,
    common::{config, connector, endpoint, open, settle, subscribed},
    recorded,
};

#[test]
fn how_long_connecting_took_is_told() {
    recorded(async |recorded| {
        let (connector, mut listener) = connector(config(Version::V5));
        let (session, server) = tokio::join!(connector.connect(endpoint()), async {
            let mut server = listener.accept().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            server.accept_with(ConnAck::accepted()).await;
            server
        });
        let times = recorded.histogram("connect_seconds");
        assert!(
            matches!(times[..], [time] if (3.0..3.1).contains(&time)),
            "{times:?}"
        );
        drop((session, server));
    });
}

#[test]
fn attempts_are_counted_by_how_they_ended() {
    recorded(async |recorded| {
        let attempt = async |listener: &mut MemoryListener,
                             connector: &SessionConnector<_>,
                             answer: Option<ConnAck>| {
            let (result, ()) = tokio::join!(connector.connect(endpoint()), async {
                let mut server = listener.accept().await;
                server.expect_connect().await;
                if let Some(connack) = answer {
                    server.send(Packet::ConnAck(connack)).await;
                    while server.next().await.is_some() {}
                }
            });
            result.unwrap_err();
        };
        let (connector, mut listener) = connector(config(Version::V5));
        let refused = ConnAck::refused(ReasonCode::NOT_AUTHORIZED);
        attempt(&mut listener, &connector, Some(refused)).await;
        attempt(&mut listener, &connector, None).await;
        let mut present = ConnAck::accepted();
        present.session_present = true;
        attempt(&mut listener, &connector, Some(present)).await;
        let (silent, server) = tokio::join!(connector.connect(endpoint()), listener.accept());
        silent.unwrap_err();
        drop((server, listener));
        connector.connect(endpoint()).await.unwrap_err();
        recorded.check(&[
            ("connect_total{outcome=refused}", 1.0),
            ("connect_total{outcome=closed}", 1.0),
            ("connect_total{outcome=protocol}", 1.0),
            ("connect_total{outcome=timeout}", 1.0),
            ("connect_total{outcome=dial}", 1.0),
        ]);
        assert!(recorded.histogram("connect_seconds").is_empty());
    });
}

#[test]
fn connections_are_counted_by_why_they_ended() {
    recorded(async |recorded| {
        let config = || config(Version::V5).with_keep_alive(Duration::from_secs(10));
        let ended = [
            "closed",
            "cut",
            "server",
            "server",
            "protocol",
            "keep_alive",
            "network",
        ];
        for (index, cause) in ended.into_iter().enumerate() {
            let (session, mut server) = open(config()).await;
            assert_eq!(recorded.look()["sessions_connected"], 1.0);
            match (index, cause) {
                (_, "closed") => session.disconnect().await.unwrap(),
                (_, "cut") => session.cut(),
                (2, _) => drop(server),
                (_, "server") => {
                    let disconnect = Disconnect::new(ReasonCode::SERVER_BUSY);
                    server.send(Packet::Disconnect(disconnect)).await;
                }
                (_, "protocol") => server.send(Packet::PingReq).await,
                (_, "keep_alive") => tokio::time::sleep(Duration::from_secs(30)).await,
                _ => {
                    // Nothing is read, and much is to be written.
                    for _ in 0..4 {
                        let big = mqtt_client::Publish::new("t", vec![0; 60_000]).unwrap();
                        drop(session.admit(big.with_qos(QoS::AtLeastOnce)).await);
                    }
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            }
            session.closed().await;
            assert_eq!(recorded.look().get("sessions_connected"), None, "{cause}");
            let name = format!("connections_ended_total{{cause={cause}}}");
            assert!(recorded.look().contains_key(&name), "{name}");
        }
        let look = recorded.look();
        assert_eq!(look["connections_ended_total{cause=server}"], 2.0);
        assert_eq!(look["connect_total{outcome=connected}"], 7.0);
    });
}

/// As when the runtime shuts down.
#[test]
fn a_task_that_is_dropped_leaves_no_session_connected() {
    recorded(async |recorded| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (connector, mut listener) = connector(config(Version::V5));
        let (session, server) = {
            let _entered = runtime.enter();
            tokio::join!(connector.connect(endpoint()), async {
                let mut server = listener.accept().await;
                server.accept_with(ConnAck::accepted()).await;
                server
            })
        };
        runtime.shutdown_background();
        recorded.check(&[
            ("connect_total{outcome=connected}", 1.0),
            ("connections_ended_total{cause=task_dropped}", 1.0),
        ]);
        drop((session, server));
    });
}

#[test]
fn sessions_of_a_connector_are_one_sum_through_all_their_connections() {
    recorded(async |recorded| {
        let reconnect = ReconnectConfig::default().with_jitter(Duration::ZERO);
        let config = SessionConfig::new("gateway").with_reconnect(Some(reconnect));
        let (connector, mut listener) = connector(config);
        let another = connector.with_client_id("another").unwrap();
        let (session, mut server) =
            tokio::join!(connector.connect(endpoint()), accept(&mut listener));
        let (other, _server) = tokio::join!(another.connect(endpoint()), accept(&mut listener));
        let (session, other) = (session.unwrap(), other.unwrap());
        let subscribe = Subscribe::new("a").unwrap();
        let _stream = subscribed(&session, &mut server, subscribe).await;
        assert_eq!(recorded.look()["sessions_connected"], 2.0);
        drop(server);
        settle().await;
        assert_eq!(recorded.look()["sessions_connected"], 1.0);
        let mut server = accept(&mut listener).await;
        let id = server.expect_subscribe().await.packet_id;
        server.suback(id, vec![ReasonCode::NOT_AUTHORIZED]).await;
        settle().await;
        recorded.check(&[
            ("connect_total{outcome=connected}", 3.0),
            ("connections_ended_total{cause=server}", 1.0),
            ("sessions_connected", 2.0),
            ("subscriptions_refused_total", 1.0),
        ]);
        drop(other);
    });
}
