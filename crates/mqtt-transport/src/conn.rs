//! Connections: byte streams that know what they are.

use std::{
    fmt::{self, Debug},
    io::{self, IoSlice},
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// A connection to a server: read, write, close (`poll_shutdown`), and what it is.
///
/// Implement it for streams of your own, or wrap them in a [`StreamConn`].
pub trait Conn: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// What is known of the connection.
    fn info(&self) -> &ConnInfo;

    /// Asks the kernel to acknowledge what comes next at once, where a socket below can do that. A
    /// hint that wears off: a peer that holds back small packets until its last one was
    /// acknowledged would otherwise wait out our delay, 40 ms on Linux. Decorators pass it on.
    fn acknowledge_at_once(&self) {}
}

/// A connection of any kind.
pub type BoxConn = Box<dyn Conn>;

impl<C: Conn + ?Sized> Conn for Box<C> {
    fn info(&self) -> &ConnInfo {
        (**self).info()
    }

    fn acknowledge_at_once(&self) {
        (**self).acknowledge_at_once();
    }
}

/// What is known of a connection since it was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// How bytes travel.
    pub kind: ConnKind,
    /// This end.
    pub local: Address,
    /// The other end.
    pub peer: Address,
    /// When the connection was made.
    pub dialled: Instant,
    /// What TLS made of it, if it is encrypted.
    #[cfg(feature = "_tls")]
    pub tls: Option<std::sync::Arc<crate::tls::TlsInfo>>,
}

impl ConnInfo {
    /// Made now.
    pub fn new(kind: ConnKind, local: Address, peer: Address) -> Self {
        Self {
            kind,
            local,
            peer,
            dialled: Instant::now(),
            #[cfg(feature = "_tls")]
            tls: None,
        }
    }

    /// A stream within this process, made now.
    pub fn memory() -> Self {
        Self::new(ConnKind::Memory, Address::Unnamed, Address::Unnamed)
    }
}

/// How the bytes of a connection travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnKind {
    /// TCP.
    Tcp,
    /// A Unix domain socket.
    Unix,
    /// WebSocket.
    WebSocket,
    /// A stream of a QUIC connection.
    Quic,
    /// Within this process.
    Memory,
    /// A stream of the user's.
    Other,
}

impl fmt::Display for ConnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::WebSocket => "websocket",
            Self::Quic => "quic",
            Self::Memory => "memory",
            Self::Other => "other",
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("unnamed"),
            Self::Socket(address) => write!(f, "{address}"),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// It has no name.
    Unnamed,
    /// An internet address.
    Socket(SocketAddr),
    /// A path in the file system.
    Path(PathBuf),
    /// A name in Linux's abstract namespace of Unix sockets.
    Abstract(String),
}

pin_project! {
    /// Any stream as a [`Conn`].
    #[derive(Debug)]
    pub struct StreamConn<S> {
        #[pin]
        stream: S,
        info: ConnInfo,
        acknowledge_at_once: fn(&S),
    }
}

impl<S> StreamConn<S> {
    /// `stream`, of which `info` is known.
    pub fn new(stream: S, info: ConnInfo) -> Self {
        Self {
            stream,
            info,
            acknowledge_at_once: |_| (),
        }
    }

    /// With a way to do [`Conn::acknowledge_at_once`].
    #[must_use]
    pub fn with_acknowledge_at_once(mut self, how: fn(&S)) -> Self {
        self.acknowledge_at_once = how;
        self
    }

    /// The stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream, without what is known of it.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static> Conn for StreamConn<S> {
    fn info(&self) -> &ConnInfo {
        &self.info
    }

    fn acknowledge_at_once(&self) {
        (self.acknowledge_at_once)(&self.stream);
    }
}

impl<S: AsyncRead> AsyncRead for StreamConn<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, buf)
    }
}

impl<S: AsyncWrite> AsyncWrite for StreamConn<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}
