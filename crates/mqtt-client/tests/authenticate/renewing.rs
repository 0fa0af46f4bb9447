//! Re-authentication by the session itself, before what was proved ends.

use tokio::time::Instant;

use super::*;
use crate::common::settle;

const VALID_FOR: Duration = Duration::from_secs(1_000);

fn short_lived() -> Ways {
    Ways {
        valid_for: Some(VALID_FOR),
        ..Ways::default()
    }
}

/// The server waits longer than its own patience.
async fn expect_again(server: &mut ScriptedServer, since: Instant) -> Duration {
    tokio::time::sleep_until(since + VALID_FOR * 69 / 100).await;
    assert_eq!(server.recv().await, auth(AGAIN, "again"));
    since.elapsed()
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn comes_at_seven_to_eight_tenths_each_time() {
    let (session, mut server, _listener) = open(config(), short_lived()).await;
    let mut times = Vec::new();
    for _ in 0..4 {
        let since = Instant::now();
        let after = expect_again(&mut server, since).await;
        assert!(after >= VALID_FOR * 7 / 10 && after <= VALID_FOR * 8 / 10 + SECOND);
        times.push(after);
        server.send(auth(SUCCESS, "proof")).await;
        settle().await;
    }
    let spread = times
        .iter()
        .max()
        .unwrap()
        .abs_diff(*times.iter().min().unwrap());
    assert!(spread > SECOND / 10, "by chance: {times:?}");
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn begins_anew_with_each_success_and_each_connection() {
    let (session, mut server, mut listener) = open(config(), short_lived()).await;
    let before = tasks();
    tokio::time::sleep(VALID_FOR / 2).await;
    let (again, ()) = tokio::join!(session.reauthenticate(), async {
        server.recv().await;
        server.send(auth(SUCCESS, "proof")).await;
    });
    again.unwrap();
    settle().await;
    assert_eq!(tasks(), before, "the one that waits has given way");
    let since = Instant::now();
    tokio::time::sleep(VALID_FOR / 2).await;
    drop(server);
    settle().await;
    assert_eq!(tasks(), before - 1);
    let mut server = accept(&mut listener).await;
    settle().await;
    assert_eq!(tasks(), before);
    assert!(since.elapsed() > VALID_FOR / 2);
    let since = Instant::now();
    let after = expect_again(&mut server, since).await;
    assert!(after >= VALID_FOR * 69 / 100, "{after:?}");
    server.send(auth(SUCCESS, "proof")).await;
    settle().await;
    drop(session);
    settle().await;
    assert_eq!(tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn is_tried_again_while_there_is_time() {
    let (connector, mut listener) = {
        let ways = Arc::new(short_lived());
        let pair = parrots(config(), &ways);
        (pair.0, (pair.1, ways))
    };
    let (session, mut server) = tokio::join!(connector.connect(endpoint()), async {
        let mut server = listener.0.accept().await;
        server.accept_with(accepted("proof")).await;
        server
    });
    let session = session.unwrap();
    let ways = listener.1;
    let since = Instant::now();
    ways.unavailable.store(3, Ordering::Relaxed);
    tokio::time::sleep_until(since + VALID_FOR * 95 / 100).await;
    server.recv().await;
    assert!(since.elapsed() < VALID_FOR);
    assert_eq!(ways.made.load(Ordering::Relaxed), 5);
    server.send(auth(SUCCESS, "proof")).await;
    settle().await;

    // It ends with that time, and leaves the rest to the server.
    ways.unavailable.store(u32::MAX, Ordering::Relaxed);
    tokio::time::sleep(VALID_FOR * 2).await;
    let tried = ways.made.load(Ordering::Relaxed) - 5;
    assert!((5..20).contains(&tried), "{tried}");
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_validity_of_nothing_does_not_spin() {
    let ways = Ways {
        valid_for: Some(Duration::ZERO),
        ..Ways::default()
    };
    let (session, mut server, _listener) = open(config(), ways).await;
    let since = Instant::now();
    for _ in 0..10 {
        server.recv().await;
        server.send(auth(SUCCESS, "proof")).await;
    }
    assert!(since.elapsed() >= SECOND * 7);
    drop(session);
    settle().await;
    assert_eq!(tasks(), 0);
}
