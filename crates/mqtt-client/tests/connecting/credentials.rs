//! Who a session says it is, at every attempt.

use std::{
    io,
    io::Write,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use mqtt_client::{
    Cause, Credentials, CredentialsError, CredentialsRequest, CredentialsSource, EnvCredentials,
    FileCredentials, LostCause, Plan, PooledSessions, Publish, QoS, ReasonCode, SessionConnector,
    SessionState, Version,
    pool::{Limit, Pool, PoolConfig},
    proto::packet::{ConnAck, Connect, Disconnect, Packet},
};
use mqtt_testkit::{MemoryConnector, ScriptedServer};
use tokio::time::{Instant, sleep};

use crate::{
    SECOND,
    common::{connector, endpoint, now, publish, report, settle},
    config, open, resume,
};

/// A source that gives tokens with numbers, and how many it gave.
fn tokens(expires_in: Option<Duration>) -> (impl CredentialsSource + Clone, Arc<AtomicU32>) {
    let given = Arc::new(AtomicU32::new(0));
    let counter = given.clone();
    let source = move |_: &CredentialsRequest<'_>| {
        let token = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut credentials = Credentials::new("gateway", format!("token {token}"))?;
            credentials.expires_in = expires_in;
            Ok(credentials)
        }
    };
    (source, given)
}

fn password(connect: &Connect) -> &str {
    std::str::from_utf8(connect.password.as_ref().unwrap().expose()).unwrap()
}

async fn refuse(server: &mut ScriptedServer, code: ReasonCode) -> Connect {
    server.accept_with(ConnAck::refused(code)).await
}

type Asked = (String, String, u32, Option<String>);

/// [MQTT5-3.1.2-17] [MQTT5-3.1.2-19]
#[tokio::test(start_paused = true)]
async fn a_source_is_asked_at_every_attempt_and_told_about_it() {
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let record = asked.clone();
    let (connector, mut listener) = connector(
        config(Version::V5)
            .with_user_name("configured".to_owned())
            .with_password(mqtt_client::Secret::new("configured").unwrap()),
    );
    let connector = connector
        .with_credentials(move |request: &CredentialsRequest<'_>| {
            let last = request.last.map(|cause| match cause {
                Cause::Lost(lost) => report(lost),
                Cause::NotOpened(error) => report(error),
            });
            let mut asked = record.lock().unwrap();
            asked.push((
                request.endpoint.to_string(),
                request.client_id.to_owned(),
                request.attempt,
                last,
            ));
            let token = format!("token {}", asked.len());
            async move { Credentials::new("gateway", token) }
        })
        .with_client_id("device-7")
        .unwrap();
    let (session, ()) = tokio::join!(connector.connect(endpoint()), async {
        drop(listener.accept().await);
        let mut server = listener.accept().await;
        let connect = server.accept().await;
        assert_eq!(connect.user_name.as_deref(), Some("gateway"));
        assert_eq!(password(&connect), "token 2");
        drop(server);
        let mut server = listener.accept().await;
        assert_eq!(password(&server.expect_connect().await), "token 3");
    });
    let session = session.unwrap();
    assert!(!format!("{session:#?}").contains("token"));
    let asked = asked.lock().unwrap();
    for (asked, (attempt, word)) in
        asked
            .iter()
            .zip([(0, ""), (1, "before CONNACK"), (1, "closed by the server")])
    {
        assert_eq!(asked.0, "mqtt://server.test:1883");
        assert_eq!(asked.1, "device-7");
        assert_eq!(asked.2, attempt);
        let last = asked.3.as_deref().unwrap_or_default();
        assert!(last.contains(word), "{last}");
        assert_eq!(last.is_empty(), word.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_or_hangs_is_a_failed_attempt() {
    // For now: it is asked again.
    let (connector, mut listener) = connector(config(Version::V5));
    let asked = AtomicU32::new(0);
    let source = connector
        .clone()
        .with_credentials(move |_: &CredentialsRequest<'_>| {
            let asked = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                match asked {
                    0 => Err(io::Error::other("the vault is sealed").into()),
                    1 => std::future::pending().await,
                    _ => Credentials::new("a", "b"),
                }
            }
        });
    let begin = Instant::now();
    let (session, _server) = open(&source, &mut listener).await;
    // A pause of 1 s, the 5 s it may take, and a pause of 2 s.
    assert_eq!(begin.elapsed(), SECOND * 8);
    drop(session);

    // For good.
    let source = connector.with_credentials(|_: &CredentialsRequest<'_>| async {
        let gone = io::Error::other("there is no such role");
        Err(CredentialsError::permanent(gone))
    });
    let error = source.connect(endpoint()).await.unwrap_err();
    let text = report(&error);
    assert!(
        text.contains("no credentials: there is no such role"),
        "{text}"
    );
    assert!(!error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_renewed_once_and_at_once() {
    for code in [
        ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        ReasonCode::NOT_AUTHORIZED,
    ] {
        let (connector, mut listener) = connector(config(Version::V5));
        let (source, given) = tokens(None);
        let connector = connector.with_credentials(source);
        let begin = Instant::now();
        // At the opening: the second attempt is the last.
        let (session, ()) = tokio::join!(connector.connect(endpoint()), async {
            for n in 0..2 {
                let connect = refuse(&mut listener.accept().await, code).await;
                assert_eq!(password(&connect), format!("token {n}"));
            }
        });
        session.unwrap_err();
        assert_eq!(given.load(Ordering::Relaxed), 2);

        // And of a session that was open: token 2 opens it, 3 is refused, 4 is not.
        let (session, server) = open(&connector, &mut listener).await;
        drop(server);
        refuse(&mut listener.accept().await, code).await;
        let mut server = resume(&mut listener).await;
        // Kicked before it is stable: the refusal is like any other.
        let goodbye = Disconnect::new(ReasonCode::NOT_AUTHORIZED);
        server.send(Packet::Disconnect(goodbye)).await;
        session.closed().await;
        assert_eq!(given.load(Ordering::Relaxed), 5);
        assert_eq!(begin.elapsed(), SECOND);
    }
}

/// Servers that end sessions whose token has run out.
#[tokio::test(start_paused = true)]
async fn kicked_for_old_credentials_a_stable_session_comes_back_at_once() {
    let (connector, mut listener) = connector(config(Version::V5).with_keep_alive(Duration::ZERO));
    let connector = connector.with_credentials(tokens(None).0);
    let (session, mut server) = open(&connector, &mut listener).await;
    for n in 1..5 {
        sleep(SECOND * 3_600).await;
        let kicked = Instant::now();
        let goodbye = Disconnect::new(ReasonCode::NOT_AUTHORIZED);
        server.send(Packet::Disconnect(goodbye)).await;
        server = listener.accept().await;
        let connect = server.accept_with(ConnAck::resumed()).await;
        assert_eq!(password(&connect), format!("token {n}"));
        assert_eq!(kicked.elapsed(), Duration::ZERO);
    }
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn fixed_credentials_are_refused_once() {
    let (connector, mut listener) = connector(config(Version::V5));
    let connector = connector.with_credentials(Credentials::new("a", "b").unwrap());
    let (session, ()) = tokio::join!(connector.connect(endpoint()), async {
        let code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
        let connect = refuse(&mut listener.accept().await, code).await;
        assert_eq!(password(&connect), "b");
    });
    session.unwrap_err();
}

/// A pool does not ask the server twice with what the source gave for each of its dials either.
#[tokio::test(start_paused = true)]
async fn sessions_of_a_pool_have_the_source_too() {
    let (connector, mut listener) = connector(config(Version::V5));
    let (source, _) = tokens(None);
    let sessions = PooledSessions::new(connector.with_credentials(source), endpoint());
    let pool = Pool::new(sessions, PoolConfig::default()).unwrap();
    let (lease, _server) = tokio::join!(pool.get(), async {
        let code = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
        let connect = refuse(&mut listener.accept().await, code).await;
        assert_eq!(&*connect.client_id, "gateway-0");
        assert_eq!(password(&connect), "token 0");
        let mut server = listener.accept().await;
        assert_eq!(password(&server.accept().await), "token 1");
        server
    });
    let _lease = lease.unwrap();
}

#[test]
fn variables_and_files_are_read_at_every_attempt() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let endpoint = endpoint();
    let read = |source: &dyn CredentialsSource| {
        let request = CredentialsRequest::new(&endpoint, "client");
        runtime.block_on(source.credentials(&request))
    };
    // One that there is wherever tests run; a test cannot set its own without `unsafe`.
    let path = std::env::var("PATH").unwrap();
    let given = read(&EnvCredentials::new("PATH", "PATH")).unwrap();
    assert_eq!(given.user_name.as_deref(), Some(&*path));
    assert_eq!(given.password.unwrap().expose(), path.as_bytes());
    let error = read(&EnvCredentials::new("PATH", "NO_SUCH_VARIABLE_17")).unwrap_err();
    assert!(report(&error).contains("NO_SUCH_VARIABLE_17 is not set"));
    assert!(!error.is_transient());

    let mut file = tempfile::NamedTempFile::new().unwrap();
    let source = FileCredentials::new("gateway", file.path());
    for (written, password) in [
        ("one", "one"),
        ("two\n", "two"),
        ("three\r\n", "three"),
        (" four \n\n", " four \n"),
        ("", ""),
    ] {
        file.as_file_mut().set_len(0).unwrap();
        io::Seek::rewind(file.as_file_mut()).unwrap();
        file.write_all(written.as_bytes()).unwrap();
        let given = read(&source).unwrap();
        assert_eq!(given.password.unwrap().expose(), password.as_bytes());
    }
    file.write_all(&[b'x'; 70_000]).unwrap();
    assert!(!read(&source).unwrap_err().is_transient(), "too long");
    drop(file);
    assert!(read(&source).unwrap_err().is_transient(), "not there now");
}

/// A connector whose tokens are good for an hour.
fn hourly(
    config: mqtt_client::SessionConfig,
) -> (
    SessionConnector<MemoryConnector>,
    mqtt_testkit::MemoryListener,
    Arc<AtomicU32>,
) {
    let (connector, listener) = connector(config);
    let (source, given) = tokens(Some(SECOND * 3_600));
    (connector.with_credentials(source), listener, given)
}

/// Lets the server answer pings until the session says something else.
async fn next_but_pings(server: &mut ScriptedServer) -> Packet {
    loop {
        let packet = server.recv().await;
        if packet != Packet::PingReq {
            return packet;
        }
        server.send(Packet::PingResp).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_session_goes_on_with_new_credentials_before_the_old_expire() {
    let (connector, mut listener, given) = hourly(config(Version::V5));
    let begin = Instant::now();
    let (session, mut server) = open(&connector, &mut listener).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    let first = server.expect_publish().await;
    for n in 1..4 {
        let packet = next_but_pings(&mut server).await;
        assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}");
        assert!((2_700..3_240 + 60).contains(&(begin.elapsed().as_secs() / n)));
        server.expect_closed().await;
        let cut = Instant::now();
        server = listener.accept().await;
        let connect = server.accept_with(ConnAck::resumed()).await;
        assert_eq!(cut.elapsed(), Duration::ZERO);
        assert_eq!(password(&connect), format!("token {n}"));
        let again = server.expect_publish().await;
        assert_eq!(again.packet_id, first.packet_id);
    }
    server.puback(first.packet_id.unwrap()).await;
    in_flight.await.unwrap();
    assert_eq!(given.load(Ordering::Relaxed), 4, "one for each connection");
}

#[tokio::test(start_paused = true)]
async fn without_a_kept_session_what_is_in_flight_is_waited_for() {
    let quiesce = Duration::from_millis(250);
    let config = config(Version::V5).with_session_expiry(Limit::After(Duration::ZERO));
    for is_answered in [true, false] {
        let (connector, mut listener, _) = hourly(config.clone());
        let (session, mut server) = open(&connector, &mut listener).await;
        let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
        assert!(now(&mut in_flight).await.is_none());
        let id = server.expect_publish().await.packet_id.unwrap();
        // Until it takes no more publishes.
        let mut queued = pin!(async {
            loop {
                session.publish(publish(QoS::AtMostOnce)).await.unwrap();
                sleep(SECOND / 10).await;
            }
        });
        let paused = tokio::select! {
            _ = &mut queued => unreachable!("it never ends"),
            paused = async {
                let mut last = Instant::now();
                loop {
                    match tokio::time::timeout(SECOND / 5, server.recv()).await {
                        Ok(Packet::Publish(_)) => last = Instant::now(),
                        Ok(Packet::PingReq) => server.send(Packet::PingResp).await,
                        Ok(Packet::Disconnect(_)) if !is_answered => return last,
                        Ok(packet) => panic!("{packet:?}"),
                        Err(_) if is_answered => return last,
                        Err(_) => {}
                    }
                }
            } => paused,
        };
        if is_answered {
            server.puback(id).await;
            in_flight.as_mut().await.unwrap();
            server.expect_disconnect().await;
        } else {
            assert!(paused.elapsed() <= SECOND / 10 + quiesce);
        }
        let mut server = listener.accept().await;
        let connect = server.accept().await;
        assert_eq!(password(&connect), "token 1");
        // It goes on.
        let mut later = pin!(session.publish(publish(QoS::AtLeastOnce)));
        tokio::select! {
            _ = &mut queued => unreachable!("it never ends"),
            _ = server.expect_publish() => {}
        }
        assert!(now(&mut later).await.is_none());
        if !is_answered {
            let error = in_flight.await.unwrap_err();
            assert!(report(&error).contains("new credentials"), "{error:?}");
        }
    }
}

/// A source that is away costs nothing as long as the connection holds.
#[tokio::test(start_paused = true)]
async fn a_connection_is_not_given_up_for_credentials_that_are_not_there() {
    let (connector, mut listener) = connector(config(Version::V5));
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let connector = connector.with_credentials(move |_: &CredentialsRequest<'_>| {
        let asked = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            match asked {
                0 | 4 => {
                    Ok(Credentials::new("a", format!("{asked}"))?.with_expires_in(SECOND * 100))
                }
                _ => Err(io::Error::other("away").into()),
            }
        }
    });
    let (session, mut server) = open(&connector, &mut listener).await;
    let packet = next_but_pings(&mut server).await;
    assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 5);
    let connect = {
        server = listener.accept().await;
        server.accept_with(ConnAck::resumed()).await
    };
    assert_eq!(password(&connect), "4");
    drop(session);
}

#[tokio::test(start_paused = true)]
async fn leaving_while_credentials_are_renewed_is_leaving() {
    let config = config(Version::V5).with_session_expiry(Limit::After(Duration::ZERO));
    let (connector, mut listener, _) = hourly(config.with_quiesce(SECOND * 10));
    let (session, mut server) = open(&connector, &mut listener).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    let id = server.expect_publish().await.packet_id.unwrap();
    let pings = async {
        loop {
            if matches!(server.recv().await, Packet::PingReq) {
                server.send(Packet::PingResp).await;
            }
        }
    };
    let paused = async {
        while now(session.publish(publish(QoS::AtMostOnce)))
            .await
            .is_some()
        {
            sleep(SECOND).await;
        }
    };
    tokio::select! {
        () = pings => unreachable!("it never ends"),
        () = paused => {}
    }
    let (left, ()) = tokio::join!(session.disconnect(), async {
        server.puback(id).await;
        next_but_pings(&mut server).await;
    });
    left.unwrap();
    in_flight.await.unwrap();
    assert!(matches!(session.closed().await.cause, LostCause::Closed));
    assert!(matches!(session.state(), SessionState::Disconnected));
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

/// What is in flight has its time, though new credentials come meanwhile.
#[tokio::test(start_paused = true)]
async fn leaving_is_not_cut_short_by_new_credentials() {
    let (connector, mut listener, given) = hourly(config(Version::V5).with_quiesce(SECOND * 4_000));
    let (session, mut server) = open(&connector, &mut listener).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    let id = server.expect_publish().await.packet_id.unwrap();
    let begin = Instant::now();
    let (left, ()) = tokio::join!(session.disconnect(), async {
        while begin.elapsed() < SECOND * 3_600 {
            assert_eq!(server.recv().await, Packet::PingReq);
            server.send(Packet::PingResp).await;
        }
        server.puback(id).await;
        next_but_pings(&mut server).await;
    });
    left.unwrap();
    in_flight.await.unwrap();
    assert_eq!(given.load(Ordering::Relaxed), 2);
}

/// What waits for the connection with new credentials is sent on it before the session leaves.
#[tokio::test(start_paused = true)]
async fn leaving_while_credentials_are_renewed_sends_what_was_taken() {
    let config = config(Version::V5).with_session_expiry(Limit::After(Duration::ZERO));
    let (connector, mut listener, _) = hourly(config.with_quiesce(SECOND * 10));
    let (session, mut server) = open(&connector, &mut listener).await;
    let mut in_flight = pin!(session.publish(publish(QoS::AtLeastOnce)));
    assert!(now(&mut in_flight).await.is_none());
    let id = server.expect_publish().await.packet_id.unwrap();
    let pings = async {
        loop {
            if matches!(server.recv().await, Packet::PingReq) {
                server.send(Packet::PingResp).await;
            }
        }
    };
    let paused = async {
        while now(session.publish(publish(QoS::AtMostOnce)))
            .await
            .is_some()
        {
            sleep(SECOND).await;
        }
    };
    tokio::select! {
        () = pings => unreachable!("it never ends"),
        () = paused => {}
    }
    let taken = session.admit(publish(QoS::AtLeastOnce)).await.unwrap();
    let (left, ()) = tokio::join!(session.drain(SECOND * 100), async {
        server.puback(id).await;
        next_but_pings(&mut server).await;
        let mut server = listener.accept().await;
        server.accept().await;
        let id = server.expect_publish().await.packet_id.unwrap();
        server.puback(id).await;
        server.expect_disconnect().await;
    });
    left.unwrap();
    in_flight.await.unwrap();
    taken.await.unwrap();
}

/// Told to leave while the goodbye to the old connection is on its way, it has left.
#[tokio::test(start_paused = true)]
async fn leaving_while_a_connection_is_given_up_is_leaving() {
    let (connector, mut listener) = connector(config(Version::V5).with_keep_alive(Duration::ZERO));
    // Asked for again after 10 s, as it is never sooner.
    let connector = connector.with_credentials(tokens(Some(SECOND)).0);
    let (session, mut server) = open(&connector, &mut listener).await;
    sleep(SECOND * 19 / 2).await;
    // The first fills the connection, and the goodbye stands behind the second.
    for _ in 0..2 {
        let large = Publish::new("a", vec![0; 1 << 20]).unwrap();
        session.publish(large).await.unwrap();
        settle().await;
    }
    sleep(SECOND).await;
    server.expect_publish().await;
    settle().await;
    let (left, ()) = tokio::join!(session.disconnect(), async {
        settle().await;
        server.expect_publish().await;
        server.expect_disconnect().await;
    });
    left.unwrap();
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::Closed), "{lost:?}");
    assert!(matches!(session.state(), SessionState::Disconnected));
}

/// A member of a pool is replaced, idle or not, and nobody is interrupted.
#[tokio::test(start_paused = true)]
async fn a_session_of_a_pool_is_not_handed_out_with_credentials_about_to_expire() {
    let (connector, mut listener, given) = hourly(config(Version::V5));
    let never = PoolConfig::default()
        .with_max_lifetime(Limit::Never)
        .with_idle_timeout(Limit::Never);
    let pool = Pool::new(PooledSessions::new(connector, endpoint()), never).unwrap();
    let accept = async {
        let mut server = listener.accept().await;
        server.accept().await;
        tokio::spawn(async move { server.serve().await });
    };
    let (lease, ()) = tokio::join!(pool.get(), accept);
    let leased = lease.unwrap();
    let accept = async {
        let mut server = listener.accept().await;
        server.accept().await;
        tokio::spawn(async move { server.serve().await });
    };
    let (lease, ()) = tokio::join!(pool.get(), accept);
    drop(lease.unwrap());
    settle().await;
    assert_eq!(pool.status().size, 2);
    sleep(SECOND * 3_300).await;
    // The idle one has left; the other one serves its holder still.
    assert_eq!(pool.status().size, 1);
    leased.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    drop(leased);
    settle().await;
    assert_eq!(pool.status().size, 0);
    assert_eq!(given.load(Ordering::Relaxed), 2);
    let begin = Instant::now();
    let (lease, _server) = tokio::join!(pool.get(), async {
        let mut server = listener.accept().await;
        assert_eq!(password(&server.accept().await), "token 2");
        server
    });
    let _lease = lease.unwrap();
    assert!(begin.elapsed() < SECOND / 10, "no failure of the server");
}

/// Each wait of an opening may be dropped.
#[tokio::test(start_paused = true)]
async fn an_opening_may_be_dropped_while_the_source_is_asked() {
    let (connector, _listener) = connector(config(Version::V5));
    let connector = connector
        .with_credentials(|_: &CredentialsRequest<'_>| std::future::pending())
        .with_reconnect_policy(|_| Plan::GiveUp);
    assert!(now(connector.connect(endpoint())).await.is_none());
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}
