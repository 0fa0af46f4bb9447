//! Dials endpoints and says what came of it: the transport by itself, and how connectors stack.
//!
//! ```text
//! cargo run -p examples --example dial                       # two listeners of its own
//! cargo run -p examples --example dial -- mqtt://localhost unix:///run/mqtt.sock
//! cargo run -p examples --example dial -- --config dial.toml mqtts://broker.example
//! ```
//!
//! No MQTT is spoken. The configuration file, in TOML, is the crate's own `ConnectorConfig`, with
//! sections such as `[tcp]`, `[tls]` and `[proxy]`. Ends with status 1 if an endpoint was not reached.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io,
    net::Ipv4Addr,
    process::ExitCode,
    time::Duration,
};

use mqtt_transport::{
    Conn, ConnInfo, ConnectDeadlineLayer, ConnectError, ConnectorConfig, Endpoint,
    tls::{CertificateFacts, TlsInfo},
};
use tokio::{net::TcpListener, task::JoinSet};
use tower::{Service, ServiceBuilder, ServiceExt};

const HELP: &str = "\
dial [--config FILE] [URL...]
  --config FILE   TOML with the sections [tcp], [tls], [proxy], [websocket], [quic]
  URL             mqtt://host:port, mqtts://host, wss://host, unix:///path; two of its own without";

/// The budget: how many endpoints are dialled at the same time, how many are begun in a second, and
/// how long each may take, from the name to the end of the last handshake.
const MAX_DIALS: usize = 4;
const DIALS_PER_SECOND: u64 = 20;
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().skip(1), &mut io::stdout()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            let causes = std::iter::successors(error.source(), |&error| error.source());
            causes.for_each(|cause| eprintln!("  because: {cause}"));
            ExitCode::FAILURE
        }
    }
}

/// Dials what `args` name and writes an account of each; false if one was not reached.
pub(crate) async fn run(
    args: impl Iterator<Item = String>,
    out: &mut impl io::Write,
) -> Result<bool, Box<dyn Error>> {
    let (config, mut endpoints) = parse(args)?;
    // Held until the end, since it is what is dialled.
    let mut _listeners = None;
    if endpoints.is_empty() {
        endpoints = _listeners.insert(Listeners::start().await?).endpoints()?;
    }

    // Read from the outside in. The deadline is innermost: waiting for a turn does not use it up.
    let mut connector = ServiceBuilder::new()
        .rate_limit(DIALS_PER_SECOND, Duration::from_secs(1))
        .concurrency_limit(MAX_DIALS)
        .layer(ConnectDeadlineLayer::new(DIAL_TIMEOUT))
        .service(config.connector().await?);

    let mut dials = JoinSet::new();
    for endpoint in endpoints {
        // Ready when the budget allows another dial; until then those that are under way go on.
        let dial = connector.ready().await?.call(endpoint.clone());
        dials.spawn(async move { (endpoint, dial.await) });
    }
    let mut all_reached = true;
    while let Some(dialled) = dials.join_next().await {
        match dialled? {
            (endpoint, Ok(conn)) => write!(out, "{endpoint}\n{}", account(conn.info()))?,
            (endpoint, Err(error)) => {
                all_reached = false;
                write!(out, "{endpoint}\n{}", failure(&error))?;
            }
        }
    }
    Ok(all_reached)
}

fn parse(
    mut args: impl Iterator<Item = String>,
) -> Result<(ConnectorConfig, Vec<Endpoint>), Box<dyn Error>> {
    let (mut config, mut endpoints) = (ConnectorConfig::default(), Vec::new());
    while let Some(arg) = args.next() {
        if arg == "--config" {
            let file = args.next().ok_or(HELP)?;
            let text =
                std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
            config = toml::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
        } else if arg.starts_with('-') {
            return Err(HELP.into());
        } else {
            // The text is not repeated: it may hold a password.
            endpoints.push(arg.parse().map_err(|error| format!("{error}\n{HELP}"))?);
        }
    }
    Ok((config, endpoints))
}

fn account(info: &ConnInfo) -> String {
    let mut lines = String::new();
    line(&mut lines, "kind", info.kind);
    line(&mut lines, "local", &info.local);
    line(&mut lines, "peer", &info.peer);
    match &info.tls {
        Some(tls) => account_of_tls(&mut lines, tls),
        None => line(&mut lines, "tls", "none"),
    }
    lines
}

fn account_of_tls(lines: &mut String, tls: &TlsInfo) {
    // native-tls does not tell the version, the suite and whether it was resumed.
    let version = tls
        .version
        .map_or_else(|| "?".to_owned(), |version| version.to_string());
    let suite = tls.cipher_suite.unwrap_or("?");
    line(
        lines,
        "tls",
        format_args!("{version} by {}, {suite}", tls.backend),
    );
    line(lines, "handshake", format_args!("{:.1?}", tls.handshake));
    let certificates = tls.peer_certificates.iter();
    for facts in certificates.filter_map(|der| CertificateFacts::from_der(der)) {
        line(
            lines,
            "certificate",
            format_args!("{}, SHA-256 {}", facts.subject, facts.fingerprint),
        );
    }
}

fn failure(error: &ConnectError) -> String {
    let mut lines = String::new();
    line(&mut lines, "error", error);
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.for_each(|cause| line(&mut lines, "because", cause));
    line(&mut lines, "phase", format_args!("{:?}", error.phase()));
    let hope = if error.is_transient() {
        "can help"
    } else {
        "cannot help: something has to be changed first"
    };
    line(&mut lines, "trying again", hope);
    lines
}

fn line(lines: &mut String, name: &str, value: impl fmt::Display) {
    // Writing to a string does not fail.
    let _ = writeln!(lines, "  {name:<13}{value}");
}

/// Somewhere to dial to. Nothing is accepted or read: a connection is made when the kernel has it.
struct Listeners {
    tcp: TcpListener,
    #[cfg(unix)]
    unix: (tokio::net::UnixListener, tempfile::TempDir),
}

impl Listeners {
    async fn start() -> io::Result<Self> {
        Ok(Self {
            tcp: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            #[cfg(unix)]
            unix: {
                let folder = tempfile::tempdir()?;
                let listener = tokio::net::UnixListener::bind(folder.path().join("mqtt.sock"))?;
                (listener, folder)
            },
        })
    }

    fn endpoints(&self) -> Result<Vec<Endpoint>, Box<dyn Error>> {
        Ok(vec![
            format!("mqtt://{}", self.tcp.local_addr()?).parse()?,
            #[cfg(unix)]
            format!("unix://{}/mqtt.sock", self.unix.1.path().display()).parse()?,
        ])
    }
}
