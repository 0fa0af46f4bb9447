//! The one place where the backends stand side by side.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Backend, TlsConfig, TlsVersion, failure, parsed::Parsed};
use crate::{ConfigErrors, Conn};

/// A backend ready for handshakes.
#[derive(Clone)]
pub(super) enum Ready {
    #[cfg(feature = "native-tls")]
    Native(tokio_native_tls::TlsConnector),
    #[cfg(feature = "rustls")]
    Rustls(std::sync::Arc<rustls::ClientConfig>),
}

/// A stream that a backend has made.
#[derive(Debug)]
pub(super) enum Stream<C> {
    #[cfg(feature = "native-tls")]
    Native(tokio_native_tls::TlsStream<C>),
    #[cfg(feature = "rustls")]
    Rustls(Box<tokio_rustls::client::TlsStream<C>>),
}

/// What a backend tells of a stream.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) version: Option<TlsVersion>,
    pub(super) cipher_suite: Option<&'static str>,
    pub(super) resumed: Option<bool>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) peer_certificates: Vec<Vec<u8>>,
}

impl Ready {
    /// Blocks.
    pub(super) fn build(
        config: &TlsConfig,
        parsed: Parsed,
        errors: &mut ConfigErrors,
    ) -> Option<Self> {
        match config.backend {
            #[cfg(feature = "native-tls")]
            Backend::NativeTls => super::native::build(config, parsed, errors).map(Self::Native),
            #[cfg(feature = "rustls")]
            Backend::Rustls => {
                super::rustls_backend::build(config, parsed, errors).map(Self::Rustls)
            }
            #[cfg(not(all(feature = "native-tls", feature = "rustls")))]
            _ => unreachable!("a backend that is not built in was refused"),
        }
    }

    /// Shakes hands on `conn` with a server whose certificate must have `name`.
    pub(super) async fn handshake<C: Conn>(
        &self,
        conn: C,
        name: ServerName<'static>,
    ) -> io::Result<Stream<C>> {
        match self {
            #[cfg(feature = "native-tls")]
            Self::Native(connector) => connector
                .connect(&name.to_str(), conn)
                .await
                .map(Stream::Native)
                .map_err(failure::explain_native),
            #[cfg(feature = "rustls")]
            Self::Rustls(config) => tokio_rustls::TlsConnector::from(config.clone())
                .connect(name, conn)
                .await
                .map(|stream| Stream::Rustls(Box::new(stream)))
                .map_err(failure::explain_rustls),
        }
    }
}

impl<C: Conn> Stream<C> {
    /// The connection below.
    pub(super) fn inner(&self) -> &C {
        match self {
            #[cfg(feature = "native-tls")]
            Self::Native(stream) => stream.get_ref().get_ref().get_ref(),
            #[cfg(feature = "rustls")]
            Self::Rustls(stream) => stream.get_ref().0,
        }
    }

    /// What TLS has come to.
    pub(super) fn facts(&self) -> Facts {
        match self {
            #[cfg(feature = "native-tls")]
            Self::Native(stream) => {
                let stream = stream.get_ref();
                let certificate = stream.peer_certificate().ok().flatten();
                Facts {
                    alpn: stream.negotiated_alpn().ok().flatten(),
                    peer_certificates: certificate
                        .and_then(|certificate| certificate.to_der().ok())
                        .into_iter()
                        .collect(),
                    ..Facts::default()
                }
            }
            #[cfg(feature = "rustls")]
            Self::Rustls(stream) => {
                let session = stream.get_ref().1;
                Facts {
                    version: match session.protocol_version() {
                        Some(rustls::ProtocolVersion::TLSv1_2) => Some(TlsVersion::V1_2),
                        Some(rustls::ProtocolVersion::TLSv1_3) => Some(TlsVersion::V1_3),
                        _ => None,
                    },
                    cipher_suite: session
                        .negotiated_cipher_suite()
                        .and_then(super::rustls_backend::iana_name),
                    resumed: session
                        .handshake_kind()
                        .map(|kind| kind == rustls::HandshakeKind::Resumed),
                    alpn: session.alpn_protocol().map(<[u8]>::to_vec),
                    peer_certificates: session
                        .peer_certificates()
                        .unwrap_or_default()
                        .iter()
                        .map(|certificate| certificate.to_vec())
                        .collect(),
                }
            }
        }
    }

    /// An error after the handshake: what the server may have had against it shows then.
    pub(super) fn explain(&self, error: io::Error) -> io::Error {
        match self {
            #[cfg(feature = "native-tls")]
            Self::Native(_) => failure::explain_native_alert(error),
            #[cfg(feature = "rustls")]
            Self::Rustls(_) => failure::explain_rustls_alert(error),
        }
    }
}

/// Calls a method on whichever stream it is.
macro_rules! on_stream {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match $stream.get_mut() {
            #[cfg(feature = "native-tls")]
            Self::Native(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(feature = "rustls")]
            Self::Rustls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl<C: Conn> AsyncRead for Stream<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, poll_read(cx, buf))
    }
}

impl<C: Conn> AsyncWrite for Stream<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            #[cfg(feature = "native-tls")]
            Self::Native(stream) => stream.is_write_vectored(),
            #[cfg(feature = "rustls")]
            Self::Rustls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_shutdown(cx))
    }
}
