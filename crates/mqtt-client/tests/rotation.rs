//! Pools of sessions whose certificates are replaced.
#![cfg(feature = "native-tls")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{config, publish};
use mqtt_client::{
    PooledSessions, QoS, Session, SessionConnector, Version, follow_rotation,
    pool::{Pool, PoolConfig},
    transport::{
        Connector, Limit,
        tls::{
            Backend, IdentityMaterial, Reload, Reloading, Tls, TlsConfig, TlsMaterial, Trust,
            material_from,
        },
    },
};
use mqtt_testkit::{ClientCertificate, OpensslServer, Service, pki::Authority};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that wants certificates, and a pool of sessions that show one which can be replaced.
struct Setting {
    root: Authority,
    material: Arc<Mutex<TlsMaterial>>,
    tls: Tls,
    pool: Pool<PooledSessions>,
    server: OpensslServer,
}

impl Setting {
    async fn new() -> Self {
        let root = Authority::new("root");
        let identity = root.server(&["localhost"]).issue();
        let server = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
            .client_certificate(ClientCertificate::Required, &root.certificate_pem())
            .service(Service::Mqtt)
            .start()
            .unwrap();
        let material = Arc::new(Mutex::new(showing(&root, "first")));
        let shared = material.clone();
        let source = material_from("test", move || {
            let material = shared.lock().unwrap().clone();
            async move { Ok(material) }
        });
        let options = TlsConfig::default()
            .with_backend(Backend::NativeTls)
            .with_trust(Trust::Own)
            .with_reload(Reloading::default().with_interval(Limit::Never));
        let tls = Tls::with_source(options, source).await.unwrap();
        let connector = Connector::default().with_tls(tls.clone());
        let connector = SessionConnector::with_transport(connector, config(Version::V5)).unwrap();
        let endpoint = server.url().parse().unwrap();
        let sessions = PooledSessions::new(connector, endpoint);
        let pool = Pool::new(sessions, PoolConfig::default()).unwrap();
        Self {
            root,
            material,
            tls,
            pool,
            server,
        }
    }

    async fn rotate(&self, name: &str) {
        *self.material.lock().unwrap() = showing(&self.root, name);
        let renewed = self.tls.reload().await.unwrap();
        assert!(matches!(renewed, Reload::Renewed(_)), "{renewed:?}");
    }

    async fn warm_up(&self, sessions: usize) {
        let deadline = Instant::now() + PATIENCE;
        self.pool.warm_up(sessions, deadline).await.unwrap();
    }

    /// Waits until so many sessions are idle.
    async fn until_idle(&self, sessions: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.pool.status().idle != sessions {
            assert!(Instant::now() < deadline, "{}", self.pool.status());
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn showing(root: &Authority, name: &str) -> TlsMaterial {
    let identity = root.client(name).issue();
    TlsMaterial::default()
        .with_roots([root.certificate_pem().into_bytes()])
        .with_identity(IdentityMaterial::pem(
            identity.chain_pem(),
            identity.key_pem().into_bytes(),
        ))
}

fn generation(session: &Session) -> u64 {
    session.conn_info().tls.as_ref().unwrap().generation
}

#[tokio::test]
async fn a_renewed_certificate_retires_what_shows_the_old_one() {
    let setting = Setting::new().await;
    let pool = &setting.pool;
    let follow = follow_rotation(&setting.tls, pool.clone(), Duration::ZERO);
    setting.warm_up(3).await;
    let leased = pool.get().await.unwrap();
    // What is renewed before the task runs is not missed.
    setting.rotate("second").await;
    tokio::spawn(follow);
    setting.until_idle(0).await;
    // Nobody is interrupted.
    leased.publish(publish(QoS::AtLeastOnce)).await.unwrap();
    assert_eq!(generation(&leased), 1);
    drop(leased);
    assert_eq!(pool.status().size, 0);
    let new = pool.get().await.unwrap();
    assert_eq!(generation(&new), 2);
    let seen = setting.server.handshakes(4).await;
    let shown = seen.last().unwrap().client_common_name.as_deref();
    assert_eq!(shown, Some("second"));
}

#[tokio::test]
async fn a_withdrawn_certificate_goes_at_once() {
    let setting = Setting::new().await;
    let pool = &setting.pool;
    let hour = Duration::from_secs(3_600);
    tokio::spawn(follow_rotation(&setting.tls, pool.clone(), hour));
    setting.warm_up(3).await;
    setting.rotate("second").await;
    // Spread over an hour they are all still there, as far as one can tell in a moment.
    sleep(Duration::from_millis(100)).await;
    assert!(pool.status().idle > 0);
    setting.tls.retire_older();
    setting.until_idle(0).await;
    assert_eq!(generation(&pool.get().await.unwrap()), 2);
}

#[tokio::test]
async fn following_ends_with_the_pool() {
    let setting = Setting::new().await;
    let follow = tokio::spawn(follow_rotation(
        &setting.tls,
        setting.pool.clone(),
        Duration::ZERO,
    ));
    setting.pool.close().await;
    timeout(PATIENCE, follow).await.unwrap().unwrap();
}
