//! Revocation lists, which only rustls takes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use mqtt_testkit::{
    OpensslServer,
    pki::{Authority, Crl, Identity, Validity},
};
use mqtt_transport::{
    Conn, Limit,
    tls::{
        Backend, BoxFuture, ConfiguredSource, CrlFetcher, Location, Reload, Reloading, Revocation,
        RevocationDepth, Tls, TlsConfig, TlsMaterial, UnknownRevocation,
    },
};

use crate::common::*;

struct Chain {
    root: Authority,
    issuing: Authority,
    good: Identity,
    revoked: Identity,
}

impl Chain {
    fn new() -> Self {
        let root = Authority::new("root");
        let issuing = root.intermediate("issuing");
        let leaf = || issuing.server(&["localhost"]).issue();
        let (good, revoked) = (leaf(), leaf());
        Self {
            root,
            good,
            revoked,
            issuing,
        }
    }

    fn of_root(&self) -> Crl {
        self.root.crl(&[]).issue()
    }

    fn of_issuing(&self, number: u64) -> Crl {
        self.issuing
            .crl(&[self.revoked.serial()])
            .number(number)
            .issue()
    }

    fn without_revoked(&self, number: u64) -> Crl {
        self.issuing.crl(&[]).number(number).issue()
    }
}

fn with(material: TlsMaterial, lists: &[&Crl]) -> TlsMaterial {
    let lists: Vec<Vec<u8>> = lists.iter().map(|list| list.pem().into_bytes()).collect();
    material.with_revocation_lists(lists)
}

/// Looks again seldom enough for a test to be done before.
fn rustls() -> TlsConfig {
    let hourly = Reloading::default().with_interval(Limit::After(Duration::from_secs(3600)));
    config(Backend::Rustls).with_reload(hourly)
}

fn serve(identity: &Identity) -> OpensslServer {
    OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
        .start()
        .unwrap()
}

/// What becomes of the good and of the revoked certificate.
async fn verdicts(chain: &Chain, config: TlsConfig, lists: &[&Crl]) -> [Result<(), String>; 2] {
    let tls = tls_with(config, with(trusting(&chain.root), lists))
        .await
        .unwrap();
    let good = visit(&tls, &serve(&chain.good).url()).await;
    let revoked = visit(&tls, &serve(&chain.revoked).url()).await;
    [good, revoked]
}

#[track_caller]
fn check(verdict: &Result<(), String>, words: Option<&str>) {
    match (verdict, words) {
        (Ok(()), None) => {}
        (Err(error), Some(words)) if error.contains(words) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn revoked_certificates_are_refused_and_others_not() {
    let chain = Chain::new();
    let (root, issuing) = (chain.of_root(), chain.of_issuing(1));
    let [good, revoked] = verdicts(&chain, rustls(), &[&root, &issuing]).await;
    check(&good, None);
    check(&revoked, Some("Revoked"));

    // The whole chain must be covered, unless less is asked for.
    let [good, _] = verdicts(&chain, rustls(), &[&issuing]).await;
    check(&good, Some("UnknownRevocationStatus"));
    let leaf = Revocation::default().with_depth(RevocationDepth::Leaf);
    let [good, revoked] = verdicts(&chain, rustls().with_revocation(leaf), &[&issuing]).await;
    check(&good, None);
    check(&revoked, Some("Revoked"));
    let allow = Revocation::default()
        .with_required(true)
        .with_unknown(UnknownRevocation::Allow);
    let [good, revoked] = verdicts(&chain, rustls().with_revocation(allow), &[&issuing]).await;
    check(&good, None);
    check(&revoked, Some("Revoked"));

    // A stale list beside the newest changes nothing, in either order.
    let (stale, newest) = (chain.without_revoked(6), chain.of_issuing(7));
    for lists in [[&root, &stale, &newest], [&root, &newest, &stale]] {
        let [good, revoked] = verdicts(&chain, rustls(), &lists).await;
        check(&good, None);
        check(&revoked, Some("Revoked"));
    }
    // Numbers count as numbers.
    let (ninth, tenth) = (chain.without_revoked(255), chain.of_issuing(256));
    let [_, revoked] = verdicts(&chain, rustls(), &[&root, &ninth, &tenth]).await;
    check(&revoked, Some("Revoked"));
}

#[tokio::test]
async fn lists_that_cannot_be_used_are_refused_when_they_are_read() {
    let chain = Chain::new();
    let expired = chain.issuing.crl(&[]).validity(Validity::expired()).issue();
    let early = chain.issuing.crl(&[]).validity(Validity::not_yet()).issue();
    let other_key = Authority::new("root").crl(&[]).issue();
    for (lists, words) in [
        (vec![&expired], "expired"),
        (vec![&early], "not valid yet"),
        (vec![&other_key, &chain.of_root()], "different keys"),
        (vec![&other_key], "signature"),
    ] {
        let material = with(trusting(&chain.root), &lists);
        let error = tls_with(rustls(), material).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
    let garbage = trusting(&chain.root).with_revocation_lists([b"garbage".to_vec()]);
    assert!(tls_with(rustls(), garbage).await.is_err());
    // Native-tls would ignore them.
    let material = with(trusting(&chain.root), &[&chain.of_root()]);
    assert!(
        tls_with(config(Backend::NativeTls), material)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_revocation_reaches_clients_that_hold_tickets() {
    let chain = Chain::new();
    let store = Store::new(with(
        trusting(&chain.root),
        &[&chain.of_root(), &chain.without_revoked(1)],
    ));
    let tls = store.tls(rustls()).await;
    let server = serve(&chain.revoked);
    for resumed in [false, true] {
        let mut conn = connect(&tls, &server.url()).await.unwrap();
        echo(&mut conn).await.unwrap();
        assert_eq!(conn.info().tls.as_ref().unwrap().resumed, Some(resumed));
    }
    store.put(with(
        trusting(&chain.root),
        &[&chain.of_root(), &chain.of_issuing(2)],
    ));
    assert_eq!(tls.reload().await.unwrap(), Reload::Renewed(2));
    check(&visit(&tls, &server.url()).await, Some("Revoked"));
}

/// Lists by URL; what is asked for more often than it is there fails.
struct Fetcher {
    good: Vec<u8>,
    calls: Arc<AtomicUsize>,
}

impl CrlFetcher for Fetcher {
    fn fetch(&self, url: &str) -> BoxFuture<'_, io::Result<Vec<u8>>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = match url {
            "http://good/" => Ok(self.good.clone()),
            "http://garbage/" => Ok(b"<html>".to_vec()),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        };
        Box::pin(async { answer })
    }
}

#[tokio::test]
async fn one_distribution_point_out_of_reach_does_not_stop_the_rest() {
    let chain = Chain::new();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Location::File(path)
    };
    let url = |url: &str| Location::Url(url.to_owned());
    let ca = file("ca.pem", chain.root.certificate_pem().into_bytes());
    let expired = chain.root.crl(&[]).validity(Validity::expired()).issue();
    let lists = vec![
        vec![
            url("http://away/"),
            url("http://garbage/"),
            url("http://good/"),
        ],
        vec![
            file("stale.crl", expired.der().to_vec()),
            file("root.crl", chain.of_root().der().to_vec()),
        ],
    ];
    let config = rustls()
        .with_roots([ca])
        .with_revocation(Revocation::default().with_lists(lists));
    let calls = Arc::new(AtomicUsize::new(0));
    let source = ConfiguredSource::new(config.clone()).with_fetcher(Fetcher {
        good: chain.of_issuing(1).der().to_vec(),
        calls: calls.clone(),
    });
    let tls = Tls::with_source(config.clone(), source).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    check(&visit(&tls, &serve(&chain.good).url()).await, None);
    let revoked = visit(&tls, &serve(&chain.revoked).url()).await;
    check(&revoked, Some("Revoked"));

    // Without anything that fetches, what is wrong is said.
    let error = Tls::new(config).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.to_string().contains("http://away/"), "{cause}");
}

/// A list is read again well before it ends, however long the usual interval is.
#[tokio::test]
async fn lists_are_renewed_before_they_end() {
    let chain = Chain::new();
    let short = |lists: &Chain| {
        let list = |authority: &Authority| {
            authority
                .crl(&[])
                .validity(Validity::between(
                    SystemTime::now() - Duration::from_secs(60),
                    SystemTime::now() + Duration::from_secs(4),
                ))
                .issue()
        };
        with(
            trusting(&lists.root),
            &[&list(&lists.root), &list(&lists.issuing)],
        )
    };
    let store = Store::new(short(&chain));
    let tls = store.tls(rustls()).await;
    store.put(with(
        trusting(&chain.root),
        &[&chain.of_root(), &chain.of_issuing(2)],
    ));
    let mut generations = tls.subscribe();
    let renewed = generations.wait_for(|generation| generation.number == 2);
    tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap()
        .unwrap();
    check(
        &visit(&tls, &serve(&chain.revoked).url()).await,
        Some("Revoked"),
    );
}
