//! What the end of an attempt to connect shows of the server, for the gate that all attempts go through.
//!
//! Its one rule: what is about one client says nothing against the server.

use mqtt_pool::{DialGate, DialOutcome};
use mqtt_proto::{ProtocolError, ReasonCode};

use crate::{
    connector::SessionConnector,
    error::{ConnectCause, LostCause},
};

impl<C: Clone> SessionConnector<C> {
    /// Has every attempt to connect, of all sessions of this connector, go through `gate`: for many
    /// sessions with one server, which should not come back to it each on its own timer.
    ///
    /// A session waits as its `reconnect` says and then in the gate's line, without a deadline, before
    /// it dials. Credentials and authenticators are asked before it stands in line, and again if it stood
    /// there for more than 10 s. Sessions of a pool do not need it: the pool decides about their dials.
    #[must_use]
    pub fn with_dial_gate(self, gate: DialGate) -> Self {
        self.with_gate(Some(gate))
    }
}

/// `None`: nothing was dialled.
pub(crate) fn outcome(result: Result<(), &ConnectCause>) -> Option<DialOutcome> {
    let cause = match result {
        Ok(()) => return Some(DialOutcome::Accepted),
        Err(cause) => cause,
    };
    match cause {
        ConnectCause::Dial(error) if error.is_transient() => Some(DialOutcome::Failed),
        ConnectCause::Protocol(ProtocolError::ConnAckTimeout { .. }) => Some(DialOutcome::Failed),
        ConnectCause::Refused(connack) if OF_THE_SERVER.contains(&connack.reason_code) => {
            Some(DialOutcome::Failed)
        }
        ConnectCause::Refused(_) | ConnectCause::NotFollowed { .. } => Some(DialOutcome::Answered),
        ConnectCause::Config(_) | ConnectCause::Options(_) | ConnectCause::Credentials(_) => None,
        ConnectCause::Authentication(_) => Some(DialOutcome::Answered),
        // A proxy whose server is away closes like this, and a 3.1.1 server that does not like the
        // client.
        ConnectCause::Dial(_)
        | ConnectCause::Io(_)
        | ConnectCause::Closed
        | ConnectCause::Malformed(_)
        | ConnectCause::Protocol(_) => Some(DialOutcome::Doubtful),
    }
}

/// The codes by which a server refuses everybody.
const OF_THE_SERVER: [ReasonCode; 4] = [
    ReasonCode::SERVER_UNAVAILABLE,
    ReasonCode::SERVER_BUSY,
    ReasonCode::SERVER_SHUTTING_DOWN,
    ReasonCode::CONNECTION_RATE_EXCEEDED,
];

/// Whether a connection ended so by the server's or the network's doing.
pub(crate) fn has_failed(cause: &LostCause) -> bool {
    match cause {
        LostCause::Closed
        | LostCause::Cut
        | LostCause::Renewed
        | LostCause::Authentication(_)
        | LostCause::TaskDropped => false,
        LostCause::Disconnected(disconnect) => OF_THE_SERVER.contains(&disconnect.reason_code),
        LostCause::ClosedByServer
        | LostCause::Io { .. }
        | LostCause::Malformed(_)
        | LostCause::Protocol(_)
        | LostCause::Stalled { .. }
        | LostCause::SessionLost
        | LostCause::NotReopened(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use mqtt_proto::packet::ConnAck;
    use mqtt_transport::{ConnectError, ConnectPhase};

    use super::*;

    #[test]
    fn what_is_about_one_client_says_nothing_against_the_server() {
        let refused = |code| ConnectCause::Refused(Box::new(ConnAck::refused(code)));
        let endpoint = "mqtt://server.test".parse().expect("an endpoint");
        let unreachable = std::io::ErrorKind::ConnectionRefused.into();
        let unreachable = ConnectError::new(ConnectPhase::Dial, &endpoint, unreachable);
        let timeout = ProtocolError::ConnAckTimeout {
            timeout: std::time::Duration::from_secs(5),
        };
        for (cause, expected) in [
            (ConnectCause::Dial(unreachable), DialOutcome::Failed),
            (ConnectCause::Protocol(timeout), DialOutcome::Failed),
            (refused(ReasonCode::SERVER_BUSY), DialOutcome::Failed),
            (refused(ReasonCode::SERVER_UNAVAILABLE), DialOutcome::Failed),
            (refused(ReasonCode::NOT_AUTHORIZED), DialOutcome::Answered),
            (refused(ReasonCode::QUOTA_EXCEEDED), DialOutcome::Answered),
            (refused(ReasonCode::BANNED), DialOutcome::Answered),
            (ConnectCause::Closed, DialOutcome::Doubtful),
        ] {
            assert_eq!(outcome(Err(&cause)), Some(expected), "{cause:?}");
        }
        assert_eq!(outcome(Ok(())), Some(DialOutcome::Accepted));
        assert_eq!(
            outcome(Err(&ConnectCause::Config(Default::default()))),
            None
        );
    }
}
