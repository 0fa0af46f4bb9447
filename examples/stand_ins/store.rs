//! A secret store: HashiCorp Vault's KV version 2, as far as reading one secret goes.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::Issued;

/// Has one secret, `mqtt/gateway`, and one token that may read it.
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

struct State {
    token: SecretString,
    secret: Issued,
    version: u64,
    sealed: bool,
}

impl Store {
    pub(crate) async fn start(token: SecretString, secret: Issued) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            token,
            secret,
            version: 1,
            sealed: false,
        }));
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let answer = service_fn(move |request| {
                    let answer = lock(&state).answer(&request);
                    async { Ok::<_, Infallible>(answer) }
                });
                let stream = TokioIo::new(stream);
                connections.spawn(http1::Builder::new().serve_connection(stream, answer));
            }
        });
        Ok(Self {
            address,
            state,
            _tasks: tasks,
        })
    }

    /// Takes a new version of the secret.
    pub(crate) fn put(&self, secret: Issued) {
        let mut state = lock(&self.state);
        state.secret = secret;
        state.version += 1;
    }

    /// A store that is sealed cannot read its own secrets, and answers nothing but 503.
    pub(crate) fn set_sealed(&self, sealed: bool) {
        lock(&self.state).sealed = sealed;
    }
}

impl State {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let token = request.headers().get("X-Vault-Token");
        let (status, body) = if self.sealed {
            let body = json!({ "errors": ["Vault is sealed"] });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        } else if token.is_none_or(|token| token != self.token.expose_secret()) {
            let body = json!({ "errors": ["permission denied"] });
            (StatusCode::FORBIDDEN, body)
        } else if request.uri().path() != "/v1/secret/data/mqtt/gateway" {
            (StatusCode::NOT_FOUND, json!({ "errors": [] }))
        } else {
            let Issued {
                certificate,
                key,
                ca,
            } = &self.secret;
            let data = json!({ "certificate": certificate, "key": key, "ca": ca });
            let created = format!("2026-01-0{}T00:00:00Z", self.version);
            let metadata = json!({ "version": self.version, "created_time": created });
            let body = json!({ "data": { "data": data, "metadata": metadata } });
            (StatusCode::OK, body)
        };
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        response
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
