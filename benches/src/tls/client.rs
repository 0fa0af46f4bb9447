//! The client's side, through `mqtt-transport` as a program would use it.
//!
//! CPU time is that of this thread, which does all of it; the kernel's work for its sockets counts.

use std::{fmt, time::Duration};

use mqtt_transport::{
    Conn, ConnInfo, ConnKind, Endpoint, Limit, StreamConn, TcpConnector,
    tls::{
        Backend, Reloading, Resumption, Tls, TlsConfig, TlsConn, TlsVersion, Trust, material_from,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Bench, now,
    pki::{Pki, SERVER_NAME},
};
use crate::{Error, process::thread_cpu_time};

/// Bytes written, or asked for, at once in a measurement of throughput.
const PIECE: usize = 64 * 1024;

static ZEROES: [u8; PIECE] = [0; PIECE];

/// A backend, and whether it resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// native-tls, which never resumes.
    NativeTls,
    /// rustls with resumption off.
    Rustls,
    /// rustls as it is by default.
    RustlsResuming,
}

impl Kind {
    pub(super) fn is_resuming(self) -> bool {
        self == Self::RustlsResuming
    }

    /// A client with sessions of its own, for servers of this version only.
    pub(super) fn client(
        self,
        bench: &Bench,
        version: TlsVersion,
        pki: &Pki,
        mutual: bool,
    ) -> Result<Tls, Error> {
        let (backend, resumption) = match self {
            Self::NativeTls => (Backend::NativeTls, Resumption::BackendDefault),
            Self::Rustls => (Backend::Rustls, Resumption::Off),
            Self::RustlsResuming => (Backend::Rustls, Resumption::BackendDefault),
        };
        let config = TlsConfig::default()
            .with_backend(backend)
            .with_trust(Trust::Own)
            .with_server_name(SERVER_NAME.to_owned())
            .with_min_version(version)
            .with_max_version(version)
            .with_resumption(resumption)
            .with_reload(Reloading::default().with_interval(Limit::Never));
        let material = pki.material(mutual);
        bench.run(async move {
            let source = material_from("memory", move || {
                let material = material.clone();
                async move { Ok(material) }
            });
            Ok(Tls::with_source(config, source).await?)
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NativeTls => "native-tls",
            Self::Rustls => "rustls",
            Self::RustlsResuming => "rustls, resuming",
        })
    }
}

/// Some handshakes.
pub(super) struct Handshakes {
    /// Of each, from TCP connected to the first byte back.
    pub(super) times: Vec<Duration>,
    /// CPU time of one, on average.
    pub(super) cpu: Duration,
}

/// `count` handshakes with an echoing server, each followed by one byte to and fro. All connections
/// are made before the first of them and closed after the last, so that the figures are without
/// either.
pub(super) async fn handshakes(tls: Tls, to: Endpoint, count: u32) -> Result<Handshakes, Error> {
    let mut dialled = Vec::new();
    for _ in 0..count {
        dialled.push(TcpConnector::default().connect(to.clone()).await?);
    }
    let mut times = Vec::with_capacity(dialled.len());
    let mut open = Vec::with_capacity(dialled.len());
    let before = thread_cpu_time()?;
    for conn in dialled {
        let begun = now();
        let mut conn = tls.handshake(conn, &to).await?;
        conn.write_all(b"?").await?;
        conn.flush().await?;
        conn.read_u8().await?;
        times.push(begun.elapsed());
        open.push(conn);
    }
    let cpu = Duration::from_nanos(thread_cpu_time()? - before);
    Ok(Handshakes {
        times,
        cpu: cpu.checked_div(count).unwrap_or_default(),
    })
}

/// Many bytes one way.
pub(super) struct Bulk {
    pub(super) bytes: u64,
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

/// Sends to a server that takes `exchange` bytes between its answers, for `least` at least. What
/// comes before the second exchange is not counted.
pub(super) async fn send(
    tls: Tls,
    to: Endpoint,
    exchange: usize,
    least: Duration,
) -> Result<Bulk, Error> {
    let mut conn = connect(&tls, &to).await?;
    send_once(&mut conn, exchange).await?;
    let clock = Clock::start()?;
    let mut bytes = 0;
    loop {
        send_once(&mut conn, exchange).await?;
        bytes += u64::try_from(exchange)?;
        if clock.begun.elapsed() >= least {
            return clock.stop(bytes);
        }
    }
}

/// Receives from a server that sends `exchange` bytes when asked, likewise.
pub(super) async fn receive(
    tls: Tls,
    to: Endpoint,
    exchange: usize,
    least: Duration,
) -> Result<Bulk, Error> {
    let mut conn = connect(&tls, &to).await?;
    let mut piece = vec![0; PIECE];
    receive_once(&mut conn, exchange, &mut piece).await?;
    let clock = Clock::start()?;
    let mut bytes = 0;
    loop {
        receive_once(&mut conn, exchange, &mut piece).await?;
        bytes += u64::try_from(exchange)?;
        if clock.begun.elapsed() >= least {
            return clock.stop(bytes);
        }
    }
}

type Encrypted = TlsConn<StreamConn<TcpStream>>;

async fn connect(tls: &Tls, to: &Endpoint) -> Result<Encrypted, Error> {
    let conn = TcpConnector::default().connect(to.clone()).await?;
    Ok(tls.handshake(conn, to).await?)
}

async fn send_once(conn: &mut Encrypted, exchange: usize) -> Result<(), Error> {
    let mut unsent = exchange;
    while unsent > 0 {
        let piece = ZEROES.get(..unsent).unwrap_or(&ZEROES);
        conn.write_all(piece).await?;
        unsent -= piece.len();
    }
    conn.flush().await?;
    conn.read_u8().await?;
    Ok(())
}

async fn receive_once(
    conn: &mut Encrypted,
    exchange: usize,
    piece: &mut [u8],
) -> Result<(), Error> {
    conn.write_all(b"?").await?;
    conn.flush().await?;
    let mut missing = exchange;
    while missing > 0 {
        let read = conn.read(piece).await?;
        if read == 0 {
            return Err("the server has left".into());
        }
        missing = missing.saturating_sub(read);
    }
    Ok(())
}

struct Clock {
    begun: std::time::Instant,
    cpu: u64,
}

impl Clock {
    fn start() -> Result<Self, Error> {
        Ok(Self {
            cpu: thread_cpu_time()?,
            begun: now(),
        })
    }

    fn stop(self, bytes: u64) -> Result<Bulk, Error> {
        Ok(Bulk {
            bytes,
            wall: self.begun.elapsed(),
            cpu: Duration::from_nanos(thread_cpu_time()? - self.cpu),
        })
    }
}

/// From TCP connected to CONNACK, over TLS if it is given, and whether that was resumed.
/// Without `at_once` the kernel acknowledges when it sees fit.
pub(super) async fn connack(
    tls: Option<Tls>,
    to: Endpoint,
    at_once: bool,
) -> Result<(Duration, bool), Error> {
    let mut conn = TcpConnector::default().connect(to.clone()).await?;
    if !at_once {
        let info = conn.info();
        let info = ConnInfo::new(ConnKind::Tcp, info.local.clone(), info.peer.clone());
        conn = StreamConn::new(conn.into_inner(), info);
    }
    let begun = now();
    let Some(tls) = tls else {
        log_in(&mut conn).await?;
        return Ok((begun.elapsed(), false));
    };
    let mut conn = tls.handshake(conn, &to).await?;
    log_in(&mut conn).await?;
    let took = begun.elapsed();
    let resumed = conn.info().tls.as_ref().and_then(|tls| tls.resumed);
    Ok((took, resumed == Some(true)))
}

async fn log_in(conn: &mut impl Conn) -> Result<(), Error> {
    // MQTT 3.1.1, without a client identifier.
    let connect = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 30, 0, 0];
    conn.write_all(&connect).await?;
    conn.flush().await?;
    let mut connack = [0; 4];
    conn.read_exact(&mut connack).await?;
    if connack != [0x20, 2, 0, 0] {
        return Err(format!("the server refused: {connack:?}").into());
    }
    Ok(())
}
