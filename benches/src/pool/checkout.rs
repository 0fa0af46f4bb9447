//! What a checkout costs: a member is got and given back.

use std::{hint::black_box, sync::Arc};

use tokio::{
    task::{JoinSet, yield_now},
    time::Instant,
};

use super::{
    Effort,
    contender::{Contender, Kind, with_pool},
    server::{Manner, Server},
};
use crate::{
    Error, float,
    table::{Samples, Table, figure},
};

/// What ours is not to be dearer than.
const REFERENCE: Kind = Kind::DeadpoolTimeouts;

const KINDS: [Kind; 5] = [REFERENCE, Kind::Deadpool, Kind::Bare, Kind::Bb8, Kind::Ours];

#[derive(Clone, Copy, Debug)]
struct Work {
    name: &'static str,
    tasks: usize,
    members: usize,
    /// Whether the task yields while it holds a member, so that the others run and want one too.
    yields: bool,
}

const WORKS: [Work; 4] = [
    Work {
        name: "1 task, 16 members",
        tasks: 1,
        members: 16,
        yields: false,
    },
    Work {
        name: "64 tasks, 64 members",
        tasks: 64,
        members: 64,
        yields: false,
    },
    Work {
        name: "64 tasks, 8 members, yield",
        tasks: 64,
        members: 8,
        yields: true,
    },
    Work {
        name: "64 tasks, 64 members, yield",
        tasks: 64,
        members: 64,
        yields: true,
    },
];

/// Measures and prints the table, and whether ours is dearer than the reference.
pub async fn run(effort: &Effort) -> Result<(), Error> {
    println!(
        "\ncheckout: ns per get and drop, medians of {} rounds (quartiles), ratio to {}",
        effort.rounds,
        REFERENCE.name()
    );
    let mut table = Table::new(2, ["work", "pool", "ns", "quartiles", "ratio"]);
    let mut dearer = Vec::new();
    for work in WORKS {
        // The reference once more at the end: how far it is from itself is the noise.
        let lanes = KINDS.into_iter().chain([REFERENCE]);
        let mut lanes: Vec<_> = lanes.map(|kind| (kind, Samples::default())).collect();
        for _ in 0..effort.rounds {
            for (kind, samples) in &mut lanes {
                let server = Server::new(Manner::default());
                let figure = with_pool!(*kind, server, work.members, |pool| {
                    turn(pool, work, effort.checkouts).await?
                });
                samples.push(figure);
            }
        }
        let reference = lanes.first().map_or(f64::NAN, |(_, first)| first.median());
        for (index, (kind, samples)) in lanes.iter().enumerate() {
            let ratio = samples.median() / reference;
            let again = if index == KINDS.len() { ", again" } else { "" };
            table.push(vec![
                work.name.to_owned(),
                format!("{}{again}", kind.name()),
                figure(samples.median(), 0),
                format!(
                    "{}..{}",
                    figure(samples.percentile(25), 0),
                    figure(samples.percentile(75), 0)
                ),
                format!("{}x", figure(ratio, 2)),
            ]);
            if *kind == Kind::Ours && ratio > 1.0 {
                dearer.push(format!("{} ({ratio:.2}x)", work.name));
            }
        }
    }
    print!("{table}");
    if effort.is_smoke {
        println!("too few checkouts to judge by");
    } else if dearer.is_empty() {
        println!("ours is nowhere dearer than {}", REFERENCE.name());
    } else {
        println!(
            "ours is DEARER than {} with {}",
            REFERENCE.name(),
            dearer.join(", ")
        );
    }
    Ok(())
}

/// One turn of one pool: nanoseconds per checkout.
async fn turn<C: Contender>(pool: Arc<C>, work: Work, checkouts: usize) -> Result<f64, Error> {
    {
        let mut members = Vec::with_capacity(work.members);
        for _ in 0..work.members {
            members.push(pool.get().await?);
        }
    }
    let each = (checkouts / work.tasks).max(1);
    checkout(&pool, work, each / 10).await?;
    let start = Instant::now();
    checkout(&pool, work, each).await?;
    let took = start.elapsed();
    Ok(took.as_secs_f64() * 1e9 / float(u64::try_from(each * work.tasks)?))
}

async fn checkout<C: Contender>(pool: &Arc<C>, work: Work, each: usize) -> Result<(), Error> {
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    for _ in 0..work.tasks {
        let pool = pool.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                let held = pool.get().await?;
                black_box(&*held);
                if work.yields {
                    yield_now().await;
                }
                drop(held);
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
