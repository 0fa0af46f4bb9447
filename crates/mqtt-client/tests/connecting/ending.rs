//! What ends a connection and what ends the session with it.

use mqtt_client::{
    LostCause, ReasonCode, SessionState, Version,
    proto::packet::{ConnAck, Disconnect, Packet},
};
use tokio::time::Instant;

use crate::{
    SECOND,
    common::{BOTH, connector, settle},
    config, open, resume,
};

/// None of it ends the session: what the server does wrong may be mended there.
#[tokio::test(start_paused = true)]
async fn what_the_server_does_wrong_ends_the_connection_alone() {
    for version in BOTH {
        for bytes in [
            // Not a packet.
            &[0x00, 0x00][..],
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            // Out of order.
            &[0xC0, 0x00],
        ] {
            let (connector, mut listener) = connector(config(version));
            let (session, mut server) = open(&connector, &mut listener).await;
            server.send_bytes(bytes).await;
            let begin = Instant::now();
            // The same instead of a CONNACK.
            let mut server = listener.accept().await;
            assert_eq!(begin.elapsed(), SECOND);
            server.expect_connect().await;
            server.send_bytes(bytes).await;
            drop(server);
            let _server = resume(&mut listener).await;
            assert_eq!(begin.elapsed(), SECOND * 3);
            settle().await;
            assert!(matches!(
                session.state(),
                SessionState::Connected { resumed: true, .. }
            ));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_goodbye_is_connected_to_again() {
    for code in [
        ReasonCode::SUCCESS,
        ReasonCode::SERVER_SHUTTING_DOWN,
        ReasonCode::PACKET_TOO_LARGE,
    ] {
        let (connector, mut listener) = connector(config(Version::V5));
        let (session, mut server) = open(&connector, &mut listener).await;
        server.send(Packet::Disconnect(Disconnect::new(code))).await;
        server.expect_closed().await;
        let _server = resume(&mut listener).await;
        settle().await;
        assert!(!session.is_closed(), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_ends_the_session() {
    for code in [
        ReasonCode::SESSION_TAKEN_OVER,
        ReasonCode::NOT_AUTHORIZED,
        ReasonCode::SERVER_MOVED,
    ] {
        let (connector, mut listener) = connector(config(Version::V5));
        let (session, mut server) = open(&connector, &mut listener).await;
        server.send(Packet::Disconnect(Disconnect::new(code))).await;
        let lost = session.closed().await;
        assert!(matches!(lost.cause, LostCause::Disconnected(_)), "{lost:?}");
    }
    let (connector, mut listener) = connector(config(Version::V5));
    let (session, server) = open(&connector, &mut listener).await;
    drop(server);
    let mut server = listener.accept().await;
    server
        .accept_with(ConnAck::refused(ReasonCode::BANNED))
        .await;
    let lost = session.closed().await;
    assert!(matches!(lost.cause, LostCause::NotReopened(_)), "{lost:?}");
}
