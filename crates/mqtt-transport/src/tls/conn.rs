//! A TLS connection over another.
//!
//! Its one care beyond TLS itself is the time until the server is first heard: a refusal of our
//! certificate comes then, and a server that leaves Nagle's algorithm on waits then for the kernel to
//! acknowledge its session tickets before it sends anything else.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::backend::Stream;
use crate::{Conn, ConnInfo};

/// A TLS connection over `C`.
///
/// Flush after writing: what was written may wait in a buffer of the library. An end of file without
/// TLS's own farewell is the error `UnexpectedEof`. A write that fails may only say that the server
/// has closed: what it said before that is there to be read.
#[derive(Debug)]
pub struct TlsConn<C> {
    stream: Stream<C>,
    info: ConnInfo,
    /// Something was read that the server has sent after the handshake.
    heard: bool,
}

impl<C: Conn> TlsConn<C> {
    pub(super) fn new(stream: Stream<C>, info: ConnInfo) -> Self {
        Self {
            stream,
            info,
            heard: false,
        }
    }

    /// The connection below.
    pub fn get_ref(&self) -> &C {
        self.stream.inner()
    }
}

impl<C: Conn> Conn for TlsConn<C> {
    fn info(&self) -> &ConnInfo {
        &self.info
    }

    fn acknowledge_at_once(&self) {
        self.stream.inner().acknowledge_at_once();
    }
}

impl<C: Conn> AsyncRead for TlsConn<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.heard {
            return outcome;
        }
        match outcome {
            Poll::Pending => {
                this.stream.inner().acknowledge_at_once();
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                this.heard = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(this.stream.explain(error))),
        }
    }
}

impl<C: Conn> AsyncWrite for TlsConn<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
