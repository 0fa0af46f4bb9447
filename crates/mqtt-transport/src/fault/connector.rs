//! A connector whose connections have plans of faults, by their number.

use std::{
    fmt, io, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{FaultPlan, Faulty};
use crate::{Conn, ConnectError, ConnectPhase, Endpoint};

/// A connector whose connections fail according to plans.
///
/// Clones number their connections together, in the order of the calls, from 1.
///
/// ```
/// # #[cfg(feature = "test-util")] {
/// use mqtt_transport::{Connector, FaultPlan, FaultyConnector};
///
/// // The third connection is cut after 100 bytes.
/// let connector = FaultyConnector::new(Connector::default(), |n| match n {
///     3 => FaultPlan::new().cut_after_read(100),
///     _ => FaultPlan::new(),
/// });
/// # let _: FaultyConnector<Connector> = connector;
/// # }
/// ```
#[derive(Clone)]
pub struct FaultyConnector<S> {
    inner: S,
    plan: Arc<dyn Fn(u64) -> FaultPlan + Send + Sync>,
    calls: Arc<AtomicU64>,
}

impl<S> FaultyConnector<S> {
    /// Asks `plan` for the plan of each connection, by its number.
    pub fn new(inner: S, plan: impl Fn(u64) -> FaultPlan + Send + Sync + 'static) -> Self {
        Self {
            inner,
            plan: Arc::new(plan),
            calls: Arc::default(),
        }
    }

    /// How many connections were asked for so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl<S: fmt::Debug> fmt::Debug for FaultyConnector<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyConnector")
            .field("inner", &self.inner)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl<S> Service<Endpoint> for FaultyConnector<S>
where
    S: Service<Endpoint, Error = ConnectError>,
    S::Response: Conn,
{
    type Response = Faulty<S::Response>;
    type Error = ConnectError;
    type Future = FaultyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let plan = (self.plan)(number);
        let refused = plan.dial.map(|kind| {
            let source = io::Error::new(kind, "refused by the fault plan");
            ConnectError::new(ConnectPhase::Dial, &endpoint, source)
        });
        FaultyFuture {
            connect: refused.is_none().then(|| self.inner.call(endpoint)),
            refused,
            plan,
        }
    }
}

pin_project! {
    /// The future of [`FaultyConnector`]. Dropping it gives the attempt up.
    #[derive(Debug)]
    #[must_use = "a connect does nothing until polled"]
    pub struct FaultyFuture<F> {
        // None where dialling fails.
        #[pin]
        connect: Option<F>,
        refused: Option<ConnectError>,
        plan: FaultPlan,
    }
}

impl<F, C> Future for FaultyFuture<F>
where
    F: Future<Output = Result<C, ConnectError>>,
    C: Conn,
{
    type Output = Result<Faulty<C>, ConnectError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(refused) = this.refused.take() {
            return Poll::Ready(Err(refused));
        }
        let connect = this.connect.as_pin_mut();
        let conn = ready!(connect.expect("polled after it was ready").poll(cx))?;
        Poll::Ready(Ok(Faulty::new(conn, mem::take(this.plan))))
    }
}
