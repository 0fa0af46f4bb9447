//! The bytes of an MQTT connection in the one stream of a QUIC connection.
//!
//! ```text
//! Open --shutdown--> Closing (finish, acknowledged, other side finished) --> Closed
//!   \----drop-----> the same in the background
//! ```

use std::{
    fmt, io, mem,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use quinn::{
    Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt,
    WriteError,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
};

use super::error::Failure;
use crate::{Conn, ConnInfo};

/// The code of a connection that ends without an error.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// A connection that is a stream of QUIC.
///
/// The end of the server's side of the stream, and a connection that it closes with code 0, are the
/// end of what can be read. Flushing does nothing: what was written leaves by itself.
///
/// Shutting down ends both directions, at the latest after
/// [`close_timeout`](super::QuicOptions::close_timeout). It is an error of kind
/// [`TimedOut`](io::ErrorKind::TimedOut) if by then the server has not acknowledged what was
/// written. Dropping the connection does the same in a task of the present runtime, as a kernel
/// does for TCP: a last packet, such as DISCONNECT, still arrives.
pub struct QuicConn {
    state: State,
    info: ConnInfo,
    close_timeout: Duration,
    /// Who waits for something to read, to be told when this side closes.
    reader: Option<Waker>,
}

enum State {
    Open(Link),
    Closing(Pin<Box<dyn Future<Output = io::Result<()>> + Send>>),
    Closed,
}

/// What the connection is made of.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

impl QuicConn {
    pub(super) fn new(link: Link, info: ConnInfo, close_timeout: Duration) -> Self {
        Self {
            state: State::Open(link),
            info,
            close_timeout,
            reader: None,
        }
    }

    /// The way from open to closed, to be taken by whoever polls or, at last, by a task.
    fn begin_closing(&mut self) {
        self.state = match mem::replace(&mut self.state, State::Closed) {
            State::Open(link) => State::Closing(Box::pin(close(link, self.close_timeout))),
            state @ (State::Closing(_) | State::Closed) => state,
        };
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Ends the stream and, when the server has all of it or the time is up, the connection.
///
/// What a server has acknowledged it may still forget when the connection closes before it was
/// read. Its own end of the stream says that it was; what comes before that is of no use any more.
async fn close(link: Link, timeout: Duration) -> io::Result<()> {
    let Link {
        connection,
        mut send,
        mut recv,
    } = link;
    let mut acknowledged = false;
    let ended = tokio::time::timeout(timeout, async {
        // It fails only if it was done before.
        let _ = send.finish();
        match send.stopped().await {
            Ok(_) => {}
            Err(StoppedError::ConnectionLost(error)) if is_end(&error) => return Ok(()),
            Err(StoppedError::ConnectionLost(error)) => return Err(Failure::from(error).source),
            Err(error @ StoppedError::ZeroRttRejected) => return Err(error.into()),
        }
        acknowledged = true;
        while let Ok(Some(_)) = recv.read_chunk(usize::MAX, false).await {}
        Ok(())
    })
    .await;
    connection.close(NO_ERROR, b"");
    match ended {
        Ok(outcome) => outcome,
        Err(_) if acknowledged => Ok(()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the server did not acknowledge what was written within {timeout:?}"),
        )),
    }
}

/// Whether this is how a connection ends in order.
fn is_end(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code == NO_ERROR,
        ConnectionError::LocallyClosed => true,
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::CidsExhausted => false,
    }
}

impl Drop for QuicConn {
    fn drop(&mut self) {
        if let State::Open(link) = &self.state
            && link.connection.close_reason().is_some()
        {
            return;
        }
        self.begin_closing();
        if let State::Closing(closing) = mem::replace(&mut self.state, State::Closed)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(closing);
        }
    }
}

impl fmt::Debug for QuicConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConn")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Conn for QuicConn {
    fn info(&self) -> &ConnInfo {
        &self.info
    }
}

impl AsyncRead for QuicConn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let State::Open(link) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        let Poll::Ready(read) = link.recv.poll_read_buf(cx, buf) else {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(match read {
            Ok(()) => Ok(()),
            Err(ReadError::ConnectionLost(error)) if is_end(&error) => Ok(()),
            Err(ReadError::ConnectionLost(error)) => Err(Failure::from(error).source),
            Err(error) => Err(error.into()),
        })
    }
}

impl AsyncWrite for QuicConn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let State::Open(link) = &mut self.state else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = ready!(Pin::new(&mut link.send).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| match error {
            WriteError::ConnectionLost(error) => Failure::from(error).source,
            error @ (WriteError::Stopped(_)
            | WriteError::ClosedStream
            | WriteError::ZeroRttRejected) => error.into(),
        }))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin_closing();
        let State::Closing(closing) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        let outcome = ready!(closing.as_mut().poll(cx));
        self.state = State::Closed;
        Poll::Ready(outcome)
    }
}
