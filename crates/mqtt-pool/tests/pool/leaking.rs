//! Leases that are held too long.

use std::time::Duration;

use mqtt_pool::Pool;
use tokio::time::{Instant, sleep};

use crate::{
    server::{Server, seconds, settle},
    warnings::Warnings,
};

/// The overdue leases by slot, line of this file and time.
#[track_caller]
fn check(pool: &Pool<Server>, expected: &[(u32, u32, Duration)]) {
    let overdue = pool.overdue_leases();
    assert!(overdue.is_sorted_by(|a, b| a.held >= b.held), "{overdue:?}");
    for lease in &overdue {
        let file = lease.leased_at.file();
        assert!(file.ends_with("leaking.rs"), "{file}");
    }
    let mut found: Vec<_> = overdue
        .iter()
        .map(|lease| (lease.slot, lease.leased_at.line(), lease.held))
        .collect();
    // Which of two comes first that are held for as long is not said.
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_held_too_long_is_named_by_its_place() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_leak_after(seconds(10)));
    let (line, first) = (line!(), pool.get().await.unwrap());
    sleep(seconds(2)).await;
    let deadline = Instant::now() + seconds(1);
    let (next, second) = (line!(), pool.get_with(deadline).await.unwrap());
    drop(pool.get().await.unwrap());
    let (last, third) = (line!(), pool.try_get().unwrap());
    sleep(Duration::from_millis(7_999)).await;
    check(&pool, &[]);
    sleep(Duration::from_millis(1)).await;
    check(&pool, &[(0, line, seconds(10))]);
    sleep(seconds(2)).await;
    let expected = [
        (0, line, seconds(12)),
        (1, next, seconds(10)),
        (2, last, seconds(10)),
    ];
    check(&pool, &expected);

    // However it ends, it is gone.
    drop(first);
    check(&pool, &expected[1..]);
    second.discard();
    check(&pool, &expected[2..]);
    third.detach();
    check(&pool, &[]);
}

#[tokio::test(start_paused = true)]
async fn it_is_reported_once() {
    let (warnings, _dispatches, _guard) = Warnings::listen();
    let server = Server::default();
    let pool = server.pool(|config| config.with_name("east").with_leak_after(seconds(10)));
    let (line, lease) = (line!(), pool.get().await.unwrap());
    let short = pool.get().await.unwrap();
    sleep(seconds(9)).await;
    drop(short);
    assert_eq!(warnings.take(), [""; 0]);
    sleep(seconds(2)).await;
    let told = warnings.take();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "message=a lease is held for longer than leak_after;".to_owned(),
        "pool=\"east\";".to_owned(),
        "slot=0;".to_owned(),
        "held=1".to_owned(),
        format!("leaking.rs:{line}:"),
    ] {
        assert!(told[0].contains(&part), "{part} in {told:?}");
    }
    sleep(seconds(600)).await;
    assert_eq!(warnings.take(), [""; 0]);

    // The next lease of the same member is another one.
    drop(lease);
    settle().await;
    let _lease = pool.get().await.unwrap();
    sleep(seconds(12)).await;
    assert_eq!(warnings.take().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_watches_unless_asked() {
    let (warnings, _dispatches, _guard) = Warnings::listen();
    let pool = Server::default().pool(|config| config);
    let _lease = pool.get().await.unwrap();
    sleep(seconds(10_000)).await;
    assert_eq!(pool.overdue_leases(), []);
    assert_eq!(warnings.take(), [""; 0]);
}
