//! Dials within a budget that pools share.

use std::{num::NonZeroU32, time::Duration};

use futures_util::{FutureExt, future::join_all, poll};
use mqtt_pool::{DialBudget, Pool, PoolConfig};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Mood, Server, seconds, settle};

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("not zero")
}

/// A server of its own, and a pool that dials it within this budget.
fn place(budget: &DialBudget, connect: Mood) -> (Server, Pool<Server>) {
    let server = Server::default();
    server.set_connect(connect);
    let config = PoolConfig::default()
        .with_max_connecting(16)
        .with_acquire_timeout(seconds(60));
    let pool = Pool::with_budget(server.clone(), config, budget.clone());
    (server, pool.expect("the options are allowed"))
}

fn attempts(server: &Server) -> u32 {
    server.with(|counts| counts.attempts)
}

#[tokio::test(start_paused = true)]
async fn dials_of_all_pools_together_stay_within_it() {
    let budget = DialBudget::new(number(3));
    let (east, east_pool) = place(&budget, Mood::Takes(seconds(1)));
    let (west, west_pool) = place(&budget, Mood::Takes(seconds(1)));
    let begin = Instant::now();
    let calls = (0..8).flat_map(|_| [east_pool.get(), west_pool.get()]);
    let calls = join_all(calls);
    let mut calls = std::pin::pin!(calls);
    let mut at_once = Vec::new();
    let leases = loop {
        match timeout(Duration::from_millis(100), calls.as_mut()).await {
            Ok(leases) => break leases,
            Err(_) => {
                let dialling = |server: &Server| server.with(|counts| counts.dialling);
                at_once.push(dialling(&east) + dialling(&west));
            }
        }
    };
    assert!(leases.iter().all(Result::is_ok));
    assert_eq!((attempts(&east), attempts(&west)), (8, 8));
    // Five times three, and the last one.
    assert_eq!(at_once.iter().max(), Some(&3), "{at_once:?}");
    let took = begin.elapsed();
    assert!(took >= seconds(6) && took < seconds(7), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn dials_of_all_pools_together_are_evenly_spaced() {
    let budget = DialBudget::with_rate(number(16), number(2));
    let (_, east_pool) = place(&budget, Mood::Prompt);
    let (_, west_pool) = place(&budget, Mood::Prompt);
    let begin = Instant::now();
    let times = (0..3).flat_map(|_| [&east_pool, &west_pool]).map(|pool| {
        let call = pool.get();
        call.map(|lease| (lease.unwrap(), begin.elapsed()))
    });
    let (_leases, mut times): (Vec<_>, Vec<_>) = join_all(times).await.into_iter().unzip();
    times.sort_unstable();
    for (number, time) in (0..6).zip(times) {
        let due = Duration::from_millis(500) * number;
        // The clock's ticks are of a millisecond.
        let late = time.checked_sub(due).unwrap();
        assert!(late <= Duration::from_millis(10), "{number}: {time:?}");
    }
    // What was not used is not saved up.
    sleep(seconds(60)).await;
    let begin = Instant::now();
    let leases = join_all((0..3).map(|_| east_pool.get())).await;
    assert!(leases.iter().all(Result::is_ok));
    assert!(begin.elapsed() >= seconds(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_needs_when_its_turn_comes_is_not_made() {
    let budget = DialBudget::new(number(1));
    let (east, east_pool) = place(&budget, Mood::Prompt);
    let lease = east_pool.get().await.unwrap();
    let (_west, west_pool) = place(&budget, Mood::Takes(seconds(10)));
    let mut elsewhere = Box::pin(west_pool.get());
    assert!(poll!(&mut elsewhere).is_pending());
    settle().await;
    let mut waits = Box::pin(east_pool.get());
    assert!(poll!(&mut waits).is_pending());
    settle().await;
    assert_eq!(east_pool.status().connecting, 1);
    drop(lease);
    let lease = waits.await.unwrap();
    assert_eq!(lease.id, 0);

    let _other = elsewhere.await.unwrap();
    settle().await;
    assert_eq!((attempts(&east), east_pool.status().connecting), (1, 0));
    assert_eq!(east_pool.totals().connect.connected, 1);
    // It has left no trace.
    let next = east_pool.get().await.unwrap();
    assert_eq!((next.id, next.slot), (1, 1));
}

/// Otherwise a herd that was served takes from those that still wait.
#[tokio::test(start_paused = true)]
async fn a_dial_that_is_not_made_uses_none_of_the_rate() {
    let budget = DialBudget::with_rate(number(16), number(1));
    let (east, east_pool) = place(&budget, Mood::Prompt);
    let (_west, west_pool) = place(&budget, Mood::Prompt);
    let begin = Instant::now();
    let lease = east_pool.get().await.unwrap();
    let mut waits = join_all((0..3).map(|_| east_pool.get()));
    assert!(poll!(&mut waits).is_pending());
    settle().await;
    let mut elsewhere = Box::pin(west_pool.get());
    assert!(poll!(&mut elsewhere).is_pending());
    settle().await;
    drop(waits);
    let _other = elsewhere.await.unwrap();
    let took = begin.elapsed();
    assert!(took >= seconds(1) && took < seconds(2), "{took:?}");
    assert_eq!(attempts(&east), 1);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_turn_is_not_part_of_the_connect_timeout() {
    let budget = DialBudget::new(number(1));
    let (_west, west_pool) = place(&budget, Mood::Takes(seconds(9)));
    let mut elsewhere = Box::pin(west_pool.get());
    assert!(poll!(&mut elsewhere).is_pending());
    settle().await;

    let east = Server::default();
    east.set_connect(Mood::Takes(seconds(1)));
    let config = PoolConfig::default()
        .with_connect_timeout(seconds(2))
        .with_acquire_timeout(seconds(60));
    let east_pool = Pool::with_budget(east.clone(), config, budget).unwrap();
    let begin = Instant::now();
    let (other, lease) = tokio::join!(elsewhere, east_pool.get());
    assert!(other.is_ok() && lease.is_ok());
    assert_eq!(attempts(&east), 1);
    let took = begin.elapsed();
    assert!(took > seconds(9) && took < seconds(11), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_closed_gives_up_its_turns() {
    let budget = DialBudget::new(number(1));
    let (west, west_pool) = place(&budget, Mood::Hangs);
    let mut hanging = Box::pin(west_pool.get());
    let mut queued = Box::pin(west_pool.get());
    assert!(poll!(&mut hanging).is_pending() && poll!(&mut queued).is_pending());
    settle().await;
    let (_east, east_pool) = place(&budget, Mood::Prompt);
    let mut waits = Box::pin(east_pool.get());
    assert!(poll!(&mut waits).is_pending());
    settle().await;
    assert!(poll!(&mut waits).is_pending());
    west_pool.close().await;
    settle().await;
    assert!(waits.now_or_never().is_some_and(|lease| lease.is_ok()));
    assert_eq!(attempts(&west), 1);
}

/// They were chosen while the endpoint was open, and had to wait for their turn.
#[tokio::test(start_paused = true)]
async fn a_failure_holds_for_the_dials_that_wait_for_their_turn() {
    let budget = DialBudget::new(number(1));
    let (server, pool) = place(&budget, Mood::RefusesAfter(Duration::from_millis(10)));
    let calls = join_all((0..8).map(|_| pool.get()));
    assert!(timeout(Duration::from_millis(100), calls).await.is_err());
    assert_eq!(attempts(&server), 1);
}
