//! Runs every work with every contender and prints the table. See the crate's README.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader},
    process::{Child, ExitCode, Stdio},
};

use benches::{
    Contender, Error, Report, Work, contender, float,
    role::{self, Placing},
    sink,
};

const HELP: &str = "\
measures [--rounds N] [--only WORK] [--contender NAME] [--smoke]
  --rounds N       runs of each cell, interleaved; the table shows medians (5)
  --only WORK      one row: pub0, pub1-k1, pub1-k100, pub1-k1000, recv0, recv1, short or idle
  --contender NAME one column: raw, ours-3.1.1, ours-5.0 or rumqttc-3.1.1
  --smoke          few operations, one round: that everything works, not how fast";

/// In a smoke run a cell does this share of its operations.
const SMOKE_SHARE: u64 = 100;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let outcome = match args.first().map(String::as_str) {
        Some("sink") => sink::serve().map_err(Error::from),
        Some("client") => client(&args),
        _ => Options::parse(args.into_iter()).and_then(|options| parent(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    rounds: usize,
    works: Vec<Work>,
    contenders: Vec<Contender>,
    share: u64,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut options = Self {
            rounds: 5,
            works: Work::ALL.to_vec(),
            contenders: Contender::ALL.to_vec(),
            share: 1,
        };
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{arg} needs a value\n{HELP}"))
            };
            match arg.as_str() {
                "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
                "--only" => options.works = vec![value()?.parse()?],
                "--contender" => options.contenders = vec![value()?.parse()?],
                "--smoke" => (options.rounds, options.share) = (1, SMOKE_SHARE),
                _ => return Err(HELP.into()),
            }
        }
        Ok(options)
    }
}

/// `client CONTENDER WORK PORT OPERATIONS`: does the work and prints its report.
fn client(args: &[String]) -> Result<(), Error> {
    let [_, contender, work, port, operations] = args else {
        return Err(HELP.into());
    };
    let server = ([127, 0, 0, 1], port.parse()?).into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (contender, work, operations) = (contender.parse()?, work.parse()?, operations.parse()?);
    // In a task, as in most programs: to wake a runtime's main future costs a system call.
    let run =
        async move { tokio::spawn(contender::run(contender, work, server, operations)).await };
    let report = runtime.block_on(run)??;
    println!("{report}");
    Ok(())
}

/// A child that is ended with its handle.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn parent(options: &Options) -> Result<(), Error> {
    // The sink is not to preempt the client when a packet wakes it. Else the kernel lets it do so to
    // whoever has used more of the processor: that client has no need to sleep until the answer
    // comes, and is charged less for having done more.
    let placing = Placing {
        processor: role::works("taskset", &["--cpu-list", "0", "true"]).then_some("0"),
        batch: role::works("chrt", &["--batch", "0", "true"]),
    };
    println!(
        "client and sink {}; the sink {}; {} rounds, medians",
        if placing.processor.is_some() {
            "share processor 0"
        } else {
            "are not pinned (taskset does not work)"
        },
        if placing.batch {
            "never preempts the client"
        } else {
            "may preempt the client (chrt does not work)"
        },
        options.rounds
    );
    let mut failures = 0;
    let mut cells: BTreeMap<(usize, usize), Vec<Report>> = BTreeMap::new();
    for _ in 0..options.rounds {
        for (row, &work) in options.works.iter().enumerate() {
            for (column, &contender) in options.contenders.iter().enumerate() {
                let operations = (work.operations() / options.share).max(10);
                match cell(placing, contender, work, operations) {
                    Ok(report) => cells.entry((row, column)).or_default().push(report),
                    Err(error) => {
                        failures += 1;
                        eprintln!("{contender} {work}: {error}");
                    }
                }
            }
        }
    }
    print_table(options, &cells);
    if failures == 0 {
        Ok(())
    } else {
        Err(format!("{failures} runs failed").into())
    }
}

/// One run of one contender against a sink of its own.
fn cell(
    placing: Placing,
    contender: Contender,
    work: Work,
    operations: u64,
) -> Result<Report, Error> {
    let sink = role::command(placing, &["sink"])?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut sink = Ended(sink);
    let mut port = String::new();
    BufReader::new(sink.0.stdout.take().ok_or("the sink has no output")?).read_line(&mut port)?;
    let (contender, work, operations) = (
        contender.to_string(),
        work.to_string(),
        operations.to_string(),
    );
    let output = role::command(
        Placing {
            batch: false,
            ..placing
        },
        &["client", &contender, &work, port.trim(), &operations],
    )?
    .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr)
            .trim()
            .to_owned()
            .into());
    }
    String::from_utf8(output.stdout)?.trim().parse()
}

fn print_table(options: &Options, cells: &BTreeMap<(usize, usize), Vec<Report>>) {
    let heading: Vec<_> = options.contenders.iter().map(ToString::to_string).collect();
    let of = |row, column| {
        cells
            .get(&(row, column))
            .filter(|reports| !reports.is_empty())
    };
    let unit = |work| {
        if work == Work::Idle {
            "bytes"
        } else {
            "µs CPU"
        }
    };

    println!("\ncost per operation of the client process (min..max), and its ratio to rumqttc");
    println!(
        "{:<12}{}",
        "",
        heading
            .iter()
            .map(|name| format!("{name:>34}"))
            .collect::<String>()
    );
    let peer = options
        .contenders
        .iter()
        .position(|contender| *contender == Contender::Rumqttc);
    for (row, &work) in options.works.iter().enumerate() {
        let scale = if work == Work::Idle { 1.0 } else { 1000.0 };
        let cost = |report: &Report| float(report.cost) / float(report.operations) / scale;
        let reference = peer
            .and_then(|column| of(row, column))
            .map(|reports| spread(reports, cost).1);
        print!("{:<12}", format!("{work}"));
        for column in 0..options.contenders.len() {
            let text = of(row, column).map_or_else(
                || "failed".to_owned(),
                |reports| {
                    let (min, median, max) = spread(reports, cost);
                    let ratio = reference.map_or(String::new(), |reference| {
                        format!(" {:>5.2}x", median / reference)
                    });
                    format!(
                        "{} ({}..{}){ratio}",
                        figure(median),
                        figure(min),
                        figure(max)
                    )
                },
            );
            print!("{text:>34}");
        }
        println!("  {}", unit(work));
    }

    println!("\noperations per second");
    println!(
        "{:<12}{}",
        "",
        heading
            .iter()
            .map(|name| format!("{name:>34}"))
            .collect::<String>()
    );
    for (row, work) in options
        .works
        .iter()
        .enumerate()
        .filter(|(_, work)| **work != Work::Idle)
    {
        print!("{:<12}", format!("{work}"));
        for column in 0..options.contenders.len() {
            let rate = |report: &Report| float(report.operations) / float(report.wall) * 1e9;
            let text = of(row, column).map_or_else(
                || "failed".to_owned(),
                |reports| format!("{:.0}", spread(reports, rate).1),
            );
            print!("{text:>34}");
        }
        println!();
    }
}

fn figure(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// Minimum, median and maximum.
fn spread(reports: &[Report], figure: impl Fn(&Report) -> f64) -> (f64, f64, f64) {
    let mut figures: Vec<f64> = reports.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(figures.len() / 2),
        at(figures.len().saturating_sub(1)),
    )
}
