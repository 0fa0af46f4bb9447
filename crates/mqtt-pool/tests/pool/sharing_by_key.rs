//! The members of a shared pool by key: what stays in order.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::poll;
use mqtt_pool::{AcquireError, Phase, SharedPool};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    server::{Mood, Server, seconds, settle},
    sharing::share,
};

/// Keys of different positions.
async fn two_keys(shared: &SharedPool<Server>) -> [u32; 2] {
    let first = shared.by_key(&0).await.expect("a member").id;
    for key in 1..100 {
        if shared.by_key(&key).await.expect("a member").id != first {
            return [0, key];
        }
    }
    panic!("all keys have the same position");
}

#[tokio::test(start_paused = true)]
async fn a_key_has_its_position_and_keys_have_all() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 4);
    settle().await;
    let clone = shared.clone();
    let mut used = BTreeSet::new();
    for key in 0..100 {
        let key = format!("device-{key}");
        let id = shared.by_key(&key).await.unwrap().id;
        // However busy it is, and however the key is kept.
        let _handles: Vec<_> = (0..10).map(|_| shared.pick().unwrap()).collect();
        assert_eq!(clone.by_key(key.as_str()).await.unwrap().id, id);
        used.insert(id);
    }
    assert_eq!(used.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_for_its_own_position_only() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 2);
    settle().await;
    let [dead, alive] = two_keys(&shared).await;
    server.set_connect(Mood::Takes(seconds(2)));
    shared.by_key(&dead).await.unwrap().fail();
    settle().await;

    let begin = Instant::now();
    assert!(shared.by_key(&alive).await.is_ok());
    assert!(shared.get().await.is_ok());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let error = shared.by_key_with(&dead, begin + seconds(1)).await;
    assert!(
        matches!(
            error,
            Err(AcquireError::Timeout {
                phase: Phase::Connect,
                ..
            })
        ),
        "{error:?}"
    );
    assert_eq!(shared.by_key(&dead).await.unwrap().id, 2);
}

/// What goes over an old connection takes longer.
#[tokio::test(start_paused = true)]
async fn work_of_a_key_stays_in_order_across_replacements() {
    const MESSAGES: u32 = 200;
    let server = Server::default();
    let pool = server.pool(|config| config);
    let shared = share(&pool, 2);
    settle().await;
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let mut in_flight = JoinSet::new();
    for message in 0..MESSAGES {
        match message {
            50 | 100 => pool.clear(),
            150 => shared.by_key("k").await.unwrap().fail(),
            _ => {}
        }
        let handle = shared.by_key("k").await.unwrap();
        let arrived = arrived.clone();
        in_flight.spawn(async move {
            sleep(Duration::from_millis(500) / (handle.id + 1)).await;
            arrived.lock().unwrap().push((message, handle.id));
        });
        sleep(Duration::from_millis(1)).await;
    }
    in_flight.join_all().await;

    let arrived = arrived.lock().unwrap().clone();
    let messages: Vec<_> = arrived.iter().map(|(message, _)| *message).collect();
    assert_eq!(messages, (0..MESSAGES).collect::<Vec<_>>());
    let members: BTreeSet<_> = arrived.iter().map(|(_, id)| *id).collect();
    assert!(members.len() > 3, "{members:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_handle_delays_its_own_position_only() {
    let server = Server::default();
    let pool = server.pool(|config| config);
    let shared = share(&pool, 2);
    settle().await;
    let [slow, quick] = two_keys(&shared).await;
    let held = shared.by_key(&slow).await.unwrap();
    // Twice, so that a second old member stands between it and the newest.
    for _ in 0..2 {
        pool.clear();
        settle().await;
    }
    let begin = Instant::now();
    assert!(shared.by_key(&quick).await.unwrap().id >= 2);
    let picked: BTreeSet<_> = (0..50).map(|_| shared.pick().unwrap().id).collect();
    assert_eq!(picked.len(), 2, "order is no matter of theirs");
    assert!(!picked.contains(&held.id));
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let error = shared.by_key_with(&slow, begin + seconds(1)).await;
    assert!(
        matches!(
            error,
            Err(AcquireError::Timeout {
                phase: Phase::Queue,
                ..
            })
        ),
        "{error:?}"
    );
    let mut waiting = Box::pin(shared.by_key(&slow));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    let handle = waiting.await.unwrap();
    assert_eq!(begin.elapsed(), seconds(1));
    assert!(handle.id >= 2);
}

#[tokio::test(start_paused = true)]
async fn the_handles_on_a_dead_member_are_waited_for_as_well() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 1);
    let held = shared.get().await.unwrap();
    held.fail();
    settle().await;
    assert_eq!(shared.get().await.unwrap().id, 1);
    let mut waiting = Box::pin(shared.by_key("k"));
    assert!(poll!(&mut waiting).is_pending());
    settle().await;
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(waiting.await.unwrap().id, 1);
}
