//! SCRAM-SHA-256 (RFC 5802, RFC 7677): both sides prove that they know the password, and neither
//! says it.
//!
//! ```text
//! n,,n=user,r=nonce  -->            <--  r=nonce and more,s=salt,i=iterations
//! c=biws,r=nonce and more,p=proof  -->            <--  v=signature
//! ```

mod keys;
mod messages;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::Mac;
use mqtt_proto::{Secret, Utf8String};
use secrecy::SecretString;
use thiserror::Error;

use super::{AuthenticationError, Authenticator};
use keys::{HmacSha256, PasswordKeys};

/// The fewest iterations taken: what RFC 7677 asks of servers. Fewer would make a recorded exchange
/// cheap to guess passwords from.
const MIN_ITERATIONS: u32 = 4_096;

/// The most, beyond the 600,000 that are recommended today for kept passwords: under half a second of
/// one core, which is the most that a hostile server can ask of a connection.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Of random bytes, 24 characters on the wire.
const NONCE_SIZE: usize = 18;

/// A user name and password for SCRAM-SHA-256, without channel binding.
///
/// ```no_run
/// # use mqtt_client::{Scram, SessionConfig, SessionConnector};
/// # fn example(password: String) -> Result<(), Box<dyn std::error::Error>> {
/// let scram = Scram::new("gateway", password)?;
/// let connector = SessionConnector::new(SessionConfig::new("gateway-1"))?
///     .with_authenticator(move |_| scram.authenticator())?;
/// # Ok(())
/// # }
/// ```
///
/// Clones, and the authenticators made of them, share the keys that were derived from the password:
/// that is done once for each salt and number of iterations (4,096 to 1,000,000 are taken), on a thread
/// for blocking work and one at a time, so that thousands of sessions that come back together cost one
/// derivation. The four last are kept. The password and the keys are wiped from memory in the end, and
/// never printed.
///
/// The server has to prove that it knows the password's keys, with the data of its CONNACK or its
/// last AUTH; one that does not, or accepts without having asked, is not trusted.
#[derive(Clone, Debug)]
pub struct Scram {
    user_name: Arc<str>,
    keys: PasswordKeys,
}

impl Scram {
    /// With a user name and password of printable ASCII characters and spaces.
    ///
    /// RFC 5802 has texts prepared by SASLprep (RFC 4013), which leaves those as they are and may
    /// change others. For others there is [`prepared`](Self::prepared).
    ///
    /// # Errors
    ///
    /// There are other characters, or one of the two is empty.
    pub fn new(
        user_name: impl Into<String>,
        password: impl Into<SecretString>,
    ) -> Result<Self, ScramError> {
        let (user_name, password) = (user_name.into(), password.into());
        let is_plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain(&user_name) || !is_plain(secrecy::ExposeSecret::expose_secret(&password)) {
            return Err(ScramError::Unprepared);
        }
        Self::prepared(user_name, password)
    }

    /// With a user name and password that the caller has prepared by SASLprep. They are used as they
    /// are.
    ///
    /// # Errors
    ///
    /// One of the two is empty, or holds U+0000.
    pub fn prepared(
        user_name: impl Into<String>,
        password: impl Into<SecretString>,
    ) -> Result<Self, ScramError> {
        let (user_name, password) = (user_name.into(), password.into());
        let is_wrong = |text: &str| text.is_empty() || text.contains('\0');
        if is_wrong(&user_name) || is_wrong(secrecy::ExposeSecret::expose_secret(&password)) {
            return Err(ScramError::Unprepared);
        }
        Ok(Self {
            user_name: user_name.into(),
            keys: PasswordKeys::new(password),
        })
    }

    /// For one exchange.
    pub fn authenticator(&self) -> ScramAuthenticator {
        ScramAuthenticator {
            scram: self.clone(),
            stage: Stage::New,
        }
    }
}

/// One exchange of [`Scram`].
#[derive(Debug)]
pub struct ScramAuthenticator {
    scram: Scram,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New,
    /// The server is to say how the password is salted.
    Begun {
        nonce: String,
    },
    /// The server is to prove that it knows the keys: its signature is to be this.
    Proved {
        signature: HmacSha256,
    },
    Over,
}

impl ScramAuthenticator {
    fn begin_with(&mut self, nonce: String) -> String {
        let first = messages::client_first_bare(&self.scram.user_name, &nonce);
        self.stage = Stage::Begun { nonce };
        format!("{}{first}", messages::NO_CHANNEL_BINDING)
    }

    async fn prove(&mut self, challenge: &[u8]) -> Result<String, AuthenticationError> {
        let Stage::Begun { nonce } = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(ScramError::OutOfTurn.into());
        };
        let server_first = std::str::from_utf8(challenge).map_err(|_| ScramError::Malformed)?;
        let parsed = messages::ServerFirst::parse(server_first, &nonce)?;
        let iterations = parsed.iterations;
        let keys = self.scram.keys.derived(parsed.salt, iterations).await?;
        let client_first = messages::client_first_bare(&self.scram.user_name, &nonce);
        let without_proof = messages::client_final_without_proof(parsed.nonce);
        let exchanged = format!("{client_first},{server_first},{without_proof}");
        let proof = STANDARD.encode(keys.proof(exchanged.as_bytes()));
        self.stage = Stage::Proved {
            signature: keys.server_signature(exchanged.as_bytes()),
        };
        Ok(format!("{without_proof},p={proof}"))
    }

    fn check(&mut self, proof: Option<&[u8]>) -> Result<(), ScramError> {
        let Stage::Proved { signature } = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(ScramError::OutOfTurn);
        };
        let proof = proof.ok_or(ScramError::ServerSignature)?;
        let server_final = std::str::from_utf8(proof).map_err(|_| ScramError::Malformed)?;
        let claimed = messages::server_signature(server_final)?;
        // In constant time.
        signature
            .verify_slice(&claimed)
            .map_err(|_| ScramError::ServerSignature)
    }
}

impl Authenticator for ScramAuthenticator {
    fn method(&self) -> Utf8String {
        Utf8String::new("SCRAM-SHA-256").unwrap_or_default()
    }

    async fn begin(&mut self) -> Result<Option<Secret>, AuthenticationError> {
        let mut random = [0; NONCE_SIZE];
        getrandom::fill(&mut random)
            .map_err(|error| AuthenticationError::unavailable(std::io::Error::from(error)))?;
        // Of its alphabet the comma is no part, which a nonce may not have.
        let nonce = STANDARD.encode(random);
        data(self.begin_with(nonce))
    }

    async fn answer(
        &mut self,
        challenge: Option<&[u8]>,
    ) -> Result<Option<Secret>, AuthenticationError> {
        data(self.prove(challenge.unwrap_or_default()).await?)
    }

    async fn finish(&mut self, proof: Option<&[u8]>) -> Result<(), AuthenticationError> {
        Ok(self.check(proof)?)
    }
}

fn data(message: String) -> Result<Option<Secret>, AuthenticationError> {
    let data = Secret::new(message).map_err(mqtt_proto::UsageError::from)?;
    Ok(Some(data))
}

/// Why SCRAM is not gone on with: the `source` of [`AuthenticationError::Untrusted`], the first one
/// apart.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScramError {
    /// The user name or password is empty, or has characters that SASLprep may change.
    #[error("user name and password are printable ASCII and not empty, or prepared by SASLprep")]
    Unprepared,
    /// The server's data are no message of SCRAM, or ask for an extension.
    #[error("the server's data are no message of SCRAM [RFC 5802 7]")]
    Malformed,
    /// The server does not go on from our nonce: it may replay the exchange of another.
    #[error("the server's nonce does not begin with ours, or adds nothing [RFC 5802 5.1]")]
    Nonce,
    /// The server asks for too little work, which helps those who guess, or for too much.
    #[error("the server asks for {iterations} iterations, not 4096 to 1000000 [RFC 7677 4]")]
    Iterations {
        /// How many.
        iterations: u32,
    },
    /// The server ended the exchange with an error of SCRAM, though it accepted.
    #[error("the server said {0:?}")]
    Refused(String),
    /// The server did not prove that it knows the password's keys.
    #[error("the server's signature is wrong or missing [RFC 5802 3]")]
    ServerSignature,
    /// The server accepted before it had asked, or asked once more.
    #[error("the server left out a step of SCRAM, or added one [RFC 5802 5]")]
    OutOfTurn,
}

impl From<ScramError> for AuthenticationError {
    fn from(error: ScramError) -> Self {
        Self::untrusted(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677 section 3.
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    async fn example() -> ScramAuthenticator {
        let mut scram = Scram::new("user", "pencil").unwrap().authenticator();
        assert_eq!(
            scram.begin_with("rOprNGfwEbeRWgbNEkqO".to_owned()),
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
        );
        assert_eq!(
            scram.prove(SERVER_FIRST.as_bytes()).await.unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        scram
    }

    #[tokio::test]
    async fn the_example_of_the_rfc() {
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        example().await.check(Some(proof)).unwrap();
    }

    #[tokio::test]
    async fn another_signature_is_none() {
        for (proof, error) in [
            (None, ScramError::ServerSignature),
            (
                Some("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
                ScramError::ServerSignature,
            ),
            (Some("v="), ScramError::ServerSignature),
            (Some("v=6rriTRBi"), ScramError::ServerSignature),
            (Some("v=?"), ScramError::Malformed),
            (Some(""), ScramError::Malformed),
            (
                Some("e=other-error"),
                ScramError::Refused("other-error".to_owned()),
            ),
        ] {
            let checked = example().await.check(proof.map(str::as_bytes));
            assert_eq!(checked, Err(error), "{proof:?}");
        }
    }

    #[tokio::test]
    async fn steps_come_in_their_order() {
        let mut early = Scram::new("user", "pencil").unwrap().authenticator();
        assert_eq!(early.check(Some(b"v=")), Err(ScramError::OutOfTurn));
        let mut early = Scram::new("user", "pencil").unwrap().authenticator();
        early.begin_with("rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(early.check(Some(b"v=")), Err(ScramError::OutOfTurn));
        let mut late = example().await;
        late.prove(SERVER_FIRST.as_bytes()).await.unwrap_err();
        assert_eq!(late.check(Some(b"v=")), Err(ScramError::OutOfTurn));
    }

    #[test]
    fn texts_that_saslprep_may_change_are_the_callers() {
        for (user_name, password) in [
            ("", "pencil"),
            ("user", ""),
            ("us\u{AD}er", "pencil"),
            ("user", "pass\u{A0}word"),
            ("user", "pen\u{7F}cil"),
            ("us\ter", "pencil"),
        ] {
            let refused = Scram::new(user_name, password).map(drop);
            assert_eq!(refused, Err(ScramError::Unprepared), "{user_name:?}");
        }
        Scram::new("a user, =", "~ !").unwrap();
        Scram::prepared("\u{E9}", "\u{E9}").unwrap();
        Scram::prepared("\0", "x").unwrap_err();
    }

    #[tokio::test]
    async fn nothing_secret_is_printed() {
        let scram = example().await;
        let printed = format!("{scram:?}");
        assert!(!printed.contains("pencil"), "{printed}");
        assert!(printed.contains("REDACTED"), "{printed}");
    }
}
