//! Servers in processes of their own, so that the client is charged for nothing of theirs.
//!
//! The parent writes the certificates to the child's input and reads its ports. Each further line of
//! input asks what the server has seen; the end of input ends the child, and mosquitto with it.

use std::{
    io::{self, BufRead, BufReader, Lines, StdinLock, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use mqtt_testkit::{
    ClientCertificate, Mosquitto, MosquittoTls, OpensslServer, Service,
    TlsVersion::{Tls12, Tls13},
};
use mqtt_transport::{Endpoint, tls::TlsVersion};
use tokio::runtime::Runtime;

use super::{Bench, pki::Pki};
use crate::{Error, role};

/// Ends a certificate or key on its way to the child.
const END: &str = ".";

/// To the child: clients must show a certificate.
const MUTUAL: &str = "mutual";

/// What is wanted of OpenSSL's server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// The only version.
    pub(super) version: TlsVersion,
    /// Clients must show a certificate.
    pub(super) mutual: bool,
    /// The only suite, by OpenSSL's name.
    pub(super) suite: Option<&'static str>,
}

/// A child that serves; it ends when this is dropped.
pub(super) struct Server {
    child: Child,
    /// `None` only while it is being dropped.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    endpoints: Vec<Endpoint>,
}

/// What a server has seen since it was started, on its echo port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Handshakes that did not fail.
    pub(super) handshakes: u32,
    /// Those of them that took up an earlier session.
    pub(super) resumed: u32,
    /// The suite of the last one, by its IANA name.
    pub(super) suite: String,
}

impl Server {
    /// OpenSSL.
    pub(super) fn openssl(bench: &Bench, pki: &Pki, spec: Spec) -> Result<Self, Error> {
        let version = spec.version.to_string();
        let exchange = bench.effort.exchange.to_string();
        let clients = if spec.mutual { MUTUAL } else { "one-way" };
        let suite = spec.suite.unwrap_or_default();
        let args = ["server", "openssl", &version, clients, suite, &exchange];
        Self::start(bench, pki, &args)
    }

    /// The installed mosquitto, as it ships.
    pub(super) fn mosquitto(bench: &Bench, pki: &Pki) -> Result<Self, Error> {
        Self::start(bench, pki, &["server", "mosquitto"])
    }

    fn start(bench: &Bench, pki: &Pki, args: &[&str]) -> Result<Self, Error> {
        let mut child = role::command(bench.servers, args)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("the server has no output")?;
        let mut server = Self {
            child,
            input,
            output: BufReader::new(output),
            endpoints: Vec::new(),
        };
        for pem in [
            pki.server.chain_pem(),
            pki.server.key_pem(),
            pki.root_pem.clone(),
        ] {
            server.tell(&format!("{}\n{END}\n", pem.trim_end()))?;
        }
        for port in server.line()?.split_whitespace() {
            let endpoint = format!("mqtts://127.0.0.1:{port}").parse()?;
            server.endpoints.push(endpoint);
        }
        Ok(server)
    }

    /// Sends back what comes.
    pub(super) fn echo(&self) -> Result<Endpoint, Error> {
        self.endpoint(0)
    }

    /// Takes an exchange, then sends one byte.
    pub(super) fn taking(&self) -> Result<Endpoint, Error> {
        self.endpoint(1)
    }

    /// Takes one byte, then sends an exchange.
    pub(super) fn giving(&self) -> Result<Endpoint, Error> {
        self.endpoint(2)
    }

    /// Mosquitto's listener without TLS.
    pub(super) fn plain(&self) -> Result<Endpoint, Error> {
        self.endpoint(0)
    }

    /// Mosquitto's listener with TLS.
    pub(super) fn encrypted(&self) -> Result<Endpoint, Error> {
        self.endpoint(1)
    }

    fn endpoint(&self, index: usize) -> Result<Endpoint, Error> {
        let endpoint = self.endpoints.get(index).cloned();
        endpoint.ok_or_else(|| "the server did not start".into())
    }

    pub(super) fn seen(&mut self) -> Result<Seen, Error> {
        self.tell("seen\n")?;
        let line = self.line()?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[handshakes, resumed, suite] = words.as_slice() else {
            return Err(format!("not what a server has seen: {line:?}").into());
        };
        Ok(Seen {
            handshakes: handshakes.parse()?,
            resumed: resumed.parse()?,
            suite: suite.to_owned(),
        })
    }

    fn tell(&mut self, text: &str) -> Result<(), Error> {
        let input = self.input.as_mut().ok_or("the server has no input")?;
        Ok(input.write_all(text.as_bytes())?)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends its input, and it; killed, it would leave mosquitto behind.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The child's side.
pub fn serve(args: &[String]) -> Result<(), Error> {
    let mut input = io::stdin().lines();
    let certificates = Certificates {
        chain: pem(&mut input)?,
        key: pem(&mut input)?,
        root: pem(&mut input)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["mosquitto"] => serve_mosquitto(&runtime, certificates, input),
        ["openssl", options @ ..] => serve_openssl(&runtime, &certificates, options, input),
        _ => Err(format!("no such server: {words:?}").into()),
    }
}

struct Certificates {
    chain: String,
    key: String,
    root: String,
}

fn pem(input: &mut Lines<StdinLock<'_>>) -> Result<String, Error> {
    let mut text = String::new();
    loop {
        match input.next().ok_or("a certificate without end")?? {
            line if line == END => return Ok(text),
            line => text.extend([line.as_str(), "\n"]),
        }
    }
}

fn serve_mosquitto(
    runtime: &Runtime,
    certificates: Certificates,
    mut input: Lines<StdinLock<'_>>,
) -> Result<(), Error> {
    let tls = MosquittoTls::new(certificates.chain, certificates.key);
    let server = runtime.block_on(Mosquitto::builder().tls(tls).start())?;
    println!("{} {}", server.addr().port(), server.tls_addr().port());
    Ok(input.try_for_each(|line| line.map(drop))?)
}

fn serve_openssl(
    runtime: &Runtime,
    certificates: &Certificates,
    options: &[&str],
    input: Lines<StdinLock<'_>>,
) -> Result<(), Error> {
    let &[version, clients, suite, exchange] = options else {
        return Err(format!("not a server's options: {options:?}").into());
    };
    let newest = version == TlsVersion::V1_3.to_string();
    let version = if newest { Tls13 } else { Tls12 };
    let mut builder =
        OpensslServer::builder(&certificates.chain, &certificates.key).versions(version, version);
    if clients == MUTUAL {
        builder = builder.client_certificate(ClientCertificate::Required, &certificates.root);
    }
    if !suite.is_empty() {
        builder = if newest {
            builder.ciphersuites(suite)
        } else {
            builder.ciphers(suite)
        };
    }
    let exchange = exchange.parse()?;
    let start = |service| builder.clone().service(service).start();
    let echo = start(Service::Echo)?;
    let taking = start(Service::Exchange {
        receive: exchange,
        send: 1,
    })?;
    let giving = start(Service::Exchange {
        receive: 1,
        send: exchange,
    })?;
    let [a, b, c] = [&echo, &taking, &giving].map(|server| server.addr().port());
    println!("{a} {b} {c}");
    for line in input {
        line?;
        let mut seen = runtime.block_on(echo.handshakes(0));
        seen.retain(|handshake| handshake.error.is_none());
        let resumed = seen.iter().filter(|handshake| handshake.resumed).count();
        let suite = seen.last().and_then(|handshake| handshake.cipher);
        println!("{} {resumed} {}", seen.len(), suite.unwrap_or("none"));
    }
    Ok(())
}
