//! The messages of SCRAM as text (RFC 5802 section 7). Nothing here is secret.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{MAX_ITERATIONS, MIN_ITERATIONS, ScramError};

/// The client does not bind to the channel, and acts for itself.
pub(super) const NO_CHANNEL_BINDING: &str = "n,,";

/// Far more than any server's, which have 16 to 64 bytes.
const MAX_SALT_SIZE: usize = 1_024;

/// What a server's own words are cut to.
const MAX_WORDS: usize = 128;

pub(super) fn client_first_bare(user_name: &str, nonce: &str) -> String {
    let user_name = user_name.replace('=', "=3D").replace(',', "=2C");
    format!("n={user_name},r={nonce}")
}

pub(super) fn client_final_without_proof(nonce: &str) -> String {
    format!("c={},r={nonce}", STANDARD.encode(NO_CHANNEL_BINDING))
}

/// How the server salts the password.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

impl<'a> ServerFirst<'a> {
    /// `own` is the nonce that the server goes on from. Extensions behind the iterations are let
    /// through; one before the nonce is mandatory, and none is known.
    pub(super) fn parse(message: &'a str, own: &str) -> Result<Self, ScramError> {
        let mut attributes = message.split(',');
        let mut next = |name: &str| {
            attributes
                .next()
                .and_then(|attribute| attribute.strip_prefix(name))
                .ok_or(ScramError::Malformed)
        };
        let (nonce, salt, iterations) = (next("r=")?, next("s=")?, next("i=")?);
        if !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Malformed);
        }
        if !nonce.starts_with(own) || nonce.len() == own.len() {
            return Err(ScramError::Nonce);
        }
        if salt.len() > MAX_SALT_SIZE * 2 {
            return Err(ScramError::Malformed);
        }
        let salt = STANDARD.decode(salt).map_err(|_| ScramError::Malformed)?;
        if salt.is_empty() || salt.len() > MAX_SALT_SIZE {
            return Err(ScramError::Malformed);
        }
        // `parse` alone would take a sign.
        if !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ScramError::Malformed);
        }
        let iterations = iterations.parse().map_err(|_| ScramError::Malformed)?;
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Iterations { iterations });
        }
        Ok(Self {
            nonce,
            salt,
            iterations,
        })
    }
}

/// The signature in the server's last message.
pub(super) fn server_signature(message: &str) -> Result<Vec<u8>, ScramError> {
    let first = message.split(',').next().unwrap_or_default();
    if let Some(error) = first.strip_prefix("e=") {
        return Err(ScramError::Refused(error.chars().take(MAX_WORDS).collect()));
    }
    let signature = first.strip_prefix("v=").ok_or(ScramError::Malformed)?;
    STANDARD
        .decode(signature)
        .map_err(|_| ScramError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_quoted() {
        assert_eq!(client_first_bare("a,b=c", "n"), "n=a=2Cb=3Dc,r=n");
    }

    #[test]
    fn how_a_server_salts() {
        let right = ServerFirst {
            nonce: "abcd",
            salt: b"salt".to_vec(),
            iterations: 4_096,
        };
        for message in [
            "r=abcd,s=c2FsdA==,i=4096",
            "r=abcd,s=c2FsdA==,i=4096,x=an extension",
        ] {
            assert_eq!(ServerFirst::parse(message, "ab").unwrap(), right);
        }
        let long = format!("r=abcd,s={},i=4096", STANDARD.encode([0; 1_025]));
        for (message, error) in [
            ("", ScramError::Malformed),
            ("e=unknown-user", ScramError::Malformed),
            ("m=x,r=abcd,s=c2FsdA==,i=4096", ScramError::Malformed),
            ("s=c2FsdA==,r=abcd,i=4096", ScramError::Malformed),
            ("r=abcd,s=c2FsdA==", ScramError::Malformed),
            ("r=abcd,s=c2FsdA,i=4096", ScramError::Malformed),
            ("r=abcd,s=,i=4096", ScramError::Malformed),
            (&long, ScramError::Malformed),
            ("r=ab\u{E9},s=c2FsdA==,i=4096", ScramError::Malformed),
            ("r=abcd,s=c2FsdA==,i=+4096", ScramError::Malformed),
            ("r=abcd,s=c2FsdA==,i=", ScramError::Malformed),
            ("r=abcd,s=c2FsdA==,i=4294967296", ScramError::Malformed),
            ("r=xbcd,s=c2FsdA==,i=4096", ScramError::Nonce),
            ("r=ab,s=c2FsdA==,i=4096", ScramError::Nonce),
            ("r=a,s=c2FsdA==,i=4096", ScramError::Nonce),
            (
                "r=abcd,s=c2FsdA==,i=4095",
                ScramError::Iterations { iterations: 4_095 },
            ),
            (
                "r=abcd,s=c2FsdA==,i=1000001",
                ScramError::Iterations {
                    iterations: 1_000_001,
                },
            ),
        ] {
            assert_eq!(ServerFirst::parse(message, "ab"), Err(error), "{message}");
        }
    }
}
