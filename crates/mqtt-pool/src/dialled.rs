//! Connections that are dialled ahead of their use.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Waker},
};

use mqtt_transport::Conn;
use tokio::io::ReadBuf;

use crate::Pooled;

/// A connection on which nothing has been said yet, as a member of a pool.
///
/// It saves its user the dialling and the handshake of TLS, and serves once, since no connection
/// becomes unused again: [detach](crate::Lease::detach) it and take the connection
/// [out](Self::into_conn). One that is returned instead goes back as it came.
///
/// It is usable while its peer is silent. At each lease and each sweep of the pool the runtime is
/// asked whether there is something to read; if so, the peer has closed it or does not wait to be
/// spoken to, and it is not handed out. That takes no time and no [check](Pooled::check). Of a peer
/// that has vanished without a word nobody knows before something is written.
///
/// Servers close connections on which no CONNECT comes: let the pool's `idle_timeout` be shorter
/// than they wait.
pub struct Dialled<T>(Mutex<Silent<T>>);

struct Silent<T> {
    conn: T,
    /// What is read is gone, so that a peer that has spoken once has spoken for good.
    is_silent: bool,
}

impl<T: Conn> Dialled<T> {
    /// A connection that was just made.
    pub fn new(conn: T) -> Self {
        Self(Mutex::new(Silent {
            conn,
            is_silent: true,
        }))
    }

    /// The connection, to be used.
    pub fn into_conn(self) -> T {
        let silent = self.0.into_inner();
        silent.unwrap_or_else(PoisonError::into_inner).conn
    }
}

impl<T: Conn> Pooled for Dialled<T> {
    fn is_usable(&self) -> bool {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.is_silent {
            let mut byte = [0];
            let read = Pin::new(&mut silent.conn).poll_read(
                &mut Context::from_waker(Waker::noop()),
                &mut ReadBuf::new(&mut byte),
            );
            silent.is_silent = read.is_pending();
        }
        silent.is_silent
    }

    async fn close(self) {
        let mut conn = self.into_conn();
        // There is nobody to tell of an error: it is gone, one way or the other.
        let _ = poll_fn(|context| Pin::new(&mut conn).poll_shutdown(context)).await;
    }
}

impl<T: fmt::Debug> fmt::Debug for Dialled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("Dialled").field(&silent.conn).finish()
    }
}
