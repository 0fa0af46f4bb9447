//! How pools dial: what a server sees of them, and how long callers wait meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
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

const KINDS: [Kind; 3] = [Kind::Deadpool, Kind::Bb8, Kind::Ours];

/// How long members are used for.
const USE: Duration = Duration::from_millis(2);

/// How long a scenario without an end of its own lasts.
const LASTING: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Herd,
    Spike,
    Impatient,
    Refusing,
    Churn,
}

impl Scenario {
    const ALL: [Self; 5] = [
        Self::Herd,
        Self::Spike,
        Self::Impatient,
        Self::Refusing,
        Self::Churn,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Herd => "64 gets on an empty pool of 64, dial 50 ms, use 2 ms",
            Self::Spike => "5 warm of 50, 50 gets at once, use 2 ms, dial 150 ms",
            Self::Impatient => "20 gets one after another, 20 ms for each, dial 50 ms",
            Self::Refusing => "64 callers of a pool of 16 for 500 ms, a refusal takes 1 ms",
            Self::Churn => {
                "64 callers, 8 members, each fourth discarded, dial 5 ms, goodbye 10 ms, for 500 ms"
            }
        }
    }

    fn manner(self) -> Manner {
        let dial = match self {
            Self::Herd | Self::Impatient => 50,
            Self::Spike => 150,
            Self::Refusing => 1,
            Self::Churn => 5,
        };
        Manner {
            dial: Duration::from_millis(dial),
            goodbye: Duration::from_millis(if self == Self::Churn { 10 } else { 0 }),
            refuses: self == Self::Refusing,
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Herd => 64,
            Self::Spike => 50,
            Self::Impatient | Self::Refusing => 16,
            Self::Churn => 8,
        }
    }

    async fn run<C: Contender>(self, pool: Arc<C>, server: &Server) -> Result<Turn, Error> {
        let mut dialled_before = 0;
        if self == Self::Spike {
            let mut members = Vec::new();
            for _ in 0..5 {
                members.push(pool.get().await?);
            }
            dialled_before = server.dials.total();
        }
        let start = Instant::now();
        let end = start + LASTING;
        let (served, refused) = match self {
            Self::Herd => (crowd(64, || use_once(pool.clone())).await?, 0),
            Self::Spike => (crowd(50, || use_once(pool.clone())).await?, 0),
            Self::Impatient => (impatient(&*pool).await, 0),
            Self::Refusing => (0, crowd(64, || ask(pool.clone(), end)).await?),
            Self::Churn => (crowd(64, || churn(pool.clone(), end)).await?, 0),
        };
        let took = start.elapsed();
        Ok(Turn {
            dials: server.dials.total() - dialled_before,
            dialling: server.dialling.peak(),
            live: server.live_peak(),
            served,
            refused,
            took,
        })
    }
}

/// What became of one pool in one round.
struct Turn {
    dials: usize,
    dialling: usize,
    live: usize,
    served: usize,
    refused: usize,
    took: Duration,
}

impl Turn {
    fn figures(&self) -> Result<[f64; 6], Error> {
        let count = |n: usize| u64::try_from(n).map(float);
        Ok([
            count(self.dialling)?,
            count(self.dials)?,
            count(self.live)?,
            count(self.served)?,
            count(self.refused)?,
            millis(self.took),
        ])
    }
}

/// Measures and prints a table for each scenario.
pub async fn run(effort: &Effort) -> Result<(), Error> {
    println!("\ndialling, medians of {} rounds", effort.scenarios);
    for scenario in Scenario::ALL {
        let fails_fast = (scenario == Scenario::Refusing).then_some(Kind::OursFailFast);
        let kinds = KINDS.into_iter().chain(fails_fast);
        let mut rows: Vec<_> = kinds
            .map(|kind| (kind, <[Samples; 6]>::default()))
            .collect();
        for _ in 0..effort.scenarios {
            for (kind, samples) in &mut rows {
                let server = Server::new(scenario.manner());
                let turn = with_pool!(*kind, server.clone(), scenario.size(), |pool| {
                    scenario.run(pool, &server).await?
                });
                for (samples, figure) in samples.iter_mut().zip(turn.figures()?) {
                    samples.push(figure);
                }
            }
        }
        let mut table = Table::new(
            1,
            [
                "pool",
                "dials at once",
                "dials",
                "live at most",
                "served",
                "refused",
                "ms",
            ],
        );
        for (kind, samples) in rows {
            let figures = samples.iter().map(|samples| figure(samples.median(), 0));
            table.push(
                [kind.name().to_owned()]
                    .into_iter()
                    .chain(figures)
                    .collect(),
            );
        }
        println!("\n{}", scenario.title());
        print!("{table}");
    }
    Ok(())
}

/// Runs so many callers at once and adds up their answers.
async fn crowd<F>(callers: usize, caller: impl Fn() -> F) -> Result<usize, Error>
where
    F: Future<Output = Result<usize, Error>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(caller());
    }
    let mut sum = 0;
    while let Some(ended) = tasks.join_next().await {
        sum += ended??;
    }
    Ok(sum)
}

async fn use_once<C: Contender>(pool: Arc<C>) -> Result<usize, Error> {
    let held = pool.get().await?;
    sleep(USE).await;
    drop(held);
    Ok(1)
}

async fn impatient<C: Contender>(pool: &C) -> usize {
    let mut served = 0;
    for _ in 0..20 {
        if let Ok(held) = pool.get_within(Duration::from_millis(20)).await {
            served += 1;
            drop(held);
        }
    }
    served
}

/// Asks again as soon as it is refused, and says how often it was.
async fn ask<C: Contender>(pool: Arc<C>, end: Instant) -> Result<usize, Error> {
    let mut refused = 0;
    while let Ok(answer) = timeout_at(end, pool.get()).await {
        match answer {
            Ok(_) => return Err("a server that refuses was connected to".into()),
            Err(_) => refused += 1,
        }
    }
    Ok(refused)
}

/// Uses members and discards each fourth.
async fn churn<C: Contender>(pool: Arc<C>, end: Instant) -> Result<usize, Error> {
    let mut used = 0;
    while let Ok(held) = timeout_at(end, pool.get()).await {
        let held = held?;
        sleep(USE).await;
        used += 1;
        if used % 4 == 0 {
            C::discard(held);
        } else {
            drop(held);
        }
    }
    Ok(used)
}
