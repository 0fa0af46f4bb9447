//! What stands before the server: it forwards, swallows, and cuts, all connections alike.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

pub(crate) struct Front {
    pub(crate) addr: SocketAddr,
    /// Connections to the server.
    pub(crate) links: Arc<AtomicUsize>,
    swallows: Arc<AtomicBool>,
    cuts: watch::Sender<u64>,
    accepting: AbortHandle,
}

impl Front {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (links, swallows) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (cuts, cut) = watch::channel(0);
        let accepting = tokio::spawn({
            let (links, swallows) = (links.clone(), swallows.clone());
            async move {
                let mut forwarding = JoinSet::new();
                loop {
                    // A client that has gone meanwhile is no reason to stop.
                    let Ok((client, _)) = listener.accept().await else {
                        continue;
                    };
                    while forwarding.try_join_next().is_some() {}
                    let mut cut = cut.clone();
                    cut.mark_unchanged();
                    let (links, swallows) = (links.clone(), swallows.clone());
                    forwarding.spawn(async move {
                        let Ok(server) = TcpStream::connect(server).await else {
                            return;
                        };
                        links.fetch_add(1, SeqCst);
                        tokio::select! {
                            _ = cut.changed() => {}
                            () = forward(client, server, &swallows) => {}
                        }
                    });
                }
            }
        });
        Self {
            addr,
            links,
            swallows,
            cuts,
            accepting: accepting.abort_handle(),
        }
    }

    /// Ends every connection; what is on its way is gone.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether whatever either side sends gets nowhere, while the connections stay.
    pub(crate) fn swallow(&self, swallows: bool) {
        self.swallows.store(swallows, SeqCst);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until either side has closed.
async fn forward(mut client: TcpStream, mut server: TcpStream, swallows: &AtomicBool) {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    tokio::select! {
        () = pass(client_read, server_write, swallows) => {}
        () = pass(server_read, client_write, swallows) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    swallows: &AtomicBool,
) {
    let mut bytes = Vec::with_capacity(16 * 1024);
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        if !swallows.load(SeqCst) && to.write_all(&bytes).await.is_err() {
            break;
        }
        bytes.clear();
    }
}
