//! Members that many callers use at once: who gets which, and who waits.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use futures_util::{FutureExt, poll};
use mqtt_pool::{
    AcquireError, Connect, ConnectContext, DialError, OnUnavailable, Phase, Pool, PoolConfig,
    Shared, SharedConfig, SharedPool,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::server::{Connection, Mood, Refused, Server, seconds, settle};

pub(crate) fn share<C: Connect<Connection: Sync>>(pool: &Pool<C>, size: usize) -> SharedPool<C> {
    SharedPool::new(pool.clone(), SharedConfig::default().with_size(size))
        .expect("the options are allowed")
}

/// How many handles there are on each member.
fn spread<'a>(handles: impl IntoIterator<Item = &'a Shared<Server>>) -> BTreeMap<u32, usize> {
    let mut spread = BTreeMap::new();
    for handle in handles {
        *spread.entry(handle.id).or_default() += 1;
    }
    spread
}

#[tokio::test(start_paused = true)]
async fn the_size_leaves_room_for_a_replacement() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(3));
    assert_eq!(SharedConfig::default().size, 2);
    for (size, is_allowed) in [(0, false), (1, true), (2, true), (3, false)] {
        let result = SharedPool::new(pool.clone(), SharedConfig::default().with_size(size));
        assert_eq!(result.is_ok(), is_allowed, "{size}");
        if let Err(errors) = result {
            let errors: Vec<_> = errors.iter().map(|error| &*error.path).collect();
            assert_eq!(errors, ["shared.size"]);
        }
    }
    let config: SharedConfig = toml::from_str("size = 7").unwrap();
    assert_eq!(config, SharedConfig::default().with_size(7));
    assert!(toml::from_str::<SharedConfig>("sise = 7").is_err());
}

#[tokio::test(start_paused = true)]
async fn all_positions_are_filled_at_the_same_time() {
    let server = Server::default();
    server.set_connect(Mood::Takes(seconds(1)));
    let pool = server.pool(|config| config.with_max_size(4));
    let shared = share(&pool, 3);
    assert!(shared.pick().is_none());

    let begin = Instant::now();
    let _handle = shared.get().await.unwrap();
    assert_eq!(begin.elapsed(), seconds(1));
    settle().await;
    let status = shared.status();
    assert_eq!((status.positions, status.usable), (3, 3));
    assert_eq!(status.to_string(), "3 of 3 usable, 1 handles, 0 retiring");
    assert_eq!(pool.status().in_use, 3);
}

#[tokio::test(start_paused = true)]
async fn of_two_the_one_with_fewer_handles_is_picked() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 2);
    settle().await;
    let mut handles: Vec<_> = (0..10).map(|_| shared.pick().unwrap()).collect();
    assert_eq!(spread(&handles), BTreeMap::from([(0, 5), (1, 5)]));
    assert_eq!(shared.status().handles, 10);

    // What is dropped makes room.
    handles.retain(|handle| handle.id == 0);
    assert_eq!(shared.status().handles, 5);
    let more: Vec<_> = (0..4).map(|_| shared.pick().unwrap()).collect();
    assert_eq!(spread(&more), BTreeMap::from([(1, 4)]));
}

#[tokio::test(start_paused = true)]
async fn work_in_flight_counts_like_handles() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 2);
    settle().await;
    let busy = shared.pick().unwrap();
    busy.load.store(6, Ordering::Relaxed);
    let handles: Vec<_> = (0..7).map(|_| shared.pick().unwrap()).collect();
    assert_eq!(spread(&handles), BTreeMap::from([(1 - busy.id, 7)]));
}

/// At random alone, 25,000 each, the difference would be more than 200 in nearly every run.
#[tokio::test(start_paused = true)]
async fn of_many_the_load_stays_even() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 4);
    settle().await;
    let handles: Vec<_> = (0..100_000).map(|_| shared.pick().unwrap()).collect();
    let spread = spread(&handles);
    let (most, fewest) = (
        spread.values().max().unwrap(),
        spread.values().min().unwrap(),
    );
    assert!(most - fewest < 20, "{spread:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_dead_is_not_picked() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_max_size(5));
    let shared = share(&pool, 4);
    settle().await;
    let handles: Vec<_> = (0..400).map(|_| shared.pick().unwrap()).collect();
    let last = handles.last().unwrap().id;
    for handle in handles.iter().filter(|handle| handle.id != last) {
        handle.kill();
    }
    // It is the one that is left, however much there is on it, and before anybody could replace
    // the others.
    for _ in 0..1_000 {
        assert_eq!(shared.pick().unwrap().id, last);
    }
    assert_eq!(shared.status().usable, 1);
    for handle in handles {
        handle.kill();
    }
    assert!(shared.pick().is_none());
    assert_eq!((shared.status().usable, shared.status().handles), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_dies_is_replaced_at_once() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 2);
    // After that its endpoint is not at fault.
    sleep(seconds(31)).await;
    let fate = shared.pick().unwrap().fate();
    let begin = Instant::now();
    fate.fail();
    for _ in 0..20 {
        yield_now().await;
    }
    assert_eq!(shared.status().usable, 2, "without time passing");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(server.with(|counts| counts.connected), 3);
}

#[tokio::test(start_paused = true)]
async fn what_dies_in_silence_is_replaced_when_it_is_picked_or_soon() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 1);
    settle().await;
    let begin = Instant::now();
    shared.pick().unwrap().kill();
    assert_eq!(shared.get().await.unwrap().id, 1);
    assert_eq!(begin.elapsed(), Duration::ZERO);

    shared.pick().unwrap().kill();
    assert_eq!(shared.by_key("a").await.unwrap().id, 2);
    assert_eq!(begin.elapsed(), Duration::ZERO);

    shared.pick().unwrap().kill();
    sleep(seconds(1)).await;
    settle().await;
    assert_eq!(shared.pick().unwrap().id, 3);
}

#[tokio::test(start_paused = true)]
async fn what_panics_when_asked_is_dead() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 1);
    settle().await;
    let handle = shared.pick().unwrap();
    handle.panics.store(true, Ordering::Relaxed);
    assert!(shared.pick().is_none());
    assert_eq!(shared.get().await.unwrap().id, 1);
}

#[tokio::test(start_paused = true)]
async fn time_is_up_with_the_last_error() {
    let server = Server::default();
    server.set_connect(Mood::Refuses);
    let pool = server.pool(|config| config.with_acquire_timeout(seconds(3)));
    let shared = share(&pool, 2);
    let begin = Instant::now();
    let error = shared.get().await.unwrap_err();
    assert_eq!(begin.elapsed(), seconds(3));
    let AcquireError::Timeout {
        waited,
        phase,
        last_dial_error,
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((waited, phase), (seconds(3), Phase::Connect));
    assert!(matches!(
        last_dial_error.as_deref(),
        Some(DialError::Connect(_))
    ));

    let error = shared.get_with(begin + seconds(4)).await.unwrap_err();
    assert_eq!(begin.elapsed(), seconds(4));
    assert!(matches!(error, AcquireError::Timeout { .. }));
    let error = shared.by_key_with("a", begin + seconds(5)).await;
    assert_eq!(begin.elapsed(), seconds(5));
    assert!(matches!(error, Err(AcquireError::Timeout { .. })));

    server.set_connect(Mood::Prompt);
    let (any, one) = tokio::join!(
        shared.get_with(begin + seconds(60)),
        shared.by_key_with("a", begin + seconds(60))
    );
    assert!(any.is_ok() && one.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_gets_what_is_there() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 2);
    let past = Instant::now();
    assert!(matches!(
        shared.get_with(past).await,
        Err(AcquireError::Timeout { .. })
    ));
    settle().await;
    assert!(shared.get_with(past).await.is_ok());
    assert!(shared.by_key_with("a", past).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_nothing() {
    let server = Server::default();
    server.set_connect(Mood::Takes(seconds(1)));
    let shared = share(&server.pool(|config| config), 1);
    {
        let mut any = Box::pin(shared.get());
        let mut one = Box::pin(shared.by_key("a"));
        assert!(poll!(&mut any).is_pending() && poll!(&mut one).is_pending());
        sleep(seconds(2)).await;
        // Both have been woken and not asked since.
    }
    assert_eq!((shared.status().handles, shared.status().usable), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_to_wait_is_told_at_once() {
    let server = Server::default();
    server.set_connect(Mood::Refuses);
    let pool = server.pool(|config| config.with_on_unavailable(OnUnavailable::FailFast));
    let shared = share(&pool, 2);
    let begin = Instant::now();
    for _ in 0..20 {
        let (any, one) = tokio::join!(shared.get(), shared.by_key("a"));
        for result in [any, one] {
            let Err(AcquireError::Unavailable {
                last_dial_error,
                retry_at,
                ..
            }) = result
            else {
                panic!("{result:?}");
            };
            assert!(last_dial_error.is_some());
            sleep(retry_at.unwrap().saturating_duration_since(Instant::now())).await;
        }
    }
    assert!(begin.elapsed() < seconds(600), "the pauses of a pool");
    let attempts = server.with(|counts| counts.attempts);
    assert!(attempts <= 60, "{attempts}");

    server.set_connect(Mood::Prompt);
    sleep(seconds(31)).await;
    assert_eq!(shared.status().usable, 2);
}

/// Refuses for good, as long as the server refuses.
struct Banned(Server);

impl Connect for Banned {
    type Connection = Connection;
    type Error = Refused;

    async fn connect(&self, context: ConnectContext) -> Result<Connection, Refused> {
        self.0.connect(context).await
    }

    fn is_transient(&self, _: &Refused) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_for_good_is_tried_again_when_it_is_cleared() {
    let server = Server::default();
    server.set_connect(Mood::Refuses);
    let pool = Pool::new(Banned(server.clone()), PoolConfig::default()).unwrap();
    let shared = share(&pool, 2);
    let begin = Instant::now();
    assert!(matches!(
        shared.get().await,
        Err(AcquireError::Unavailable { .. })
    ));
    let attempts = server.with(|counts| counts.attempts);
    sleep(seconds(60)).await;
    assert_eq!(server.with(|counts| counts.attempts), attempts);
    assert!(matches!(
        shared.by_key("a").await,
        Err(AcquireError::Unavailable { .. })
    ));
    assert_eq!(begin.elapsed(), seconds(60));

    server.set_connect(Mood::Prompt);
    pool.clear();
    settle().await;
    assert_eq!(shared.status().usable, 2);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_panics_is_a_holder_no_longer() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 1);
    let handle = shared.get().await.unwrap();
    let (id, holder) = (
        handle.id,
        tokio::spawn(async move {
            let _handle = handle;
            panic!("the holder's code");
        }),
    );
    assert!(holder.await.is_err());
    assert_eq!((shared.status().handles, shared.status().usable), (0, 1));
    assert_eq!(shared.pick().unwrap().id, id);
}

#[tokio::test(start_paused = true)]
async fn positions_are_not_forgotten_leases() {
    let server = Server::default();
    let pool = server.pool(|config| config.with_leak_after(seconds(10)));
    let _shared = share(&pool, 2);
    let _lease = pool.get().await.unwrap();
    sleep(seconds(20)).await;
    assert_eq!(pool.status().in_use, 3);
    assert_eq!(pool.overdue_leases().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_there_without_waiting() {
    let server = Server::default();
    let shared = share(&server.pool(|config| config), 2);
    settle().await;
    assert!(shared.get().now_or_never().is_some());
    assert!(shared.by_key("a").now_or_never().is_some());
}
