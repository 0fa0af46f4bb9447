//! What decorators pass on unchanged, without writing it out in each.
//!
//! `forward!(poll_flush, poll_shutdown)` within an `impl` writes those methods of `AsyncRead`,
//! `AsyncWrite` or `Conn`, each passed to the field `inner`; where it is polled, that field is
//! pinned.

macro_rules! forward {
    ($($method:ident),+) => {
        $(crate::forward::forward!(@ $method);)+
    };
    (@ info) => {
        fn info(&self) -> &crate::ConnInfo {
            self.inner.info()
        }
    };
    (@ acknowledge_at_once) => {
        fn acknowledge_at_once(&self) {
            self.inner.acknowledge_at_once();
        }
    };
    (@ poll_read) => {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            self.project().inner.poll_read(cx, buf)
        }
    };
    (@ poll_write) => {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &[u8],
        ) -> std::task::Poll<std::io::Result<usize>> {
            self.project().inner.poll_write(cx, buf)
        }
    };
    (@ poll_write_vectored) => {
        fn poll_write_vectored(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            bufs: &[std::io::IoSlice<'_>],
        ) -> std::task::Poll<std::io::Result<usize>> {
            self.project().inner.poll_write_vectored(cx, bufs)
        }
    };
    (@ is_write_vectored) => {
        fn is_write_vectored(&self) -> bool {
            self.inner.is_write_vectored()
        }
    };
    (@ poll_flush) => {
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            self.project().inner.poll_flush(cx)
        }
    };
    (@ poll_shutdown) => {
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            self.project().inner.poll_shutdown(cx)
        }
    };
}

pub(crate) use forward;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{
        io::{self, IoSlice},
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Waker},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use crate::{Conn, ConnInfo, Metered, ReadDeadline, Stateful, WriteDeadline};

    /// Answers each method with something of its own, and counts the hints it gets.
    #[derive(Debug)]
    struct Probe {
        info: ConnInfo,
        hints: Arc<AtomicUsize>,
    }

    const WRITTEN: usize = 1;
    const WRITTEN_VECTORED: usize = 2;
    const FLUSH: &str = "flush";
    const SHUTDOWN: &str = "shutdown";

    impl Conn for Probe {
        fn info(&self) -> &ConnInfo {
            &self.info
        }

        fn acknowledge_at_once(&self) {
            self.hints.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl AsyncRead for Probe {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buf.put_slice(b"read");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Probe {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(WRITTEN))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(WRITTEN_VECTORED))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other(FLUSH)))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other(SHUTDOWN)))
        }
    }

    #[track_caller]
    fn ready<T>(poll: Poll<T>) -> T {
        match poll {
            Poll::Ready(ready) => ready,
            Poll::Pending => panic!("the probe never waits"),
        }
    }

    #[track_caller]
    fn check<C: Conn>(decorate: impl FnOnce(Probe) -> C) {
        let hints = Arc::<AtomicUsize>::default();
        let mut conn = decorate(Probe {
            info: ConnInfo::memory(),
            hints: Arc::clone(&hints),
        });
        let cx = &mut Context::from_waker(Waker::noop());
        let mut conn = Pin::new(&mut conn);
        assert_eq!(conn.info().kind, crate::ConnKind::Memory);
        conn.acknowledge_at_once();
        assert_eq!(hints.load(Ordering::Relaxed), 1);
        assert!(conn.is_write_vectored());

        let mut buffer = [0; 8];
        let mut buffer = ReadBuf::new(&mut buffer);
        ready(conn.as_mut().poll_read(cx, &mut buffer)).unwrap();
        assert_eq!(buffer.filled(), b"read");
        let written = ready(conn.as_mut().poll_write(cx, b"one"));
        assert_eq!(written.unwrap(), WRITTEN);
        let bufs = [IoSlice::new(b"one"), IoSlice::new(b"two")];
        let written = ready(conn.as_mut().poll_write_vectored(cx, &bufs));
        assert_eq!(written.unwrap(), WRITTEN_VECTORED);
        let flushed = ready(conn.as_mut().poll_flush(cx));
        assert_eq!(flushed.unwrap_err().to_string(), FLUSH);
        let shut_down = ready(conn.as_mut().poll_shutdown(cx));
        assert_eq!(shut_down.unwrap_err().to_string(), SHUTDOWN);
    }

    #[test]
    fn decorators_pass_everything_on() {
        check(|probe| ReadDeadline::new(probe, None));
        check(|probe| WriteDeadline::new(probe, None));
        check(Metered::new);
        check(Stateful::new);
        #[cfg(feature = "test-util")]
        check(|probe| crate::Faulty::new(probe, crate::FaultPlan::new()));
    }
}
