//! From one authority to another without a connection that fails.

use mqtt_testkit::{ClientCertificate, OpensslServer, pki::Authority};
use mqtt_transport::tls::{Reload, TlsMaterial};

use crate::common::*;

/// The server trusts both authorities all the while, as such a migration has it; the client goes
/// through old, both and new, for whom it trusts and for what it shows.
#[tokio::test]
async fn authorities_are_replaced_step_by_step() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both_pem = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let serve = |authority: &Authority| {
        let identity = authority
            .intermediate("issuing")
            .server(&["localhost"])
            .issue();
        OpensslServer::builder(&identity.chain_pem(), &identity.key_pem())
            .client_certificate(ClientCertificate::Required, &both_pem)
            .start()
            .unwrap()
    };
    let (server_old, server_new) = (serve(&old), serve(&new));
    let (client_old, client_new) = (old.client("of-old").issue(), new.client("of-new").issue());
    let both = || TlsMaterial::default().with_roots([both_pem.clone().into_bytes()]);
    for backend in BACKENDS {
        let store = Store::new(showing(trusting(&old), &client_old));
        let tls = store.tls(config(backend)).await;
        let mut kept = connect(&tls, &server_old.url()).await.unwrap();
        visit(&tls, &server_old.url()).await.unwrap();

        // Both are trusted before any server changes.
        store.put(showing(both(), &client_old));
        assert_eq!(tls.reload().await.unwrap(), Reload::Renewed(2));
        visit(&tls, &server_old.url()).await.unwrap();
        visit(&tls, &server_new.url()).await.unwrap();

        store.put(showing(both(), &client_new));
        tls.reload().await.unwrap();
        visit(&tls, &server_old.url()).await.unwrap();
        visit(&tls, &server_new.url()).await.unwrap();

        // The old one goes at the end; what was connected lives on.
        store.put(showing(trusting(&new), &client_new));
        tls.reload().await.unwrap();
        visit(&tls, &server_new.url()).await.unwrap();
        visit(&tls, &server_old.url()).await.unwrap_err();
        echo(&mut kept).await.unwrap();
    }
    for server in [server_old, server_new] {
        let seen = server.handshakes(4).await;
        let shown: Vec<_> = seen
            .iter()
            .filter(|handshake| handshake.error.is_none())
            .filter_map(|handshake| handshake.client_common_name.as_deref())
            .collect();
        assert!(shown.contains(&"of-old") && shown.contains(&"of-new"));
    }
}

/// An intermediate signed by both authorities lets old and new clients in at once.
#[tokio::test]
async fn cross_signing_serves_clients_of_either_authority() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let leaf = new.server(&["localhost"]).issue();
    let chain = format!("{}{}", leaf.chain_pem(), old.cross_sign(&new).pem());
    let server = OpensslServer::builder(&chain, &leaf.key_pem())
        .start()
        .unwrap();
    for backend in BACKENDS {
        for root in [&old, &new] {
            let tls = tls(backend, trusting(root)).await;
            visit(&tls, &server.url()).await.unwrap();
        }
    }
}
