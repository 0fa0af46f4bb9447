//! The router: messages to handlers by their topics.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

mod acknowledging;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod ending;
mod handlers;
mod in_hand;
mod patterns;

use std::sync::{Arc, Mutex};

use mqtt_client::{
    Message, Session,
    proto::packet::SubscribeFilter,
    router::{Handler, Router, Routes, ServeEnd, ServeError, State},
};
use mqtt_testkit::ScriptedServer;
use tokio::{sync::oneshot, task::JoinHandle};

/// What handlers have seen, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    /// What was seen since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A handler that notes the pattern it is for, and the topic.
pub(crate) fn noting(pattern: &'static str) -> impl Handler<(State<Log>, Message), Log> + use<> {
    move |State(log): State<Log>, message: Message| async move {
        log.add(format!("{pattern} {}", &*message.topic));
    }
}

pub(crate) fn router(log: &Log, patterns: &[&'static str]) -> Router<Log> {
    let router = Router::with_state(log.clone());
    patterns.iter().fold(router, |router, pattern| {
        router.route(pattern, noting(pattern))
    })
}

/// Routes that are served in a task, until they are told to shut down.
pub(crate) struct Served {
    pub(crate) shutdown: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<Result<ServeEnd, ServeError>>,
}

impl Served {
    pub(crate) fn shut_down(&mut self) {
        let _ = self.shutdown.take().unwrap().send(());
    }
}

/// Serves, and has the server grant what is subscribed to, which is returned.
pub(crate) async fn serve(
    routes: &Routes,
    session: &Session,
    server: &mut ScriptedServer,
    filters: usize,
) -> (Served, Vec<SubscribeFilter>) {
    let (shutdown, told) = oneshot::channel();
    let (routes, session) = (routes.clone(), session.clone());
    let task = tokio::spawn(async move {
        let told = async { drop(told.await) };
        routes.serve_until(&session, told).await
    });
    let mut granted = Vec::new();
    for _ in 0..filters {
        granted.extend(server.grant().await.filters);
    }
    common::settle().await;
    let served = Served {
        shutdown: Some(shutdown),
        task,
    };
    (served, granted)
}
