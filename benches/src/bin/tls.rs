//! What TLS costs a client, by backend. See the crate's README.

use std::{env, process::ExitCode};

use benches::{
    Error,
    tls::{Bench, Effort, connack, handshakes, server, suites},
};

const HELP: &str = "\
tls [--rounds N] [--only TABLE] [--smoke]
  --rounds N    turns of each cell, interleaved (10)
  --only TABLE  one table: handshakes, suites or connack
  --smoke       few operations, one round: that everything works, not how fast";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((role, rest)) if role == "server" => server::serve(rest),
        _ => parse(args.into_iter()).and_then(|(effort, tables)| run(effort, &tables)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Table = fn(&mut Bench) -> Result<(), Error>;

const TABLES: [(&str, Table); 3] = [
    ("handshakes", handshakes::run),
    ("suites", suites::run),
    ("connack", connack::run),
];

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Effort, Vec<Table>), Error> {
    let mut effort = Effort::default();
    let mut only = None;
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .ok_or_else(|| format!("{arg} needs a value\n{HELP}"))
        };
        match arg.as_str() {
            "--rounds" => effort.rounds = value()?.parse::<u32>()?.max(1),
            "--only" => only = Some(value()?),
            "--smoke" => effort = Effort::smoke(),
            _ => return Err(HELP.into()),
        }
    }
    let tables: Vec<Table> = TABLES
        .into_iter()
        .filter(|(name, _)| only.as_ref().is_none_or(|only| only == name))
        .map(|(_, table)| table)
        .collect();
    if tables.is_empty() {
        return Err(HELP.into());
    }
    Ok((effort, tables))
}

fn run(effort: Effort, tables: &[Table]) -> Result<(), Error> {
    let mut bench = Bench::new(effort)?;
    for table in tables {
        table(&mut bench)?;
    }
    match bench.failures() {
        0 => Ok(()),
        failures => Err(format!("{failures} runs failed").into()),
    }
}
