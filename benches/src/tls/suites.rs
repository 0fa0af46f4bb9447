//! Cipher suites: full handshakes and throughput, with RSA keys so that only the suite differs.
//!
//! The server's list decides. RSA key exchange stands for what older servers choose; rustls lacks it.

use mqtt_testkit::pki::KeyType;
use mqtt_transport::{
    ConnectError, ConnectPhase,
    tls::{Tls, TlsVersion},
};

use super::{
    Bench,
    client::{self, Bulk, Kind},
    pki::Pki,
    server::{Server, Spec},
    with_causes,
};
use crate::{
    Error, float,
    table::{Samples, Table, figure, micros, millis},
};

/// A suite by its IANA name, and by OpenSSL's.
struct Suite {
    name: &'static str,
    openssl: &'static str,
    version: TlsVersion,
    /// The client's words are encrypted to the server's key. rustls is to refuse it.
    rsa_exchange: bool,
}

const SUITES: [Suite; 8] = [
    rsa_exchange("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA"),
    rsa_exchange("TLS_RSA_WITH_AES_256_CBC_SHA256", "AES256-SHA256"),
    tls_1_2(
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    tls_1_2(
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    tls_1_2(
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
    tls_1_3("TLS_AES_128_GCM_SHA256"),
    tls_1_3("TLS_AES_256_GCM_SHA384"),
    tls_1_3("TLS_CHACHA20_POLY1305_SHA256"),
];

const fn tls_1_2(name: &'static str, openssl: &'static str) -> Suite {
    Suite {
        name,
        openssl,
        version: TlsVersion::V1_2,
        rsa_exchange: false,
    }
}

const fn rsa_exchange(name: &'static str, openssl: &'static str) -> Suite {
    Suite {
        rsa_exchange: true,
        ..tls_1_2(name, openssl)
    }
}

const fn tls_1_3(name: &'static str) -> Suite {
    Suite {
        name,
        openssl: name,
        version: TlsVersion::V1_3,
        rsa_exchange: false,
    }
}

/// One suite with one backend.
struct Cell {
    kind: Kind,
    tls: Tls,
    /// Why the handshake failed, where it was to.
    refused: Option<String>,
    /// Microseconds, of each handshake.
    times: Samples,
    /// Microseconds of CPU time for one, of each round.
    cpu: Samples,
    sending: Throughput,
    receiving: Throughput,
}

#[derive(Default)]
struct Throughput {
    /// Megabytes each second.
    rate: Samples,
    /// Milliseconds of CPU time for each MiB.
    cpu: Samples,
}

/// Measures and prints the table.
pub fn run(bench: &mut Bench) -> Result<(), Error> {
    let pki = Pki::new(KeyType::Rsa2048);
    let mut groups = Vec::new();
    for suite in &SUITES {
        let spec = Spec {
            version: suite.version,
            mutual: false,
            suite: Some(suite.openssl),
        };
        let mut server = Server::openssl(bench, &pki, spec)?;
        let mut cells = Vec::new();
        for kind in [Kind::NativeTls, Kind::Rustls] {
            let outcome = cell(bench, &pki, &mut server, suite, kind);
            cells.extend(bench.noted(&format!("{}, {kind}", suite.name), outcome));
        }
        groups.push((suite, server, cells));
    }
    for _ in 0..bench.effort.rounds {
        for (suite, server, cells) in &mut groups {
            for cell in cells.iter_mut().filter(|cell| cell.refused.is_none()) {
                let outcome = cell.turn(bench, server);
                bench.noted(&format!("{}, {}", suite.name, cell.kind), outcome);
            }
        }
    }
    let results: Vec<_> = groups
        .iter()
        .map(|(suite, _, cells)| (*suite, cells.as_slice()))
        .collect();
    print(&results);
    Ok(())
}

/// Tries whether the two agree on the suite.
fn cell(
    bench: &Bench,
    pki: &Pki,
    server: &mut Server,
    suite: &Suite,
    kind: Kind,
) -> Result<Cell, Error> {
    let tls = kind.client(bench, suite.version, pki, false)?;
    let tried = bench.run(client::handshakes(tls.clone(), server.echo()?, 1));
    let refused = match tried {
        Ok(_) => {
            let seen = server.seen()?.suite;
            if seen != suite.name {
                return Err(format!("the server chose {seen}").into());
            }
            None
        }
        Err(error) if suite.rsa_exchange && kind == Kind::Rustls && is_refusal(&error) => {
            Some(with_causes(&*error))
        }
        Err(error) => return Err(error),
    };
    Ok(Cell {
        kind,
        tls,
        refused,
        times: Samples::default(),
        cpu: Samples::default(),
        sending: Throughput::default(),
        receiving: Throughput::default(),
    })
}

fn is_refusal(error: &Error) -> bool {
    let error = error.downcast_ref::<ConnectError>();
    error.is_some_and(|error| error.phase() == ConnectPhase::Tls)
}

impl Cell {
    fn turn(&mut self, bench: &Bench, server: &Server) -> Result<(), Error> {
        let effort = bench.effort;
        let tls = || self.tls.clone();
        let done = bench.run(client::handshakes(tls(), server.echo()?, effort.handshakes))?;
        let (exchange, least) = (effort.exchange, effort.bulk);
        let sent = bench.run(client::send(tls(), server.taking()?, exchange, least))?;
        let received = bench.run(client::receive(tls(), server.giving()?, exchange, least))?;
        done.times
            .iter()
            .for_each(|time| self.times.push(micros(*time)));
        self.cpu.push(micros(done.cpu));
        self.sending.push(&sent);
        self.receiving.push(&received);
        Ok(())
    }

    fn columns(&self) -> [String; 6] {
        if self.refused.is_some() {
            let mut columns = ["-"; 6].map(str::to_owned);
            "refused".clone_into(&mut columns[0]);
            return columns;
        }
        [
            figure(self.times.median(), 0),
            figure(self.cpu.median(), 0),
            figure(self.sending.rate.median(), 0),
            figure(self.receiving.rate.median(), 0),
            figure(self.sending.cpu.median(), 3),
            figure(self.receiving.cpu.median(), 3),
        ]
    }
}

impl Throughput {
    fn push(&mut self, bulk: &Bulk) {
        let bytes = float(bulk.bytes);
        self.rate.push(bytes / 1e6 / bulk.wall.as_secs_f64());
        self.cpu.push(millis(bulk.cpu) / (bytes / 1_048_576.0));
    }
}

fn print(results: &[(&Suite, &[Cell])]) {
    println!(
        "\n## Suites\n\n\
        RSA-2048, one-way, full handshakes. Then as much as goes through one connection in writes of \
        64 KiB; CPU time is the client's.\n"
    );
    let mut table = Table::new(
        3,
        [
            "suite",
            "TLS",
            "backend",
            "handshake µs",
            "CPU µs",
            "MB/s sending",
            "MB/s receiving",
            "CPU ms/MiB sending",
            "CPU ms/MiB receiving",
        ],
    );
    for (suite, cells) in results {
        for cell in *cells {
            let version = suite.version.to_string();
            let mut row = vec![suite.name.to_owned(), version, cell.kind.to_string()];
            row.extend(cell.columns());
            table.push(row);
        }
    }
    println!("{table}");
    for (suite, cells) in results {
        for cell in *cells {
            if let Some(reason) = &cell.refused {
                println!("refused: {}, {}: {reason}", suite.name, cell.kind);
            }
        }
    }
}
