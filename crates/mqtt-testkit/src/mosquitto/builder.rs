//! What can be chosen about a mosquitto, and the configuration file it becomes.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use super::process::Files;
use super::{Mosquitto, MosquittoTls, StartError, skip};

/// Options of a [`Mosquitto`].
///
/// Whatever is chosen, its queues have no bound: with mosquitto's own 1,000 it drops messages
/// silently, and a test would count them against the client.
#[derive(Debug, Clone)]
pub struct MosquittoBuilder {
    max_inflight_messages: u16,
    persistence: bool,
    allow_anonymous: bool,
    pub(super) tls: Option<MosquittoTls>,
    websockets: bool,
    extra: Vec<String>,
}

/// Where its listeners are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addrs {
    pub(super) tcp: SocketAddr,
    pub(super) tls: Option<SocketAddr>,
    pub(super) ws: Option<SocketAddr>,
}

impl MosquittoBuilder {
    pub(super) fn new() -> Self {
        Self {
            max_inflight_messages: 1000,
            persistence: false,
            allow_anonymous: true,
            tls: None,
            websockets: false,
            extra: Vec::new(),
        }
    }

    /// QoS 1 and 2 messages in flight to one client, and the receive maximum announced to it; 0 is
    /// no bound. Default 1000: deep pipelines flow, where mosquitto's own 20 make them wait.
    #[must_use]
    pub fn max_inflight_messages(mut self, messages: u16) -> Self {
        self.max_inflight_messages = messages;
        self
    }

    /// Whether sessions and messages survive [`kill`](Mosquitto::kill), by being written down at
    /// every change. Off by default: it is slow.
    ///
    /// Mosquitto acknowledges first and saves right after, so that a kill in between loses what was
    /// acknowledged last. It saves before it answers anything else: a further round trip, such as a
    /// ping, after the acknowledgement makes sure.
    ///
    /// It writes no session down whose last CONNECT said clean start, whatever its expiry.
    #[must_use]
    pub fn persistence(mut self, on: bool) -> Self {
        self.persistence = on;
        self
    }

    /// Whether clients may come without a user name. On by default; turn it off beside a
    /// `password_file`.
    #[must_use]
    pub fn allow_anonymous(mut self, on: bool) -> Self {
        self.allow_anonymous = on;
        self
    }

    /// Listens for TLS too, on a port of its own: [`Mosquitto::tls_url`]. Off by default.
    #[must_use]
    pub fn tls(mut self, tls: MosquittoTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Whether it listens for WebSockets too, at [`ws_url`](Mosquitto::ws_url). Off by default.
    #[must_use]
    pub fn websockets(mut self, on: bool) -> Self {
        self.websockets = on;
        self
    }

    /// Adds a line to the configuration, before its listeners: a global setting, or a
    /// `listener` of its own and, in the calls after it, what belongs to that.
    #[must_use]
    pub fn config_line(mut self, line: impl Into<String>) -> Self {
        self.extra.push(line.into());
        self
    }

    /// Starts the server and returns when it accepts connections, within five seconds.
    ///
    /// If dropped half-way, the process is killed.
    ///
    /// # Errors
    ///
    /// [`NotInstalled`](StartError::NotInstalled), or the reason with the end of mosquitto's log.
    pub async fn start(self) -> Result<Mosquitto, StartError> {
        Mosquitto::launch(&self, super::free_addr).await
    }

    /// The one way for a test to go without mosquitto: starts it if it is installed, else prints
    /// `skipped: TEST needs mosquitto (apt-get install mosquitto)` and returns `None`.
    ///
    /// The line is seen without `--nocapture`, so that a skipped test is not taken for a passed one.
    ///
    /// # Panics
    ///
    /// If mosquitto is installed and does not start. If it is not installed and the environment
    /// variable `CI` or `MQTT_REQUIRE_SERVERS` is set (and neither empty, `0` nor `false`): there,
    /// nothing is skipped.
    pub async fn start_or_skip(self, test: &str) -> Option<Mosquitto> {
        match self.start().await {
            Ok(server) => Some(server),
            Err(StartError::NotInstalled) => {
                skip::skip(test);
                None
            }
            Err(error) => skip::fail(test, &error),
        }
    }

    pub(super) fn write_config(&self, files: Files<'_>, addrs: Addrs) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            tls.write_files(files)?;
        }
        // Our effective user owns what we just made. Started by root, mosquitto would turn into
        // another user, who may not write into the folder.
        let as_root = fs::metadata(files.dir)?.uid() == 0;
        fs::write(files.config(), self.config(files, addrs, as_root))
    }

    /// The addresses for its listeners, each from `free_addr`.
    pub(super) fn addrs(
        &self,
        mut free_addr: impl FnMut() -> io::Result<SocketAddr>,
    ) -> io::Result<Addrs> {
        Ok(Addrs {
            tcp: free_addr()?,
            tls: self.tls.as_ref().map(|_| free_addr()).transpose()?,
            ws: self.websockets.then(free_addr).transpose()?,
        })
    }

    fn config(&self, files: Files<'_>, addrs: Addrs, as_root: bool) -> String {
        let addr = addrs.tcp;
        let mut lines = vec![
            "log_dest stderr".to_owned(),
            "max_queued_messages 0".to_owned(),
            format!("max_inflight_messages {}", self.max_inflight_messages),
        ];
        if as_root {
            lines.push("user root".to_owned());
        }
        if self.persistence {
            lines.extend([
                "persistence true".to_owned(),
                format!("persistence_location {}/", files.dir.display()),
                "autosave_on_changes true".to_owned(),
                "autosave_interval 1".to_owned(),
            ]);
        }
        if let Some(on) = self.tls.as_ref().and_then(|tls| tls.tcp_nodelay) {
            lines.push(format!("set_tcp_nodelay {on}"));
        }
        lines.extend_from_slice(&self.extra);
        if let (Some(tls), Some(addr)) = (&self.tls, addrs.tls) {
            lines.extend(tls.config(files, addr));
            lines.push(format!("allow_anonymous {}", self.allow_anonymous));
        }
        if let Some(addr) = addrs.ws {
            lines.extend([
                format!("listener {} {}", addr.port(), addr.ip()),
                "protocol websockets".to_owned(),
                // Without it the address is ignored, and the listener open to all.
                "socket_domain ipv4".to_owned(),
                format!("allow_anonymous {}", self.allow_anonymous),
            ]);
        }
        // The Unix socket comes last: mosquitto opens listeners in this order, and a connection to
        // the socket is the sign that all of them are open. `allow_anonymous` under both, in case
        // the added lines ask for settings per listener.
        for listener in [
            format!("listener {} {}", addr.port(), addr.ip()),
            format!("listener 0 {}", files.socket().display()),
        ] {
            lines.push(listener);
            lines.push(format!("allow_anonymous {}", self.allow_anonymous));
        }
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(builder: &MosquittoBuilder, as_root: bool) -> String {
        let files = Files::new(Path::new("/t"));
        let addr = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let addrs = Addrs {
            tcp: addr(4321),
            tls: builder.tls.as_ref().map(|_| addr(8765)),
            ws: builder.websockets.then(|| addr(8080)),
        };
        builder.config(files, addrs, as_root)
    }

    #[test]
    fn defaults() {
        let expected = "log_dest stderr\n\
            max_queued_messages 0\n\
            max_inflight_messages 1000\n\
            listener 4321 127.0.0.1\n\
            allow_anonymous true\n\
            listener 0 /t/mqtt.sock\n\
            allow_anonymous true\n";
        assert_eq!(config(&Mosquitto::builder(), false), expected);
    }

    #[test]
    fn everything_chosen() {
        let builder = Mosquitto::builder()
            .max_inflight_messages(7)
            .persistence(true)
            .allow_anonymous(false)
            .tls(MosquittoTls::new("", "").tcp_nodelay(true))
            .websockets(true)
            .config_line("password_file /t/passwords");
        let expected = "log_dest stderr\n\
            max_queued_messages 0\n\
            max_inflight_messages 7\n\
            user root\n\
            persistence true\n\
            persistence_location /t/\n\
            autosave_on_changes true\n\
            autosave_interval 1\n\
            set_tcp_nodelay true\n\
            password_file /t/passwords\n\
            listener 8765 127.0.0.1\n\
            certfile /t/tls-chain.pem\n\
            keyfile /t/tls-key.pem\n\
            allow_anonymous false\n\
            listener 8080 127.0.0.1\n\
            protocol websockets\n\
            socket_domain ipv4\n\
            allow_anonymous false\n\
            listener 4321 127.0.0.1\n\
            allow_anonymous false\n\
            listener 0 /t/mqtt.sock\n\
            allow_anonymous false\n";
        assert_eq!(config(&builder, true), expected);
    }
}
