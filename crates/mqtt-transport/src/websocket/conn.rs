//! The bytes of an MQTT connection in the messages of a WebSocket.
//!
//! Only binary messages carry bytes [MQTT5-6.0.0-1], and where one ends means nothing
//! [MQTT5-6.0.0-2]: reading copies out of the present message, writing makes one of what it is
//! given. Pings are answered while reading. After a failure nothing is read or written any more.

use std::{
    fmt, io,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::error::{self, Violation};
use crate::{Conn, ConnInfo, ConnKind};

/// Messages without bytes of MQTT, pings among them, that are handled before others get their turn.
const MAX_SKIPPED: usize = 32;

/// A connection that travels in a WebSocket.
///
/// What the server says by closing the WebSocket is the end of the stream; a connection that ends
/// without it is an error of kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof). Shutting down
/// closes the WebSocket and then the connection below, and does not wait for the server's answer,
/// which says nothing that MQTT's own DISCONNECT did not; a server that does not read holds it up
/// for [`close_timeout`](super::WebSocketOptions::close_timeout) at most. Dropping it drops the
/// connection below.
pub struct WebSocketConn<C> {
    stream: WebSocketStream<C>,
    info: ConnInfo,
    /// What is left of the message that is being read.
    unread: Bytes,
    /// The server has closed the WebSocket, or nothing more comes after we did.
    ended: bool,
    failure: Option<Failure>,
    /// We have begun to close.
    closing: bool,
    close_timer: Option<Pin<Box<Sleep>>>,
    close_timeout: Duration,
    max_write_size: usize,
}

/// What ended the connection, told to every later operation.
struct Failure {
    kind: io::ErrorKind,
    reason: String,
}

impl<C: Conn> WebSocketConn<C> {
    pub(super) fn new(
        stream: WebSocketStream<C>,
        max_write_size: usize,
        close_timeout: Duration,
    ) -> Self {
        let mut info = stream.get_ref().info().clone();
        info.kind = ConnKind::WebSocket;
        Self {
            stream,
            info,
            unread: Bytes::new(),
            ended: false,
            failure: None,
            closing: false,
            close_timer: None,
            close_timeout,
            max_write_size,
        }
    }

    /// The connection below.
    pub fn get_ref(&self) -> &C {
        self.stream.get_ref()
    }

    /// The bytes of the next message; `None` when there are no more.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.check()?;
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        for _ in 0..MAX_SKIPPED {
            // Also writes the answer to the ping before it.
            let message = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Poll::Ready(self.on_error(cx, error)),
                None => return Poll::Ready(Ok(self.on_end(cx))),
            };
            match message {
                Message::Binary(bytes) if bytes.is_empty() => {}
                Message::Binary(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                Message::Close(_) => return Poll::Ready(Ok(self.on_end(cx))),
                Message::Text(_) => {
                    return Poll::Ready(Err(self.fail(cx, Violation::text())));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn on_end(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        self.ended = true;
        // The answer to the server's closing, as far as it can be written now.
        let _ = Pin::new(&mut self.stream).poll_flush(cx);
        None
    }

    fn on_error(
        &mut self,
        cx: &mut Context<'_>,
        error: tungstenite::Error,
    ) -> io::Result<Option<Bytes>> {
        let violation = error::on_read(error);
        if self.closing && violation.error.kind() == io::ErrorKind::UnexpectedEof {
            self.ended = true;
            return Ok(None);
        }
        Err(self.fail(cx, violation))
    }

    /// Ends the connection: tells the server why, as far as that can be written now.
    fn fail(&mut self, cx: &mut Context<'_>, violation: Violation) -> io::Error {
        let Violation { error, code } = violation;
        if let Some(code) = code {
            self.say_why(cx, code);
        }
        self.failure = Some(Failure {
            kind: error.kind(),
            reason: error.to_string(),
        });
        error
    }

    fn say_why(&mut self, cx: &mut Context<'_>, code: CloseCode) {
        let reason = CloseFrame {
            code,
            reason: "".into(),
        };
        let mut stream = Pin::new(&mut self.stream);
        if stream
            .as_mut()
            .start_send(Message::Close(Some(reason)))
            .is_ok()
            && stream.as_mut().poll_flush(cx).is_ready()
        {
            let _ = Pin::new(stream.get_mut().get_mut()).poll_shutdown(cx);
        }
    }

    fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::new(failure.kind, failure.reason.clone())),
            None => Ok(()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        loop {
            ready!(Pin::new(&mut self.stream).poll_ready(cx)).map_err(error::on_write)?;
            let bytes = gather(bufs, self.max_write_size);
            let size = bytes.len();
            if size == 0 {
                return Poll::Ready(Ok(0));
            }
            match Pin::new(&mut self.stream).start_send(Message::Binary(bytes)) {
                Ok(()) => return Poll::Ready(Ok(size)),
                // Answers to pings wait in the buffer. With them out, there is room.
                Err(tungstenite::Error::WriteBufferFull(_)) => {
                    ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(error::on_write)?;
                }
                Err(error) => return Poll::Ready(Err(error::on_write(error))),
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closing = true;
        let closed = if self.failure.is_none() {
            ready!(Pin::new(&mut self.stream).poll_close(cx)).map_err(error::on_write)
        } else {
            Ok(())
        };
        ready!(Pin::new(self.stream.get_mut()).poll_shutdown(cx))?;
        Poll::Ready(closed)
    }
}

impl<C> fmt::Debug for WebSocketConn<C> {
    /// Without the buffers: they may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConn")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl<C: Conn> Conn for WebSocketConn<C> {
    fn info(&self) -> &ConnInfo {
        &self.info
    }

    fn acknowledge_at_once(&self) {
        self.stream.get_ref().acknowledge_at_once();
    }
}

impl<C: Conn> AsyncRead for WebSocketConn<C> {
    /// Fills `buf` from as many messages as are there.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if this.unread.is_empty() {
                match this.poll_message(cx) {
                    Poll::Ready(Ok(Some(bytes))) => this.unread = bytes,
                    // An error is told again by the next read.
                    _ if buf.filled().len() > before => break,
                    Poll::Ready(Ok(None)) => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let (now, _) = this.unread.split_at(this.unread.len().min(buf.remaining()));
            let size = now.len();
            buf.put_slice(now);
            this.unread.advance(size);
            if this.unread.is_empty() {
                // An empty rest would keep the whole message.
                this.unread = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Conn> AsyncWrite for WebSocketConn<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bufs)
    }

    /// Several slices become one message.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream)
            .poll_flush(cx)
            .map_err(error::on_write)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(outcome) = this.poll_close(cx) {
            this.close_timer = None;
            return Poll::Ready(outcome);
        }
        let timeout = this.close_timeout;
        let timer = this
            .close_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the server did not take what was left to write within {timeout:?}"),
        )))
    }
}

/// At most `max` bytes of the slices in one piece.
fn gather(bufs: &[IoSlice<'_>], max: usize) -> Bytes {
    let total = bufs
        .iter()
        .fold(0_usize, |total, buf| total.saturating_add(buf.len()));
    let mut bytes = BytesMut::with_capacity(total.min(max));
    for buf in bufs {
        let room = max - bytes.len();
        if room == 0 {
            break;
        }
        let (now, _) = buf.split_at(buf.len().min(room));
        bytes.extend_from_slice(now);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_gathered_up_to_the_bound() {
        let bufs = ["ab", "", "cde", "f"].map(|text| IoSlice::new(text.as_bytes()));
        for (max, expected) in [
            (1, "a"),
            (2, "ab"),
            (4, "abcd"),
            (6, "abcdef"),
            (99, "abcdef"),
        ] {
            assert_eq!(gather(&bufs, max), expected);
        }
        assert!(gather(&[], 9).is_empty());
    }
}
