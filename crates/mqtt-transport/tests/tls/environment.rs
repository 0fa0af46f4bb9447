//! `SSL_CERT_FILE` and `SSL_CERT_DIR`, each setting in a process of its own.

use std::{env, process::Command};

use mqtt_testkit::{OpensslServer, pki::Authority};
use mqtt_transport::tls::{Location, Tls, TlsConfig, Trust};

use crate::common::*;

const SERVER: &str = "MQTT_TEST_SERVER";
const ROOT: &str = "MQTT_TEST_ROOT";

/// What each backend makes of the server with the system's trust, and with its own root.
async fn report(url: &str, root: &str) -> String {
    let mut report = String::new();
    for backend in BACKENDS {
        for trust in [Trust::System, Trust::Own] {
            let mut config: TlsConfig = config(backend).with_trust(trust);
            if trust == Trust::Own {
                config = config.with_roots([Location::File(root.into())]);
            }
            let verdict = match Tls::new(config).await {
                Err(_) => "no roots",
                Ok(tls) => match visit(&tls, url).await {
                    Ok(()) => "accepted",
                    Err(_) => "refused",
                },
            };
            report += &format!("{backend} {trust:?} {verdict};");
        }
    }
    report
}

/// Does nothing unless it is the child of the test below.
#[tokio::test]
async fn child() {
    if let (Ok(url), Ok(root)) = (env::var(SERVER), env::var(ROOT)) {
        println!("report: {}", report(&url, &root).await);
    }
}

#[test]
fn variables_count_with_the_systems_trust_only() {
    let root = Authority::new("root");
    let identity = root.server(&["localhost"]).issue();
    let server = OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
        .start()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let own = file("root.pem", root.certificate_pem());
    let other = file("other.pem", Authority::new("other").certificate_pem());
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let check = |cert_file: &std::path::Path, native: &str, rustls: &str| {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "environment::child", "--nocapture"])
            .env(SERVER, server.url())
            .env(ROOT, &own)
            .env("SSL_CERT_FILE", cert_file)
            .env("SSL_CERT_DIR", &empty)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = format!(
            "native_tls System {native};native_tls Own accepted;\
             rustls System {rustls};rustls Own accepted;"
        );
        assert!(text.contains(&expected), "{cert_file:?}: {text}");
    };
    check(&own, "accepted", "accepted");
    check(&other, "refused", "refused");
    check(&folder.path().join("missing"), "refused", "no roots");
}
