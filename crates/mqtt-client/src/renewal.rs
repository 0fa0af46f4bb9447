//! Credentials that expire: new ones are asked for while the connection holds, and it is given up
//! for one with them in order.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    credentials::{CredentialsError, CredentialsRequest, Given, Source},
    shared::Shared,
};

/// Waits until new credentials are due, and asks for them until there are some. Then, where the session
/// ends with its connection, it takes no more publishes, and those in flight are waited for.
///
/// To be dropped with the connection.
pub(crate) async fn renew(source: Source, shared: Arc<Shared>, at: Instant) -> Given {
    sleep_until(at).await;
    let given = loop {
        match ask(&source, &shared).await {
            Ok(given) => break given,
            Err(error) => {
                tracing::warn!(endpoint = %shared.endpoint, %error, cause = ?error, "credentials are not renewed");
                sleep(PAUSE.mul_f64(1.0 + fastrand::f64())).await;
            }
        }
    };
    if shared.pause_unless_kept() {
        // Those that are left are told that they are lost.
        let quiesce = shared.lock().options.quiesce;
        let _ = timeout(quiesce, shared.settled()).await;
    }
    given
}

/// Waits until new credentials are due, and has the pool replace the session.
///
/// To be dropped with the connection.
pub(crate) async fn retire(shared: Arc<Shared>, at: Instant) {
    sleep_until(at).await;
    shared.retire();
}

/// How long a source that has failed is left alone, at least; at most twice as long.
const PAUSE: Duration = Duration::from_secs(5);

async fn ask(source: &Source, shared: &Shared) -> Result<Given, CredentialsError> {
    let (client_id, endpoint) = {
        let state = shared.lock();
        let endpoint = state.endpoint(&shared.endpoint).clone();
        (state.core.client_id().cloned(), endpoint)
    };
    let client_id = client_id.as_deref().unwrap_or_default();
    let request = CredentialsRequest::new(&endpoint, client_id);
    source.ask(&request).await
}

impl Shared {
    /// Takes no more publishes on this connection if the session ends with it; says whether it does. A
    /// session that is leaving sends what it has.
    fn pause_unless_kept(&self) -> bool {
        let mut state = self.lock();
        let ends = !state.closing && !state.core.outlives_connection();
        if ends {
            state.core.pause();
        }
        ends
    }

    /// Ends the connection in order, for another one. A session that is leaving does so by itself,
    /// unless it has something to send that waits for the next one.
    pub(crate) fn change_connections(&self) {
        let mut state = self.lock();
        let waits = state.core.is_paused() && state.core.in_flight() == 0;
        if state.closing && !(waits && state.open_publishes() > 0) {
            return;
        }
        state.lend_buffer();
        state.disconnect();
    }
}
