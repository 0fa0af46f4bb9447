//! The time until a real server's first word, over TLS 1.3.
//!
//! Mosquitto leaves Nagle's algorithm on: CONNACK waits until the session tickets before it were
//! acknowledged, and the kernel puts that off by 40 ms unless it is asked not to.

use mqtt_testkit::{Mosquitto, pki::KeyType};
use mqtt_transport::tls::{Tls, TlsVersion};

use super::{
    Bench,
    client::{self, Kind},
    pki::Pki,
    server::Server,
};
use crate::{
    Error,
    table::{Samples, Table, figure, millis},
};

/// One client.
struct Row {
    kind: Option<Kind>,
    tls: Option<Tls>,
    /// Milliseconds, with acknowledgements at once and without.
    at_once: Samples,
    delayed: Samples,
}

/// Measures and prints the table, or says why not.
pub fn run(bench: &mut Bench) -> Result<(), Error> {
    println!("\n## CONNACK\n");
    if Mosquitto::installed().is_none() {
        println!("skipped: mosquitto is not installed (apt-get install mosquitto)");
        return Ok(());
    }
    let pki = Pki::new(KeyType::P256);
    let server = Server::mosquitto(bench, &pki)?;
    let mut rows = vec![Row {
        kind: None,
        tls: None,
        at_once: Samples::default(),
        delayed: Samples::default(),
    }];
    for kind in [Kind::NativeTls, Kind::Rustls, Kind::RustlsResuming] {
        let tls = kind.client(bench, TlsVersion::V1_3, &pki, false)?;
        // As with handshakes, the first is another.
        bench.run(client::connack(
            Some(tls.clone()),
            server.encrypted()?,
            true,
        ))?;
        rows.push(Row {
            kind: Some(kind),
            tls: Some(tls),
            at_once: Samples::default(),
            delayed: Samples::default(),
        });
    }
    for _ in 0..bench.effort.rounds * bench.effort.connacks {
        for row in &mut rows {
            let outcome = row.turn(bench, &server);
            bench.noted(&format!("CONNACK, {}", row.name()), outcome);
        }
    }
    print(&rows);
    Ok(())
}

impl Row {
    fn name(&self) -> String {
        let kind = self.kind.map(|kind| kind.to_string());
        kind.unwrap_or_else(|| "plain TCP".to_owned())
    }

    fn turn(&mut self, bench: &Bench, server: &Server) -> Result<(), Error> {
        let to = match self.tls {
            Some(_) => server.encrypted()?,
            None => server.plain()?,
        };
        for at_once in [true, false] {
            // Nobody asks for it without TLS.
            if at_once && self.tls.is_none() {
                continue;
            }
            let work = client::connack(self.tls.clone(), to.clone(), at_once);
            let (took, resumed) = bench.run(work)?;
            let samples = match at_once {
                true => &mut self.at_once,
                false => &mut self.delayed,
            };
            samples.push(millis(took));
            if resumed != self.kind.is_some_and(Kind::is_resuming) {
                return Err(format!("resumed: {resumed}").into());
            }
        }
        Ok(())
    }
}

fn print(rows: &[Row]) {
    println!(
        "From TCP connected to CONNACK, over TLS 1.3 with P-256, from mosquitto as it ships: `at once` \
        as the transport does it, `delayed` as the kernel would.\n"
    );
    let mut table = Table::new(1, ["client", "at once ms", "p95", "delayed ms", "p95"]);
    for row in rows {
        let mut columns = vec![row.name()];
        for samples in [&row.at_once, &row.delayed] {
            columns.push(figure(samples.median(), 3));
            columns.push(figure(samples.percentile(95), 3));
        }
        table.push(columns);
    }
    print!("{table}");
}
