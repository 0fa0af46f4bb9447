//! What pools cost and how they behave. See the crate's README.

use std::{env, pin::Pin, process::ExitCode};

use benches::{
    Error,
    pool::{Effort, checkout, dialling, fairness, sharing},
};

const HELP: &str = "\
pool [--rounds N] [--only PART] [--smoke]
  --rounds N   turns of each pool in checkout and of each handle in shared, interleaved (15)
  --only PART  one part: checkout, shared, fairness or dialling
  --smoke      few operations, one round: that everything works, not how fast";

/// As many as the machine that the README speaks of has processors.
const WORKERS: usize = 2;

type Part = fn(Effort) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

const PARTS: [(&str, Part); 4] = [
    ("checkout", |effort| {
        Box::pin(async move { checkout::run(&effort).await })
    }),
    ("shared", |effort| {
        Box::pin(async move { sharing::run(&effort).await })
    }),
    ("fairness", |effort| {
        Box::pin(async move { fairness::run(&effort).await })
    }),
    ("dialling", |effort| {
        Box::pin(async move { dialling::run(&effort).await })
    }),
];

fn main() -> ExitCode {
    match parse(env::args().skip(1)).and_then(|(effort, parts)| run(effort, parts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Effort, Vec<Part>), Error> {
    let mut effort = Effort::default();
    let mut only = None;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => effort.rounds = args.next().ok_or(HELP)?.parse::<u32>()?.max(1),
            "--only" => only = Some(args.next().ok_or(HELP)?),
            "--smoke" => effort = Effort::smoke(),
            _ => return Err(HELP.into()),
        }
    }
    let parts: Vec<Part> = PARTS
        .into_iter()
        .filter(|(name, _)| only.as_ref().is_none_or(|only| only == name))
        .map(|(_, part)| part)
        .collect();
    if parts.is_empty() {
        return Err(HELP.into());
    }
    Ok((effort, parts))
}

fn run(effort: Effort, parts: Vec<Part>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;
    println!("{WORKERS} workers; each pool in turn");
    // In a task, so that it is one of the workers and not the main thread who starts the others.
    let all = runtime.spawn(async move {
        for part in parts {
            part(effort).await?;
        }
        Ok(())
    });
    runtime.block_on(all)?
}
