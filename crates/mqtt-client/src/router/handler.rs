//! Async functions as handlers of messages.

use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    error::{BoxError, HandlerError},
    extract::FromMessage,
    incoming::Incoming,
    service::HandlerFuture,
};

/// An async function that handles messages: of up to eight arguments that each are [`FromMessage`], and returning
/// [`Outcome`]. `T` is the tuple of its arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle messages",
    note = "a handler is an async function whose arguments implement `FromMessage<S>`, `S` being the router's state, and that returns `()` or `Result<(), E>`; it can be cloned, shared between threads, and its future sent"
)]
pub trait Handler<T, S>: Clone + Send + Sync + 'static {
    /// Handles a message.
    fn call(
        self,
        incoming: Incoming,
        state: S,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// What a handler may return: `()`, or `Result<(), E>` with any `E` that is an error or text.
pub trait Outcome {
    /// Success, or the error.
    ///
    /// # Errors
    ///
    /// The handler's own.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

macro_rules! handler {
    ($($argument:ident)*) => {
        impl<F, Fut, S, $($argument,)*> Handler<($($argument,)*), S> for F
        where
            F: FnOnce($($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output: Outcome> + Send,
            S: Send,
            $($argument: FromMessage<S> + Send,)*
        {
            #[allow(non_snake_case, unused_variables, reason = "an argument is named as its type is")]
            async fn call(self, incoming: Incoming, state: S) -> Result<(), HandlerError> {
                let taken = {
                    $(
                        let $argument = $argument::from_message(&incoming, &state)
                            .map_err(|rejection| HandlerError::Rejected(rejection.into()))?;
                    )*
                    self($($argument),*)
                };
                drop((incoming, state));
                taken.await.into_result().map_err(HandlerError::Failed)
            }
        }
    };
}

handler! {}
handler! { A }
handler! { A B }
handler! { A B C }
handler! { A B C D }
handler! { A B C D E }
handler! { A B C D E G }
handler! { A B C D E G H }
handler! { A B C D E G H I }

/// A handler and its state as a service.
pub(super) struct HandlerService<H, T, S> {
    handler: H,
    state: S,
    arguments: PhantomData<fn() -> T>,
}

impl<H, T, S> HandlerService<H, T, S> {
    pub(super) fn new(handler: H, state: S) -> Self {
        Self {
            handler,
            state,
            arguments: PhantomData,
        }
    }
}

impl<H: Clone, T, S: Clone> Clone for HandlerService<H, T, S> {
    fn clone(&self) -> Self {
        Self::new(self.handler.clone(), self.state.clone())
    }
}

impl<H, T, S> Service<Incoming> for HandlerService<H, T, S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + 'static,
{
    type Response = ();
    type Error = HandlerError;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, incoming: Incoming) -> HandlerFuture {
        Box::pin(self.handler.clone().call(incoming, self.state.clone()))
    }
}

impl<H, T, S> fmt::Debug for HandlerService<H, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerService").finish_non_exhaustive()
    }
}
