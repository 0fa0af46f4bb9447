//! The task that opens a session, for all that wait for it.
//!
//! Its one rule: whatever becomes of it, its entry in the book is settled, and those that wait are told.

use std::{sync::Arc, time::Duration};

use mqtt_pool::DialError;
use mqtt_transport::Endpoint;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    connector::{Dial, SessionConnector},
    error::{ConnectCause, ConnectError},
    registry::book::{Book, Outcome},
    session::Session,
};

/// The opening of a session that has its entry in the book, until this is dropped.
pub(super) struct Opening {
    book: Arc<Book>,
    client_id: Arc<str>,
    outcome: Arc<watch::Sender<Outcome>>,
}

impl Opening {
    pub(super) fn new(
        book: Arc<Book>,
        client_id: Arc<str>,
        outcome: Arc<watch::Sender<Outcome>>,
    ) -> Self {
        Self {
            book,
            client_id,
            outcome,
        }
    }

    pub(super) async fn run<C: Dial + Sync>(
        self,
        connector: SessionConnector<C>,
        endpoint: Endpoint,
    ) {
        let (book, client_id) = (&self.book, &self.client_id);
        let place = tokio::select! {
            biased;
            () = book.closed() => return,
            place = book.place() => place,
            // Nothing was begun that others could use.
            () = self.outcome.closed() => return,
        };
        let grace = book.config.acquire_timeout;
        let result = tokio::select! {
            biased;
            () = book.closed() => return,
            result = connect(connector, endpoint, client_id.clone()) => result,
            () = unwanted(&self.outcome, grace) => return,
        };
        match result {
            Ok(session) => {
                let handle = book.put_in(client_id, session, place);
                self.outcome.send_replace(None);
                // Not to be closed to make room before those who waited for it have looked.
                let _ = timeout(grace, self.outcome.closed()).await;
                drop(handle);
            }
            Err(error) => self.fail(DialError::Connect(error)),
        }
    }

    fn fail(&self, error: DialError<ConnectError>) {
        let failure = Arc::new(error);
        self.book
            .take_out(&self.client_id, &self.outcome, Some(&failure));
        self.outcome.send_replace(Some(failure));
    }
}

async fn connect<C: Dial + Sync>(
    connector: SessionConnector<C>,
    endpoint: Endpoint,
    client_id: Arc<str>,
) -> Result<Session, ConnectError> {
    match connector.with_client_id(&*client_id) {
        Ok(connector) => connector.connect(endpoint).await,
        Err(errors) => {
            let cause = ConnectCause::Config(errors);
            Err(ConnectError { endpoint, cause })
        }
    }
}

/// Waits until nobody has waited for the outcome for so long.
async fn unwanted(outcome: &watch::Sender<Outcome>, grace: Duration) {
    loop {
        outcome.closed().await;
        sleep(grace).await;
        if outcome.is_closed() {
            return;
        }
    }
}

/// What was not settled before was given up, or has panicked.
impl Drop for Opening {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(DialError::Panicked);
        } else {
            self.book.take_out(&self.client_id, &self.outcome, None);
        }
    }
}
