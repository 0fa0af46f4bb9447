//! What a handle on a shared member costs: it is got and dropped, by one thread and by two at once.

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    time::Duration,
};

use arc_swap::ArcSwap;
use mqtt_pool::{SharedConfig, SharedPool};
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    Effort, contender,
    server::{Manner, Server},
};
use crate::{
    Error, float,
    table::{Samples, Table, figure},
};

/// What a pick is to be cheaper than on one thread, in nanoseconds.
const GOAL: f64 = 50.0;

/// Of the pool. One is needed beside those that are shared.
const MEMBERS: usize = 16;

const THREADS: [usize; 2] = [1, 2];

/// All use the same one, and so one position.
const KEY: &str = "device-7";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The least that a handle can cost that another thread may replace.
    Bare,
    Pick,
    Get,
    ByKey,
    /// A lease of a pool without shared members.
    Exclusive,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Bare,
        Self::Pick,
        Self::Get,
        Self::ByKey,
        Self::Exclusive,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "ArcSwap, load and clone",
            Self::Pick => "SharedPool::pick",
            Self::Get => "SharedPool::get",
            Self::ByKey => "SharedPool::by_key",
            Self::Exclusive => "Pool::get",
        }
    }

    async fn turn(self, threads: usize, operations: usize) -> Result<f64, Error> {
        let server = Server::new(Manner::default());
        if self == Self::Bare {
            let current = ArcSwap::from_pointee(server.connect().await?);
            return turn(threads, operations, async move || {
                black_box(&*current.load_full());
                Ok(())
            })
            .await;
        }
        let pool = contender::ours(server, MEMBERS, false)?;
        if self == Self::Exclusive {
            return turn(threads, operations, async move || {
                black_box(&*pool.get().await?);
                Ok(())
            })
            .await;
        }
        let shared = SharedPool::new(pool, SharedConfig::default())?;
        timeout(contender::TIMEOUT, async {
            while shared.status().usable < shared.status().positions {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await?;
        match self {
            Self::Get => {
                turn(threads, operations, async move || {
                    black_box(&*shared.get().await?);
                    Ok(())
                })
                .await
            }
            Self::ByKey => {
                turn(threads, operations, async move || {
                    black_box(&*shared.by_key(KEY).await?);
                    Ok(())
                })
                .await
            }
            Self::Bare | Self::Pick | Self::Exclusive => {
                turn(threads, operations, async move || {
                    black_box(&*shared.pick().ok_or("no member")?);
                    Ok(())
                })
                .await
            }
        }
    }
}

/// Measures and prints the table, and whether a pick is as cheap as it is to be.
pub async fn run(effort: &Effort) -> Result<(), Error> {
    println!(
        "\nshared: ns per handle got and dropped, as each thread sees it, medians of {} rounds (quartiles)",
        effort.rounds
    );
    let lanes = Kind::ALL.into_iter();
    let lanes = lanes.flat_map(|kind| THREADS.map(|threads| (kind, threads, Samples::default())));
    let mut lanes: Vec<_> = lanes.collect();
    for _ in 0..effort.rounds {
        for (kind, threads, samples) in &mut lanes {
            samples.push(kind.turn(*threads, effort.checkouts).await?);
        }
    }
    let mut table = Table::new(1, ["handle", "threads", "ns", "quartiles"]);
    for (kind, threads, samples) in &lanes {
        table.push(vec![
            kind.name().to_owned(),
            threads.to_string(),
            figure(samples.median(), 0),
            format!(
                "{}..{}",
                figure(samples.percentile(25), 0),
                figure(samples.percentile(75), 0)
            ),
        ]);
    }
    print!("{table}");
    let pick = lanes
        .iter()
        .find(|lane| (lane.0, lane.1) == (Kind::Pick, 1));
    let pick = pick.map_or(f64::NAN, |(_, _, samples)| samples.median());
    if effort.is_smoke {
        println!("too few handles to judge by");
    } else if pick < GOAL {
        println!("a pick takes less than {GOAL} ns on one thread");
    } else {
        println!("a pick takes MORE than {GOAL} ns on one thread");
    }
    Ok(())
}

/// Nanoseconds per operation: of each thread's own time, so that two that do not hold each other
/// up take as long as one.
async fn turn<Op>(threads: usize, operations: usize, operation: Op) -> Result<f64, Error>
where
    Op: AsyncFn() -> Result<(), Error> + Send + Sync + 'static,
{
    let (operation, start) = (Arc::new(operation), Arc::new(Barrier::new(threads)));
    let mut running = JoinSet::new();
    for _ in 0..threads {
        let (operation, start) = (operation.clone(), start.clone());
        let runtime = Handle::current();
        // Not on the workers, which may run two tasks one after the other.
        running.spawn_blocking(move || {
            runtime.block_on(async {
                let warmed_up = repeat(&*operation, operations / 10).await;
                start.wait();
                warmed_up?;
                let start = Instant::now();
                repeat(&*operation, operations).await?;
                Ok::<_, Error>(start.elapsed())
            })
        });
    }
    let mut took = Duration::ZERO;
    while let Some(ended) = running.join_next().await {
        took += ended??;
    }
    Ok(took.as_secs_f64() * 1e9 / float(u64::try_from(threads * operations)?))
}

async fn repeat<Op>(operation: &Op, times: usize) -> Result<(), Error>
where
    Op: AsyncFn() -> Result<(), Error>,
{
    for _ in 0..times {
        operation().await?;
    }
    Ok(())
}
