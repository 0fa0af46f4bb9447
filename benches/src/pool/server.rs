//! A server that is not there, and how it sees those who connect: the judge of what pools do.

use std::{
    error, fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

/// How a server behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// How long a dial takes, whatever comes of it.
    pub(super) dial: Duration,
    /// How long a connection lives on after its client has begun to say goodbye.
    pub(super) goodbye: Duration,
    pub(super) refuses: bool,
}

#[derive(Debug, Default)]
pub(super) struct Server {
    manner: Manner,
    pub(super) dials: Count,
    pub(super) dialling: Count,
    /// Connections, up to the end of their goodbye.
    live: Count,
}

/// How many there were in all, how many there are, and how many there have been at a time.
#[derive(Debug, Default)]
pub(super) struct Count {
    total: AtomicUsize,
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Count {
    fn add(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn remove(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Server {
    pub(super) fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self {
            manner,
            ..Self::default()
        })
    }

    /// Connections there have been at a time.
    pub(super) fn live_peak(&self) -> usize {
        self.live.peak()
    }

    pub(super) async fn connect(self: &Arc<Self>) -> Result<Connection, Refused> {
        let dialling = Dialling::begin(self);
        if !self.manner.dial.is_zero() {
            sleep(self.manner.dial).await;
        }
        drop(dialling);
        if self.manner.refuses {
            return Err(Refused);
        }
        self.live.add();
        Ok(Connection {
            server: self.clone(),
            is_usable: AtomicBool::new(true),
            has_left: false,
        })
    }
}

/// Ends with its dial, also if that is dropped.
struct Dialling<'a>(&'a Server);

impl<'a> Dialling<'a> {
    fn begin(server: &'a Server) -> Self {
        server.dials.add();
        server.dialling.add();
        Self(server)
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.dialling.remove();
    }
}

/// What is pooled: about as large as the handle of a session, and as easily judged.
#[derive(Debug)]
pub(super) struct Connection {
    server: Arc<Server>,
    is_usable: AtomicBool,
    /// Its goodbye has been said.
    has_left: bool,
}

impl Connection {
    pub(super) fn is_usable(&self) -> bool {
        self.is_usable.load(Ordering::Relaxed)
    }

    /// For pools that have no other way to be told that it is not to be kept.
    pub(super) fn spoil(&self) {
        self.is_usable.store(false, Ordering::Relaxed);
    }

    pub(super) async fn close(mut self) {
        self.has_left = true;
        sleep(self.server.manner.goodbye).await;
        // Counted out by its drop.
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let server = self.server.clone();
        if self.has_left || server.manner.goodbye.is_zero() {
            server.live.remove();
            return;
        }
        // What a connection has to do whose pool does not wait for goodbyes.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sleep(server.manner.goodbye).await;
                server.live.remove();
            });
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server refuses")
    }
}

impl error::Error for Refused {}
