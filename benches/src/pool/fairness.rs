//! How long each of many callers waits for one of a few members.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Effort,
    contender::{Contender, Kind, with_pool},
    server::{Manner, Server},
};
use crate::{
    Error, float,
    table::{Samples, Table, figure, millis},
};

const TASKS: usize = 64;
const MEMBERS: usize = 4;
const HOLD: Duration = Duration::from_millis(1);

const KINDS: [Kind; 4] = [
    Kind::Deadpool,
    Kind::DeadpoolTimeouts,
    Kind::Bb8,
    Kind::Ours,
];

/// Of one pool in one round.
struct Turn {
    /// Gets of the task with fewest and of that with most.
    fewest: u64,
    most: u64,
    all: u64,
    waits: Samples,
}

/// Measures and prints the table, a row for each pool and round.
pub async fn run(effort: &Effort) -> Result<(), Error> {
    println!(
        "\nfairness: {TASKS} tasks, {MEMBERS} members, each held for about {} ms, for {:?}",
        HOLD.as_millis(),
        effort.contended
    );
    let mut table = Table::new(
        1,
        [
            "pool",
            "gets of a task",
            "most/fewest",
            "gets in all",
            "wait p50 ms",
            "p99",
            "longest",
        ],
    );
    let mut rows: [Vec<Turn>; KINDS.len()] = Default::default();
    for _ in 0..effort.scenarios {
        for (kind, turns) in KINDS.into_iter().zip(&mut rows) {
            let server = Server::new(Manner::default());
            turns.push(with_pool!(kind, server, MEMBERS, |pool| {
                turn(pool, effort.contended).await?
            }));
        }
    }
    for (kind, turns) in KINDS.into_iter().zip(rows) {
        for turn in turns {
            table.push(vec![
                kind.name().to_owned(),
                format!("{}..{}", turn.fewest, turn.most),
                figure(float(turn.most) / float(turn.fewest), 2),
                turn.all.to_string(),
                figure(turn.waits.median(), 1),
                figure(turn.waits.percentile(99), 1),
                figure(turn.waits.percentile(100), 1),
            ]);
        }
    }
    print!("{table}");
    Ok(())
}

async fn turn<C: Contender>(pool: Arc<C>, time: Duration) -> Result<Turn, Error> {
    let end = Instant::now() + time;
    let mut tasks: JoinSet<Result<Vec<Duration>, Error>> = JoinSet::new();
    for _ in 0..TASKS {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut waits = Vec::new();
            loop {
                let asked = Instant::now();
                // A wait that has begun counts, however long after the end it is over.
                if asked >= end {
                    return Ok(waits);
                }
                let held = pool.get().await?;
                waits.push(asked.elapsed());
                sleep(HOLD).await;
                drop(held);
            }
        });
    }
    let (mut gets, mut waits) = (Vec::new(), Samples::default());
    while let Some(ended) = tasks.join_next().await {
        let of_task = ended??;
        gets.push(u64::try_from(of_task.len())?);
        of_task
            .into_iter()
            .for_each(|wait| waits.push(millis(wait)));
    }
    Ok(Turn {
        fewest: gets.iter().copied().min().unwrap_or(0),
        most: gets.iter().copied().max().unwrap_or(0),
        all: gets.iter().sum(),
        waits,
    })
}
