//! A Unix socket in front of a TCP server.
//!
//! For servers that listen on TCP only: each connection to the socket is forwarded, byte for byte,
//! to a connection of its own. The two share their fate: when one side is gone, so is the other.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// Connections forwarded at once. Further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 4096;

/// How long to leave a listener alone that failed to accept, as it does without free descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A Unix socket whose connections are forwarded to a TCP address.
///
/// The socket lies in a temporary folder of its own. Dropping the front closes the socket and every
/// forwarded connection, and removes the folder.
#[derive(Debug)]
pub struct UnixFront {
    accepting: JoinHandle<()>,
    path: PathBuf,
    /// Held for its drop: it removes the folder.
    _dir: TempDir,
}

impl UnixFront {
    /// Listens on a new socket and forwards to `target`, up to 4096 connections at a time.
    ///
    /// `target` need not listen yet; while it does not, connections are closed as soon as they are
    /// made.
    ///
    /// # Errors
    ///
    /// The folder or the socket could not be made.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("mqtt-").tempdir()?;
        let path = dir.path().join("mqtt.sock");
        let listener = UnixListener::bind(&path)?;
        Ok(Self {
            accepting: tokio::spawn(accept(listener, target, MAX_CONNECTIONS)),
            path,
            _dir: dir,
        })
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket as an endpoint: `unix:///folder/mqtt.sock`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for UnixFront {
    fn drop(&mut self) {
        // The forwarding tasks live in a set inside this one and end with it.
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, target: SocketAddr, max_connections: usize) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < max_connections => match accepted {
                Ok((near, _)) => {
                    connections.spawn(forward(near, target));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Ends without a word whatever happens: the client sees its connection close, as it would if it
/// had reached the server itself.
async fn forward(mut near: UnixStream, target: SocketAddr) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        // MQTT packets are small and each may be waited for.
        let _ = far.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn server() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn forwards_both_ways_until_either_side_closes() {
        let (listener, addr) = server().await;
        let front = UnixFront::start(addr).unwrap();
        assert_eq!(front.url(), format!("unix://{}", front.path().display()));

        for server_closes in [true, false] {
            let mut near = UnixStream::connect(front.path()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            near.write_all(b"ping").await.unwrap();
            far.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ping");
            far.write_all(b"pong").await.unwrap();
            near.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"pong");

            if server_closes {
                drop(far);
                assert_eq!(near.read(&mut bytes).await.unwrap(), 0);
            } else {
                drop(near);
                assert_eq!(far.read(&mut bytes).await.unwrap(), 0);
            }
        }
    }

    #[tokio::test]
    async fn closes_at_once_while_nobody_listens_behind() {
        let (listener, addr) = server().await;
        drop(listener);
        let front = UnixFront::start(addr).unwrap();
        let mut near = UnixStream::connect(front.path()).await.unwrap();
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn dropping_it_ends_the_connections_and_removes_the_socket() {
        let (listener, addr) = server().await;
        let front = UnixFront::start(addr).unwrap();
        let path = front.path().to_owned();
        let mut near = UnixStream::connect(&path).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        drop(front);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
        assert!(!path.parent().unwrap().exists());
    }

    #[tokio::test]
    async fn connections_past_the_bound_wait_for_one_to_close() {
        let (listener, addr) = server().await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let accepting = tokio::spawn(accept(UnixListener::bind(&path).unwrap(), addr, 1));

        let first = UnixStream::connect(&path).await.unwrap();
        let (mut first_far, _) = listener.accept().await.unwrap();
        let _second = UnixStream::connect(&path).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(waiting.is_err(), "forwarded past the bound");

        drop(first);
        assert_eq!(first_far.read(&mut [0]).await.unwrap(), 0);
        drop(first_far);
        listener.accept().await.unwrap();
        accepting.abort();
    }
}
