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
/// TLS's own farewell is the error `UnexpectedEof`.
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

    /// Explains an error before the server was heard. One of writing may only say that the server
    /// has closed, and why stands in what it sent before.
    fn explain(&mut self, cx: &mut Context<'_>, error: io::Error) -> io::Error {
        let mut byte = [0];
        match Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Err(reason)) => match self.stream.explain(reason) {
                reason if reason.kind() == io::ErrorKind::PermissionDenied => reason,
                _ => error,
            },
            // Data from a server that takes no more of ours is of no use any more.
            Poll::Ready(Ok(())) | Poll::Pending => error,
        }
    }

    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Err(error)) if !self.heard => Poll::Ready(Err(self.explain(cx, error))),
            Poll::Ready(_) | Poll::Pending => outcome,
        }
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
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.wrote(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.wrote(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
