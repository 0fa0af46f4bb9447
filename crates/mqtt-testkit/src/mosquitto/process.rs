//! One run of the program, from spawn to SIGKILL.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use super::StartError;

/// From the spawn to the first accepted connection; a tenth of a second is usual.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

const READY_POLL: Duration = Duration::from_millis(5);

/// Lines of the log that an error carries.
const LOG_TAIL: usize = 30;

/// What lies where in the folder of one mosquitto.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) dir: &'a Path,
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    pub(super) fn config(self) -> PathBuf {
        self.dir.join("mosquitto.conf")
    }

    pub(super) fn socket(self) -> PathBuf {
        self.dir.join("mqtt.sock")
    }

    pub(super) fn log(self) -> PathBuf {
        self.dir.join("mosquitto.log")
    }

    pub(super) fn log_tail(self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut lines: Vec<&str> = log.lines().rev().take(LOG_TAIL).collect();
        lines.reverse();
        lines.join("\n")
    }
}

/// A running child. Dropping it kills it and waits until it is gone.
///
/// The wait blocks the thread, for the moment that a killed process takes. In return its port and
/// files are free when the drop is over, with or without a runtime.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Runs the program with the configuration in `files` and waits until it accepts connections.
    pub(super) async fn start(
        program: &Path,
        files: Files<'_>,
        addr: SocketAddr,
    ) -> Result<Self, StartError> {
        let mut process =
            Self::spawn(program, files).map_err(StartError::io("start mosquitto's process"))?;
        let ready = process.ready(files, addr);
        match tokio::time::timeout(READY_TIMEOUT, ready).await {
            Ok(ready) => ready.map(|()| process),
            Err(_) => Err(StartError::NotReady {
                waited: READY_TIMEOUT,
                log: files.log_tail(),
            }),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn spawn(program: &Path, files: Files<'_>) -> io::Result<Self> {
        // What a killed run left behind; mosquitto may not replace it.
        match fs::remove_file(files.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = fs::File::create(files.log())?;
        let child = Command::new(program)
            .arg("-c")
            .arg(files.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child })
    }

    /// The Unix socket decides: it lies in our own folder and is opened after the TCP port, whereas
    /// on the port another process may be answering while ours is still failing to bind it.
    async fn ready(&mut self, files: Files<'_>, addr: SocketAddr) -> Result<(), StartError> {
        loop {
            let status = self
                .child
                .try_wait()
                .map_err(StartError::io("ask after mosquitto's process"))?;
            if let Some(status) = status {
                let log = files.log_tail();
                return Err(StartError::Ended { status, log });
            }
            if UnixStream::connect(files.socket()).await.is_ok()
                && TcpStream::connect(addr).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first file of this name in `PATH` and in the folders where packages put servers, which an
/// ordinary user's `PATH` lacks.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
