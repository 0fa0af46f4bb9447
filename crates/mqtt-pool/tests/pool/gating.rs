//! One place that decides about the dials of many.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all, poll};
use mqtt_pool::{BackoffConfig, DialBudget, DialGate, DialOutcome};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn gate(at_once: u32) -> DialGate {
    let at_once = NonZeroU32::new(at_once).expect("not zero");
    let config = BackoffConfig::default()
        .with_base(SECOND)
        .with_max(SECOND * 4);
    DialGate::new(config, DialBudget::new(at_once)).expect("the options are allowed")
}

/// How long it takes until another dial may begin.
async fn wait(gate: &DialGate) -> Duration {
    let start = Instant::now();
    drop(gate.enter().await);
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn dials_come_in_turn_within_the_budget() {
    let gate = gate(3);
    let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let order = std::sync::Mutex::new(Vec::new());
    let dials = (0..30).map(|number| {
        let (gate, at_once, most, order) = (&gate, &at_once, &most, &order);
        async move {
            let turn = gate.enter().await;
            order.lock().expect("no panic").push(number);
            most.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(SECOND).await;
            at_once.fetch_sub(1, SeqCst);
            turn.end(DialOutcome::Accepted);
        }
    });
    let start = Instant::now();
    join_all(dials).await;
    assert_eq!(most.load(SeqCst), 3);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(order.into_inner().expect("no panic").is_sorted());
    assert_eq!(gate.open(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_probed_by_one_of_many() {
    let gate = gate(8);
    let attempts = Arc::new(AtomicUsize::new(0));
    let is_back = Instant::now() + SECOND * 60;
    let dials = (0..1_000).map(|_| {
        let (gate, attempts) = (gate.clone(), attempts.clone());
        tokio::spawn(async move {
            loop {
                let turn = gate.enter().await;
                attempts.fetch_add(1, SeqCst);
                // Time enough for others to follow, if they could.
                sleep(Duration::from_millis(10)).await;
                if Instant::now() >= is_back {
                    return turn.end(DialOutcome::Accepted);
                }
                turn.end(DialOutcome::Failed);
            }
        })
    });
    let dials = dials.collect::<Vec<_>>();
    sleep(SECOND * 59).await;
    let tried = attempts.load(SeqCst);
    // Pauses of half a second to four, two and a quarter on average.
    assert!((10..60).contains(&tried), "{tried}");
    for dial in timeout(SECOND * 10, join_all(dials))
        .await
        .expect("nothing is stuck")
    {
        dial.expect("no panic");
    }
    assert_eq!(gate.open(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_about_one_does_not_hold_up_the_others() {
    let gate = gate(1);
    for _ in 0..10 {
        gate.enter().await.end(DialOutcome::Answered);
    }
    assert_eq!(wait(&gate).await, Duration::ZERO);
    // Without another connection nobody can tell.
    gate.enter().await.end(DialOutcome::Doubtful);
    assert!(wait(&gate).await >= SECOND / 2);
    let began = Instant::now();
    gate.enter().await.end(DialOutcome::Accepted);
    for _ in 0..10 {
        gate.enter().await.end(DialOutcome::Doubtful);
    }
    assert_eq!(wait(&gate).await, Duration::ZERO);
    // It accepts, and ends what it accepted.
    sleep(SECOND).await;
    gate.on_ended(began, false);
    assert_eq!(wait(&gate).await, Duration::ZERO);
    let began = Instant::now();
    gate.enter().await.end(DialOutcome::Accepted);
    sleep(SECOND).await;
    gate.on_ended(began, true);
    assert!(wait(&gate).await >= SECOND / 2);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_leaves_the_line_to_others() {
    let gate = gate(2);
    let (holder, _holder) = (gate.enter().await, gate.enter().await);
    let mut first = Box::pin(gate.enter());
    let mut second = Box::pin(gate.enter());
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    drop(first);
    assert!(poll!(&mut second).is_pending());
    holder.end(DialOutcome::Failed);
    // It waits for the pause and then probes; so does who comes after it has given up.
    sleep(SECOND * 2).await;
    let probe = second.now_or_never().expect("the pause is over");
    let mut third = Box::pin(gate.enter());
    assert!(timeout(SECOND * 60, &mut third).await.is_err());
    drop(probe);
    third.await.end(DialOutcome::Accepted);
}
