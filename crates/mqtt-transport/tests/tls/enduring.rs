//! Sources that hang, panic, forget or fall behind: the last good material stays, and what was asked
//! of it still holds.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use mqtt_testkit::{
    OpensslServer,
    pki::{Authority, Identity, Validity},
};
use mqtt_transport::{
    Conn, Limit,
    tls::{
        Backend, BoxFuture, ConfiguredSource, CrlFetcher, IdentityMaterial, Location,
        MaterialSource, Reload, Reloading, Revocation, Tls, TlsError, TlsIdentity, TlsMaterial,
        Trust, material_from,
    },
};

use crate::common::*;

fn serve(identity: &Identity) -> OpensslServer {
    OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
        .start()
        .unwrap()
}

fn often() -> Reloading {
    Reloading::default().with_interval(Limit::After(Duration::from_millis(100)))
}

/// A source that a test can stop, and how often it was asked.
#[derive(Clone, Default)]
struct Tap {
    hangs: Arc<AtomicBool>,
    loads: Arc<AtomicUsize>,
}

impl Tap {
    fn source(&self, material: TlsMaterial) -> impl MaterialSource + use<> {
        let tap = self.clone();
        material_from("tap", move || {
            let (material, hangs) = (material.clone(), tap.hangs.load(Ordering::Relaxed));
            tap.loads.fetch_add(1, Ordering::Relaxed);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(material)
            }
        })
    }

    async fn asked(&self, times: usize) {
        while self.loads.load(Ordering::Relaxed) < times {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_is_given_up() {
    let tap = Tap::default();
    let source = tap.source(trusting(&Authority::new("root")));
    let config = config(Backend::Rustls).with_reload(often());
    let tls = Tls::with_source(config, source).await.unwrap();
    tap.hangs.store(true, Ordering::Relaxed);
    tap.asked(2).await;
    // One in the background, and one of ours behind it.
    let error = tls.reload().await.unwrap_err();
    let TlsError::Material(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut);
    tap.hangs.store(false, Ordering::Relaxed);
    assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_ends_with_the_handle() {
    struct Held(Arc<()>);
    let alive = Arc::new(());
    let (tap, held) = (Tap::default(), Held(alive.clone()));
    let inner = tap.source(trusting(&Authority::new("root")));
    let source = {
        let (inner, held) = (Arc::new(inner), Arc::new(held));
        material_from("held", move || {
            let (inner, held) = (inner.clone(), held.clone());
            async move {
                let _held = &held.0;
                inner.load().await
            }
        })
    };
    let config = config(Backend::Rustls).with_reload(often());
    let tls = Tls::with_source(config, source).await.unwrap();
    tap.hangs.store(true, Ordering::Relaxed);
    tap.asked(2).await;
    drop(tls);
    // Well before the look would have been given up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(Arc::strong_count(&alive), 1, "the source is gone");
}

#[tokio::test]
async fn a_panic_is_one_failure_and_no_more() {
    let (material, loads) = (
        trusting(&Authority::new("root")),
        Arc::new(AtomicUsize::new(0)),
    );
    let source = material_from("panics", move || {
        let load = loads.fetch_add(1, Ordering::Relaxed);
        assert!(load != 1, "while the future is made");
        let material = material.clone();
        async move {
            assert!(load != 2, "while it runs");
            Ok(material)
        }
    });
    let tls = Tls::with_source(config(Backend::Rustls), source)
        .await
        .unwrap();
    for _ in 0..2 {
        let error = tls.reload().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        let cause = std::error::Error::source(cause).unwrap();
        assert_eq!(cause.to_string(), "the source panicked");
    }
    assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);
}

/// With one thread for all that blocks, the build of a reload waits where the test wants it to.
#[test]
fn a_withdrawal_during_a_reload_is_not_lost() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let root = Authority::new("root");
        let store = Store::new(trusting(&root));
        let tls = store.tls(config(Backend::Rustls)).await;
        store.put(showing(trusting(&root), &root.client("a").issue()));
        tls.reload().await.unwrap();
        store.put(showing(trusting(&root), &root.client("b").issue()));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let blocked = tokio::task::spawn_blocking(move || wait.recv());
        let reloading = tokio::spawn({
            let tls = tls.clone();
            async move { tls.reload().await }
        });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        tls.retire_older();
        go.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        reloading.await.unwrap().unwrap();
        let now = tls.generation();
        assert_eq!((now.number, now.oldest_allowed), (3, 2));
    });
}

#[tokio::test]
async fn revocation_that_was_asked_for_is_never_dropped() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let server = serve(&identity);
    let list = root.crl(&[identity.serial()]).issue();
    let config = config(Backend::Rustls)
        .with_reload(Reloading::default())
        .with_revocation(Revocation::default().with_required(true));
    let store = Store::new(trusting(&root).with_revocation_lists([list.der().to_vec()]));
    let tls = store.tls(config).await;
    visit(&tls, &server.url()).await.unwrap_err();
    // The store has forgotten them for a moment.
    store.put(trusting(&root));
    tls.reload().await.unwrap_err();
    visit(&tls, &server.url()).await.unwrap_err();
}

#[tokio::test]
async fn only_configured_trust_counts() {
    for backend in BACKENDS {
        let config = config(backend).with_trust(Trust::System);
        let error = tls_with(config, trusting(&Authority::new("root"))).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("tls.trust is system"), "{backend}: {error}");
    }
}

/// A list that ran out is fetched anew: nothing for a person to do. And it is not asked for without
/// pause where there is no newer one.
#[tokio::test]
async fn a_list_that_has_run_out_is_no_reason_to_give_up() {
    let root = Authority::new("root");
    let server = serve(&root.server(&["localhost"]).issue());
    let (now, short) = (SystemTime::now(), Duration::from_secs(2));
    let list = root
        .crl(&[])
        .validity(Validity::between(now - short, now + short))
        .issue();
    let tap = Tap::default();
    let source = tap.source(trusting(&root).with_revocation_lists([list.der().to_vec()]));
    let config = config(Backend::Rustls).with_reload(Reloading::default());
    let tls = Tls::with_source(config, source).await.unwrap();
    tokio::time::sleep(3 * short).await;
    let error = connect(&tls, &server.url()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    // After 1, 2 and 4 s at the soonest, and once at the start.
    let loads = tap.loads.load(Ordering::Relaxed);
    assert!((2..=4).contains(&loads), "{loads}");
}

struct Fetcher {
    list: Vec<u8>,
    away: Arc<AtomicBool>,
}

impl CrlFetcher for Fetcher {
    fn fetch(&self, _: &str) -> BoxFuture<'_, io::Result<Vec<u8>>> {
        let answer = if self.away.load(Ordering::Relaxed) {
            Err(io::ErrorKind::ConnectionRefused.into())
        } else {
            Ok(self.list.clone())
        };
        Box::pin(async { answer })
    }
}

#[tokio::test]
async fn a_list_out_of_reach_does_not_keep_a_new_certificate_away() {
    let root = Authority::new("root");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let place = |name: &str| Location::File(path(name));
    let show = |identity: &Identity| {
        write("client.pem", &identity.chain_pem());
        write("client.key", &identity.key_pem());
    };
    write("ca.pem", &root.certificate_pem());
    show(&root.client("first").issue());
    let list = vec![vec![Location::Url("http://crl.test/".to_owned())]];
    let config = config(Backend::Rustls)
        .with_reload(Reloading::default())
        .with_roots([place("ca.pem")])
        .with_identities([TlsIdentity::pem(place("client.pem"), place("client.key"))])
        .with_revocation(Revocation::default().with_lists(list));
    let away = Arc::new(AtomicBool::new(false));
    let source = ConfiguredSource::new(config.clone()).with_fetcher(Fetcher {
        list: root.crl(&[]).issue().der().to_vec(),
        away: away.clone(),
    });
    let tls = Tls::with_source(config, source).await.unwrap();
    away.store(true, Ordering::Relaxed);
    assert_eq!(tls.reload().await.unwrap(), Reload::Unchanged);
    show(&root.client("second").issue());
    assert_eq!(tls.reload().await.unwrap(), Reload::Renewed(2));
    assert_eq!(tls.generation().identities[0].subject, "CN=second");
}

/// As a variable has it that lost its line ends.
#[tokio::test]
async fn a_key_on_one_line_is_not_repeated() {
    let root = Authority::new("root");
    let identity = root.client("gateway").issue();
    let key = identity.key_pem().replace('\n', " ");
    let bytes = format!("{:?}", &key.as_bytes()[40..60]);
    let material = trusting(&root).with_identity(IdentityMaterial::pem(
        identity.chain_pem(),
        key.clone().into_bytes(),
    ));
    for backend in BACKENDS {
        let error = tls_with(config(backend), material.clone()).await;
        let error = error.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("tls.identities[0].key"), "{text}");
        assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{text}");
        assert!(!text.contains(&key[40..60]), "{text}");
    }
}

#[tokio::test]
async fn times_beyond_all_bounds_do_no_harm() {
    let root = Authority::new("root");
    let longest: Limit = format!("{}s", u64::MAX).parse().unwrap();
    let reload = Reloading::default()
        .with_interval(Limit::Never)
        .with_warn_before_expiry(longest);
    let store = Store::new(showing(trusting(&root), &root.client("a").issue()));
    let tls = store.tls(config(Backend::Rustls).with_reload(reload)).await;
    tls.reload().await.unwrap();
    let reload = Reloading::default().with_interval(longest);
    let errors = config(Backend::Rustls).with_reload(reload).validate();
    assert!(errors.is_err());
}

#[tokio::test]
async fn connections_to_the_same_server_share_its_certificates() {
    let root = Authority::new("root");
    let servers = [0, 1].map(|_| serve(&root.server(&["localhost"]).issue()));
    for backend in BACKENDS {
        let tls = tls(backend, trusting(&root)).await;
        let mut seen = Vec::new();
        for server in servers.iter().chain(&servers) {
            let conn = connect(&tls, &server.url()).await.unwrap();
            let known = conn.info().tls.clone().unwrap();
            seen.push(known.peer_certificates.clone());
        }
        assert!(Arc::ptr_eq(&seen[0], &seen[2]) && Arc::ptr_eq(&seen[1], &seen[3]));
        assert!(!Arc::ptr_eq(&seen[0], &seen[1]));
    }
}
