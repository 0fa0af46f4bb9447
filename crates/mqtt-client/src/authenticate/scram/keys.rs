//! What is derived from a password, at a price, and kept.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::authenticate::AuthenticationError;

pub(super) type HmacSha256 = Hmac<Sha256>;

/// Kept for a password: the servers of a cluster may each have their salt, and a new one comes with a
/// change of the password there.
const MAX_KEPT: usize = 4;

/// The keys of RFC 5802 section 3.
pub(super) struct Keys {
    client: SecretBox<[u8; 32]>,
    server: SecretBox<[u8; 32]>,
}

impl Keys {
    fn derive(password: &SecretString, salt: &[u8], iterations: u32) -> Self {
        let password = password.expose_secret().as_bytes();
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations);
        let salted = Zeroizing::new(salted);
        let key = |name: &[u8]| {
            let key: [u8; 32] = sign(&*salted, name).finalize().into_bytes().into();
            SecretBox::new(Box::new(key))
        };
        Self {
            client: key(b"Client Key"),
            server: key(b"Server Key"),
        }
    }

    /// That we know the password, for those who keep the hash of the client key.
    pub(super) fn proof(&self, exchanged: &[u8]) -> [u8; 32] {
        let client = self.client.expose_secret();
        let stored: [u8; 32] = Sha256::digest(client).into();
        let mut proof: [u8; 32] = sign(&stored, exchanged).finalize().into_bytes().into();
        proof.iter_mut().zip(client).for_each(|(a, b)| *a ^= b);
        proof
    }

    /// What the server is to prove itself with.
    pub(super) fn server_signature(&self, exchanged: &[u8]) -> HmacSha256 {
        sign(self.server.expose_secret(), exchanged)
    }
}

fn sign(key: &[u8], message: &[u8]) -> HmacSha256 {
    let mut mac = HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac
}

/// A password, and the keys that were derived from it.
#[derive(Clone)]
pub(super) struct PasswordKeys(Arc<Inner>);

struct Inner {
    password: SecretString,
    kept: Mutex<VecDeque<Kept>>,
    /// Held while keys are derived, also after the one who asked has gone: the work cannot be
    /// stopped, and must not add up.
    deriving: Arc<Semaphore>,
}

struct Kept {
    salt: Vec<u8>,
    iterations: u32,
    keys: Arc<Keys>,
}

impl PasswordKeys {
    pub(super) fn new(password: SecretString) -> Self {
        Self(Arc::new(Inner {
            password,
            kept: Mutex::default(),
            deriving: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Those that are kept, or new ones. If the future is dropped they are derived and kept all the
    /// same, once that has begun.
    pub(super) async fn derived(
        &self,
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Arc<Keys>, AuthenticationError> {
        if let Some(keys) = self.0.kept(&salt, iterations) {
            return Ok(keys);
        }
        let permit = self.0.deriving.clone().acquire_owned().await;
        let permit = permit.map_err(AuthenticationError::unavailable)?;
        // Somebody else may have wanted them meanwhile.
        if let Some(keys) = self.0.kept(&salt, iterations) {
            return Ok(keys);
        }
        let inner = self.0.clone();
        let derived = tokio::task::spawn_blocking(move || {
            let keys = Arc::new(Keys::derive(&inner.password, &salt, iterations));
            inner.keep(Kept {
                salt,
                iterations,
                keys: keys.clone(),
            });
            drop(permit);
            keys
        });
        derived.await.map_err(AuthenticationError::unavailable)
    }
}

impl Inner {
    fn kept(&self, salt: &[u8], iterations: u32) -> Option<Arc<Keys>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = kept.iter();
        let found = kept.find(|it| it.salt == salt && it.iterations == iterations);
        found.map(|it| it.keys.clone())
    }

    fn keep(&self, new: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back(new);
    }
}

impl fmt::Debug for PasswordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn are_derived_once_for_each_salt_and_the_last_four_are_kept() {
        let keys = PasswordKeys::new("pencil".into());
        let derived = |salt: u8| keys.derived(vec![salt], 4_096);
        let (first, same, other) = tokio::join!(derived(0), derived(0), derived(1));
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&first, &same.unwrap()));
        assert!(!Arc::ptr_eq(&first, &other.unwrap()));
        for salt in 2..4 {
            derived(salt).await.unwrap();
        }
        assert!(Arc::ptr_eq(&first, &derived(0).await.unwrap()));
        derived(4).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &derived(0).await.unwrap()));
        let more = keys.derived(vec![4], 4_097).await.unwrap();
        assert!(!Arc::ptr_eq(&more, &derived(4).await.unwrap()));
    }

    #[tokio::test]
    async fn are_kept_when_nobody_waits_any_more() {
        let keys = PasswordKeys::new("pencil".into());
        let mut asking = Box::pin(keys.derived(vec![0], 4_096));
        std::future::poll_fn(|cx| {
            assert!(asking.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(asking);
        assert_eq!(keys.0.deriving.available_permits(), 0);
        let permit = keys.0.deriving.acquire().await.unwrap();
        drop(permit);
        assert!(keys.0.kept(&[0], 4_096).is_some());
    }
}
