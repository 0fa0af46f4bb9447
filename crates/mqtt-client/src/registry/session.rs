//! A handle on a registered session.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{registry::book::Book, session::Session};

/// A session of a [`SessionRegistry`](crate::SessionRegistry), which stays open while this or a clone of
/// it is held.
///
/// Clones, publishers and subscribers of the [`Session`] itself do not keep it: hold this beside them.
pub struct RegisteredSession {
    session: Session,
    client_id: Arc<str>,
    book: Arc<Book>,
}

impl RegisteredSession {
    /// One that the book counts already.
    pub(super) fn new(session: Session, client_id: Arc<str>, book: Arc<Book>) -> Self {
        Self {
            session,
            client_id,
            book,
        }
    }

    /// The client identifier that it was asked for by.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }
}

impl Deref for RegisteredSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Clone for RegisteredSession {
    fn clone(&self) -> Self {
        self.book.retain(&self.client_id, &self.session);
        Self::new(
            self.session.clone(),
            self.client_id.clone(),
            self.book.clone(),
        )
    }
}

impl Drop for RegisteredSession {
    fn drop(&mut self) {
        self.book.release(&self.client_id, &self.session);
    }
}

impl fmt::Debug for RegisteredSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredSession")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
