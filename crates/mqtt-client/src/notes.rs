//! What only some sessions remember from one connection to the next: boxed, so that the others do
//! not pay for it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use mqtt_transport::Endpoint;

use tokio::time::Sleep;
use tracing::Span;

use crate::{credentials::Given, poison::Suspect, redirect::Route};

#[derive(Default)]
pub(crate) struct Notes {
    /// Becomes what the present connection is given up for; `None`: it stays, though its credentials
    /// expire.
    pub(crate) renewal: Option<Pin<Box<dyn Future<Output = Option<Given>> + Send>>>,
    /// Credentials for the next attempt.
    pub(crate) renewed: Option<Given>,
    /// Credentials that were refused were answered with others, since the last stable period.
    pub(crate) has_asked_anew: bool,
    /// Where a server that has moved is to be looked for.
    pub(crate) moved_to: Option<Endpoint>,
    /// Where a DISCONNECT has sent the session, for the next attempt.
    pub(crate) sent_on: Option<Route>,
    /// How often one has, since the last stable period.
    pub(crate) hops: u32,
    /// The publish that may be what ends the connections.
    pub(crate) suspect: Option<Suspect>,
    /// The present connection is given its resends one at a time.
    pub(crate) is_careful: bool,
    /// Until when it is given none.
    pub(crate) probation: Option<Pin<Box<Sleep>>>,
    /// Of the present connection, if a subscriber wants it, and how many there have been.
    pub(crate) span: Option<Span>,
    pub(crate) connections: u64,
}

/// What is to be done with a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is given up for one with new credentials.
    Renewal,
    /// What was held back is sent again.
    Resends,
}

impl Notes {
    /// The last connection was stable: what was done about failures may be done again.
    pub(crate) fn forget_failures(&mut self) {
        self.has_asked_anew = false;
        self.hops = 0;
    }

    /// The connection is gone, and with it what was begun on it.
    pub(crate) fn on_connection_lost(&mut self) {
        self.renewal = None;
        self.probation = None;
        self.is_careful = false;
        self.span = None;
    }

    /// What is to be done now, if anything is.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Option<Due> {
        if let Some(probation) = &mut self.probation
            && probation.as_mut().poll(cx).is_ready()
        {
            self.probation = None;
            return Some(Due::Resends);
        }
        self.poll_renewal(cx).then_some(Due::Renewal)
    }

    /// Whether the connection is to be given up for one with new credentials.
    fn poll_renewal(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(renewal) = &mut self.renewal else {
            return false;
        };
        let Poll::Ready(renewed) = renewal.as_mut().poll(cx) else {
            return false;
        };
        self.renewal = None;
        self.renewed = renewed;
        self.renewed.is_some()
    }
}
