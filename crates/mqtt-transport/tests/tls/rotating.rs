//! Certificates that change while connections come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use mqtt_testkit::{ClientCertificate, OpensslServer, pki::Authority};
use mqtt_transport::{
    Conn, Limit,
    tls::{
        Backend, IdentityMaterial, Location, Reload, Reloading, Tls, TlsError, TlsIdentity,
        material_from,
    },
};

use crate::common::*;

fn serve(root: &Authority) -> OpensslServer {
    let identity = root.server(&["localhost"]).issue();
    OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
        .client_certificate(ClientCertificate::Required, &root.certificate_pem())
        .start()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_times_under_load() {
    const ROTATIONS: u64 = 20;
    const CLIENTS: usize = 4;
    for backend in BACKENDS {
        let root = Authority::new("root");
        let server = serve(&root);
        let name = |number: u64| format!("client-{number}");
        let store = Store::new(showing(trusting(&root), &root.client(&name(1)).issue()));
        let tls = store.tls(config(backend)).await;
        let mut first = connect(&tls, &server.url()).await.unwrap();
        echo(&mut first).await.unwrap();

        let (done, connected) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (tls, url) = (tls.clone(), server.url());
                let (done, connected) = (done.clone(), connected.clone());
                tokio::spawn(async move {
                    while !done.load(Ordering::Relaxed) {
                        visit(&tls, &url).await.unwrap();
                        connected.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for number in 2..=ROTATIONS + 1 {
            store.put(showing(
                trusting(&root),
                &root.client(&name(number)).issue(),
            ));
            assert_eq!(tls.reload().await.unwrap(), Reload::Renewed(number));
            // A new handshake shows the new identity, whatever tickets there are.
            let before = connected.load(Ordering::Relaxed);
            let mut conn = connect(&tls, &server.url()).await.unwrap();
            echo(&mut conn).await.unwrap();
            assert_eq!(conn.info().tls.as_ref().unwrap().generation, number);
            let seen = server.handshakes(1).await;
            let shown = seen
                .iter()
                .any(|handshake| handshake.client_common_name == Some(name(number)));
            assert!(shown, "{backend}: {number}");
            while connected.load(Ordering::Relaxed) < before + CLIENTS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        // None was refused, and the oldest lives.
        let seen = server.handshakes(1).await;
        assert!(seen.iter().all(|handshake| handshake.error.is_none()));
        echo(&mut first).await.unwrap();
        assert_eq!(first.info().tls.as_ref().unwrap().generation, 1);
    }
}

#[tokio::test]
async fn half_written_material_changes_nothing_until_it_is_whole() {
    let root = Authority::new("root");
    let server = serve(&root);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let place = |name: &str| Location::File(path(name));
    let (first, second) = (root.client("first").issue(), root.client("second").issue());
    write("ca.pem", &root.certificate_pem());
    write("client.pem", &first.chain_pem());
    write("client.key", &first.key_pem());
    for backend in BACKENDS {
        write("client.pem", &first.chain_pem());
        write("client.key", &first.key_pem());
        let config = config(backend)
            .with_roots([place("ca.pem")])
            .with_identities([TlsIdentity::pem(place("client.pem"), place("client.key"))]);
        let tls = Tls::new(config).await.unwrap();
        assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);

        // The key comes first, then its certificate in two pieces.
        write("client.key", &second.key_pem());
        let mismatch = tls.reload().await.unwrap_err();
        assert!(matches!(mismatch, TlsError::Config(_)), "{mismatch:?}");
        write("client.pem", &second.chain_pem()[..100]);
        tls.reload().await.unwrap_err();
        std::fs::remove_file(path("client.pem")).unwrap();
        let missing = tls.reload().await.unwrap_err();
        assert!(matches!(missing, TlsError::Material(_)), "{missing:?}");
        visit(&tls, &server.url()).await.unwrap();
        assert_eq!(tls.generation().number, 1);

        write("client.pem", &second.chain_pem());
        assert_eq!(tls.reload().await.unwrap(), Reload::Renewed(2));
        visit(&tls, &server.url()).await.unwrap();
    }
    let seen = server.handshakes(4).await;
    let shown: Vec<_> = seen
        .iter()
        .map(|handshake| handshake.client_common_name.as_deref().unwrap())
        .collect();
    assert_eq!(shown, ["first", "second", "first", "second"]);
}

#[tokio::test]
async fn a_change_is_found_by_looking_again_and_the_task_ends_with_the_handle() {
    let root = Authority::new("root");
    let store = Store::new(showing(trusting(&root), &root.client("first").issue()));
    let often = Reloading::default().with_interval(Limit::After(Duration::from_millis(100)));
    for backend in BACKENDS {
        let tls = store.tls(config(backend).with_reload(often.clone())).await;
        let mut generations = tls.subscribe();
        store.put(showing(trusting(&root), &root.client("next").issue()));
        let renewed = generations.wait_for(|generation| generation.number == 2);
        let wait = Duration::from_secs(20);
        let generation = tokio::time::timeout(wait, renewed)
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert_eq!(generation.identities[0].subject, "CN=next");
        drop((tls, generation));
        // The sender goes with the last handle, and with it the task.
        let ended = async { while generations.changed().await.is_ok() {} };
        tokio::time::timeout(wait, ended).await.unwrap();
    }
}

#[tokio::test]
async fn a_leak_retires_all_older_connections_at_once() {
    let root = Authority::new("root");
    let store = Store::new(showing(trusting(&root), &root.client("leaked").issue()));
    let tls = store.tls(config(Backend::Rustls)).await;
    let mut generations = tls.subscribe();
    store.put(showing(trusting(&root), &root.client("fresh").issue()));
    tls.reload().await.unwrap();
    assert_eq!(generations.borrow_and_update().oldest_allowed, 0);
    tls.retire_older();
    assert!(generations.has_changed().unwrap());
    let generation = generations.borrow_and_update().clone();
    assert_eq!((generation.number, generation.oldest_allowed), (2, 2));
    // It stays so.
    store.put(showing(trusting(&root), &root.client("later").issue()));
    tls.reload().await.unwrap();
    assert_eq!(generations.borrow().oldest_allowed, 2);
    assert_eq!(generations.borrow().number, 3);
}

#[test]
fn looks_are_counted_and_the_next_end_is_told() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let root = Authority::new("root");
            let identity = root.client("gateway").issue();
            let store = Store::new(showing(trusting(&root), &identity));
            let tls = store.tls(config(Backend::Rustls)).await;
            tls.reload().await.unwrap();
            store.put(trusting(&root).with_identity(IdentityMaterial::pem(
                identity.chain_pem(),
                b"damaged".to_vec(),
            )));
            tls.reload().await.unwrap_err();
            let not_after = tls.generation().identities[0].not_after;
            let not_after = not_after.duration_since(std::time::UNIX_EPOCH).unwrap();

            let values = snapshotter.snapshot().into_hashmap();
            let find = |name: &str, result: Option<&str>| {
                values.iter().find_map(|(key, (_, _, value))| {
                    let mut labels = key.key().labels();
                    let fits =
                        result.is_none_or(|result| labels.any(|label| label.value() == result));
                    (key.key().name() == name && fits).then_some(value)
                })
            };
            for result in ["unchanged", "failed"] {
                let count = find("mqtt_transport_tls_reloads_total", Some(result));
                assert_eq!(count, Some(&DebugValue::Counter(1)), "{result}");
            }
            let gauge = find("mqtt_transport_tls_identity_not_after_seconds", None);
            let Some(DebugValue::Gauge(seconds)) = gauge else {
                panic!("{gauge:?}");
            };
            assert!((seconds.into_inner() - not_after.as_secs_f64()).abs() < 1.0);
        });
    });
}

/// A source that never answers holds up neither handshakes nor whoever gives up waiting.
#[tokio::test]
async fn a_source_that_hangs_hangs_nothing_else() {
    let root = Authority::new("root");
    let server = serve(&root);
    let material = showing(trusting(&root), &root.client("gateway").issue());
    let hangs = Arc::new(AtomicBool::new(false));
    let source = {
        let hangs = hangs.clone();
        material_from("hanging", move || {
            let (material, hangs) = (material.clone(), hangs.load(Ordering::Relaxed));
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(material)
            }
        })
    };
    let tls = Tls::with_source(config(Backend::Rustls), source)
        .await
        .unwrap();
    hangs.store(true, Ordering::Relaxed);
    let short = Duration::from_millis(50);
    assert!(tokio::time::timeout(short, tls.reload()).await.is_err());
    visit(&tls, &server.url()).await.unwrap();
    hangs.store(false, Ordering::Relaxed);
    assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);
}
