//! Handshakes: full and resumed, by backend, version, kind of key, and who shows a certificate.

use mqtt_testkit::pki::KeyType;
use mqtt_transport::tls::{Tls, TlsVersion};

use super::{
    Bench,
    client::{self, Kind},
    pki::Pki,
    server::{Server, Spec},
};
use crate::{
    Error,
    table::{Samples, Table, figure, micros, millis},
};

/// Handshakes with one server.
struct Group {
    name: [&'static str; 2],
    version: TlsVersion,
    server: Server,
    cells: Vec<Cell>,
}

/// Those of one client.
struct Cell {
    kind: Kind,
    tls: Tls,
    /// Milliseconds, of each handshake.
    times: Samples,
    /// Microseconds of CPU time for one, of each round.
    cpu: Samples,
    /// As the server counts them.
    handshakes: u32,
    resumed: u32,
}

/// Measures and prints the table.
pub fn run(bench: &mut Bench) -> Result<(), Error> {
    let mut groups = Vec::new();
    for (key, key_type) in [("P-256", KeyType::P256), ("RSA-2048", KeyType::Rsa2048)] {
        let pki = Pki::new(key_type);
        for (clients, mutual) in [("one-way", false), ("mutual", true)] {
            for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
                groups.push(group(bench, &pki, [key, clients], mutual, version)?);
            }
        }
    }
    for _ in 0..bench.effort.rounds {
        for group in &mut groups {
            for cell in &mut group.cells {
                let what = format!(
                    "{}, TLS {}, {}, {}",
                    cell.kind, group.version, group.name[0], group.name[1]
                );
                let outcome = cell.turn(bench, &mut group.server);
                bench.noted(&what, outcome);
            }
        }
    }
    print(&groups);
    Ok(())
}

fn group(
    bench: &Bench,
    pki: &Pki,
    name: [&'static str; 2],
    mutual: bool,
    version: TlsVersion,
) -> Result<Group, Error> {
    let spec = Spec {
        version,
        mutual,
        suite: None,
    };
    let server = Server::openssl(bench, pki, spec)?;
    let mut cells = Vec::new();
    for kind in [Kind::NativeTls, Kind::Rustls, Kind::RustlsResuming] {
        let tls = kind.client(bench, version, pki, mutual)?;
        // The first handshake of one that resumes is a full one, and every first one is slow.
        bench.run(client::handshakes(tls.clone(), server.echo()?, 1))?;
        cells.push(Cell {
            kind,
            tls,
            times: Samples::default(),
            cpu: Samples::default(),
            handshakes: 0,
            resumed: 0,
        });
    }
    Ok(Group {
        name,
        version,
        server,
        cells,
    })
}

impl Cell {
    fn turn(&mut self, bench: &Bench, server: &mut Server) -> Result<(), Error> {
        let before = server.seen()?;
        let work = client::handshakes(self.tls.clone(), server.echo()?, bench.effort.handshakes);
        let done = bench.run(work)?;
        done.times
            .iter()
            .for_each(|time| self.times.push(millis(*time)));
        self.cpu.push(micros(done.cpu));
        let after = server.seen()?;
        let handshakes = after.handshakes - before.handshakes;
        let resumed = after.resumed - before.resumed;
        self.handshakes += handshakes;
        self.resumed += resumed;
        let expected = if self.kind.is_resuming() {
            handshakes
        } else {
            0
        };
        if resumed != expected {
            let reason = format!("{resumed} of {handshakes} resumed, not {expected}");
            return Err(reason.into());
        }
        Ok(())
    }

    fn columns(&self) -> [String; 3] {
        [
            figure(self.times.median(), 3),
            figure(self.times.percentile(95), 3),
            figure(self.cpu.median(), 0),
        ]
    }

    fn resumed(&self) -> String {
        format!("{}/{}", self.resumed, self.handshakes)
    }
}

fn print(groups: &[Group]) {
    println!(
        "\n## Handshakes\n\n\
        From TCP connected to the first byte back. `x full` is resumed divided by full; `resumed` is \
        the server's count, in full and in resumed ones.\n"
    );
    let mut table = Table::new(
        4,
        [
            "keys",
            "certificates",
            "TLS",
            "backend",
            "full ms",
            "p95",
            "CPU µs",
            "resumed ms",
            "p95",
            "CPU µs",
            "x full",
            "x full CPU",
            "resumed",
        ],
    );
    for group in groups {
        let find = |kind| group.cells.iter().find(|cell| cell.kind == kind);
        for (full, resumed) in [
            (find(Kind::NativeTls), None),
            (find(Kind::Rustls), find(Kind::RustlsResuming)),
        ] {
            let Some(full) = full else { continue };
            let [key, certificates] = group.name.map(str::to_owned);
            let version = group.version.to_string();
            let mut row = vec![key, certificates, version, full.kind.to_string()];
            row.extend(full.columns());
            if let Some(resumed) = resumed {
                row.extend(resumed.columns());
                let ratio = |of: fn(&Cell) -> &Samples| of(resumed).median() / of(full).median();
                row.push(figure(ratio(|cell| &cell.times), 2));
                row.push(figure(ratio(|cell| &cell.cpu), 2));
                row.push(format!("{}, {}", full.resumed(), resumed.resumed()));
            } else {
                row.extend(["-"; 5].map(str::to_owned));
                row.push(format!("{}, -", full.resumed()));
            }
            table.push(row);
        }
    }
    print!("{table}");
}
