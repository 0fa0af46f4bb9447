//! Connections that break between the handshake and the first answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use mqtt_testkit::{ClientCertificate, OpensslServer, pki::Authority};
use mqtt_transport::{
    Conn, ConnInfo, StreamConn, is_transient,
    tls::{Backend, TlsConn},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use crate::common::*;

/// Fails as a test says.
#[derive(Clone, Debug, Default)]
struct Switches {
    writes_fail: Arc<AtomicBool>,
    reads_fail: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Brittle {
    inner: StreamConn<TcpStream>,
    switches: Switches,
}

#[derive(Debug, thiserror::Error)]
#[error("of the connection below")]
struct OfBelow;

impl Conn for Brittle {
    fn info(&self) -> &ConnInfo {
        self.inner.info()
    }
}

impl AsyncRead for Brittle {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.switches.reads_fail.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, OfBelow)));
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Brittle {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.switches.writes_fail.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

fn server(root: &Authority, asks: bool) -> OpensslServer {
    let identity = root.server(&["localhost"]).issue();
    let builder = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem());
    if asks {
        builder.client_certificate(ClientCertificate::Required, &root.certificate_pem())
    } else {
        builder
    }
    .start()
    .unwrap()
}

async fn shake_hands(
    backend: Backend,
    server: &OpensslServer,
    root: &Authority,
) -> (TlsConn<Brittle>, Switches) {
    let tls = tls(backend, trusting(root)).await;
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    let switches = Switches::default();
    let conn = Brittle {
        inner: StreamConn::new(stream, ConnInfo::memory()),
        switches: switches.clone(),
    };
    let endpoint = server.url().parse().unwrap();
    (tls.handshake(conn, &endpoint).await.unwrap(), switches)
}

async fn write(conn: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    conn.write_all(b"more").await?;
    conn.flush().await
}

/// What the server said before it stopped reading is there to be read, all of it.
#[tokio::test]
async fn a_failed_write_takes_nothing_from_what_was_sent_to_us() {
    let root = Authority::new("root");
    let server = server(&root, false);
    for backend in BACKENDS {
        let (mut conn, switches) = shake_hands(backend, &server, &root).await;
        conn.write_all(b"ping").await.unwrap();
        conn.flush().await.unwrap();
        switches.writes_fail.store(true, Ordering::Relaxed);
        write(&mut conn).await.unwrap_err();
        let mut answer = [0; 4];
        conn.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping", "{backend}");
    }
}

#[tokio::test]
async fn a_refused_certificate_is_read_after_a_write_that_failed() {
    let root = Authority::new("root");
    let server = server(&root, true);
    for backend in BACKENDS {
        let (mut conn, switches) = shake_hands(backend, &server, &root).await;
        switches.writes_fail.store(true, Ordering::Relaxed);
        assert!(is_transient(&write(&mut conn).await.unwrap_err()));
        let error = conn.read_u8().await.unwrap_err();
        assert!(!is_transient(&error), "{backend}: {error:?}");
        assert!(error.to_string().contains("refused our certificate"));
    }
}

#[tokio::test]
async fn a_failed_write_leaves_the_reader_its_wake_up() {
    let root = Authority::new("root");
    for backend in BACKENDS {
        let server = server(&root, false);
        let (conn, switches) = shake_hands(backend, &server, &root).await;
        let (mut reader, mut writer) = tokio::io::split(conn);
        let reading = tokio::spawn(async move { drop(reader.read_u8().await) });
        tokio::time::sleep(Duration::from_millis(20)).await;
        switches.writes_fail.store(true, Ordering::Relaxed);
        write(&mut writer).await.unwrap_err();
        tokio::task::spawn_blocking(move || drop(server))
            .await
            .unwrap();
        let woken = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert!(woken.is_ok(), "{backend}: it sleeps for ever");
    }
}

/// A deadline below, for instance, is found above as what it is.
#[tokio::test]
async fn an_error_of_the_connection_below_stays_itself() {
    let root = Authority::new("root");
    let server = server(&root, false);
    for backend in BACKENDS {
        let (mut conn, switches) = shake_hands(backend, &server, &root).await;
        switches.reads_fail.store(true, Ordering::Relaxed);
        let error = conn.read_u8().await.unwrap_err();
        let inner = error.get_ref().is_some_and(|inner| inner.is::<OfBelow>());
        assert!(inner, "{backend}: {error:?}");
    }
}

/// What no longer is TLS may be a cable's fault: it is lost, not refused.
#[tokio::test]
async fn garbage_after_the_handshake_is_a_connection_lost() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    for backend in BACKENDS {
        let server = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
            .start()
            .unwrap();
        // Bytes pass until the handshake is done; then one record is garbled.
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), server.addr());
        let garble = Arc::new(AtomicBool::new(false));
        let forwarding = tokio::spawn({
            let garble = garble.clone();
            async move {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(target).await.unwrap();
                let (mut up, mut down) = ([0; 4096], [0; 4096]);
                loop {
                    tokio::select! {
                        n = near.read(&mut up) => match n {
                            Ok(n @ 1..) => far.write_all(&up[..n]).await.unwrap(),
                            _ => return,
                        },
                        n = far.read(&mut down) => match n {
                            Ok(n @ 1..) => {
                                if garble.load(Ordering::Relaxed) {
                                    down[n - 1] ^= 1;
                                }
                                near.write_all(&down[..n]).await.unwrap();
                            }
                            _ => return,
                        },
                    }
                }
            }
        });
        // Without tickets on their way: what is garbled is the answer.
        let only = config(backend).with_max_version(mqtt_transport::tls::TlsVersion::V1_2);
        let tls = tls_with(only, trusting(&root)).await.unwrap();
        let url = format!("mqtts://localhost:{port}");
        let mut conn = connect(&tls, &url).await.unwrap();
        garble.store(true, Ordering::Relaxed);
        let error = echo(&mut conn).await.unwrap_err();
        assert!(is_transient(&error), "{backend}: {error:?}");
        forwarding.abort();
    }
}
