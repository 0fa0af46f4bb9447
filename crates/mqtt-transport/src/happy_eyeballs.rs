//! Happy eyeballs (RFC 8305, sections 4 and 5): the addresses of a server race for one connection.
//!
//! The families take turns, so that a family that leads nowhere costs one delay. The next attempt
//! begins when an earlier one fails or after the delay; the first success wins, and dropping the
//! race drops every attempt. It knows no socket: what an attempt is, is the caller's.

use std::{fmt, io, net::SocketAddr, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use crate::error::is_transient_kind;

/// How many failed addresses an error names.
const MAX_NAMED: usize = 8;

/// The first `max` addresses in the order of attempts: from the family of the first on the
/// families alternate, and within a family the order stays.
pub(crate) fn interleave(addresses: &[SocketAddr], max: usize) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let of_first = |address: &&SocketAddr| address.is_ipv4() == first.is_ipv4();
    let mut families = [
        addresses.iter().filter(of_first).collect::<Vec<_>>(),
        addresses.iter().filter(|a| !of_first(a)).collect(),
    ]
    .map(|family| family.into_iter().copied());
    let mut order = Vec::with_capacity(addresses.len().min(max));
    while order.len() < max {
        let before = order.len();
        order.extend(families.iter_mut().filter_map(Iterator::next));
        if order.len() == before {
            break;
        }
    }
    order.truncate(max);
    order
}

/// Dials the addresses in their order until one succeeds; `delay` lies between two attempts unless
/// one fails.
///
/// The error names what became of each address. Its kind is that of the first transient failure,
/// or of the first failure if another attempt cannot help with any.
pub(crate) async fn race<C, F>(
    addresses: &[SocketAddr],
    delay: Duration,
    dial: impl Fn(SocketAddr) -> F,
) -> io::Result<C>
where
    F: Future<Output = io::Result<C>>,
{
    let mut waiting = addresses.iter().copied().peekable();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Failures::default();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = dial(address);
            attempts.push(async move { (address, attempt.await) });
        }
        let outcome = match waiting.peek() {
            Some(_) => timeout(delay, attempts.next()).await,
            None => Ok(attempts.next().await),
        };
        match outcome {
            Ok(Some((_, Ok(conn)))) => return Ok(conn),
            Ok(Some((address, Err(error)))) => {
                tracing::debug!(%address, %error, "an address cannot be reached");
                failures.0.push((address, error));
            }
            Ok(None) => return Err(failures.into()),
            // The address is slow: it stays in the race, and the next one joins it.
            Err(_) => {}
        }
    }
}

/// What became of each address.
#[derive(Default)]
struct Failures(Vec<(SocketAddr, io::Error)>);

impl From<Failures> for io::Error {
    fn from(failures: Failures) -> Self {
        let mut kinds = failures.0.iter().map(|(_, error)| error.kind());
        let kind = kinds
            .clone()
            .find(|kind| is_transient_kind(*kind))
            .or_else(|| kinds.next())
            .unwrap_or(io::ErrorKind::NotFound);
        Self::new(kind, failures.to_string())
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, error)) in self.0.iter().take(MAX_NAMED).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        future::pending,
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn addresses(list: &str) -> Vec<SocketAddr> {
        list.split_whitespace()
            .map(|host| format!("{host}:1").parse().unwrap())
            .collect()
    }

    #[test]
    fn families_alternate_from_the_first_on() {
        #[track_caller]
        fn check(given: &str, max: usize, order: &str) {
            assert_eq!(interleave(&addresses(given), max), addresses(order));
        }
        check("", 8, "");
        check("1.0.0.1", 8, "1.0.0.1");
        check(
            "[::1] [::2] [::3] 1.0.0.1 1.0.0.2",
            8,
            "[::1] 1.0.0.1 [::2] 1.0.0.2 [::3]",
        );
        check("1.0.0.1 1.0.0.2 [::1]", 8, "1.0.0.1 [::1] 1.0.0.2");
        // The bound counts after the families were mixed, so that it leaves none out.
        check("[::1] [::2] [::3] 1.0.0.1", 2, "[::1] 1.0.0.1");
        check("[::1] [::2] [::3] 1.0.0.1", 3, "[::1] 1.0.0.1 [::2]");
    }

    /// A network: what becomes of an attempt, by the last number of its address.
    #[derive(Clone, Copy)]
    enum Fate {
        Connects(u64),
        Fails(u64, io::ErrorKind),
        Hangs,
    }
    use Fate::{Connects, Fails, Hangs};

    /// Runs a race, and says who won when, and when each attempt began; in milliseconds.
    async fn run(fates: &[Fate]) -> (io::Result<usize>, u64, Vec<u64>) {
        let addresses: Vec<SocketAddr> = (0..fates.len())
            .map(|n| ([127, 0, 0, u8::try_from(n).unwrap()], 1).into())
            .collect();
        let (start, begun, live) = (Instant::now(), RefCell::new(Vec::new()), Cell::new(0));
        let millis = || u64::try_from(start.elapsed().as_millis()).unwrap();
        let outcome = race(&addresses, DELAY, |address| {
            begun.borrow_mut().push(millis());
            let index = addresses.iter().position(|a| *a == address).unwrap();
            let counted = Counted::new(&live);
            async move {
                let _counted = counted;
                match fates[index] {
                    Connects(after) => sleep(Duration::from_millis(after)).await,
                    Fails(after, kind) => {
                        sleep(Duration::from_millis(after)).await;
                        return Err(io::Error::from(kind));
                    }
                    Hangs => pending().await,
                }
                Ok(index)
            }
        })
        .await;
        assert_eq!(live.get(), 0, "the losers are gone");
        (outcome, millis(), begun.into_inner())
    }

    struct Counted<'a>(&'a Cell<usize>);

    impl<'a> Counted<'a> {
        fn new(live: &'a Cell<usize>) -> Self {
            live.set(live.get() + 1);
            Self(live)
        }
    }

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    const REFUSED: io::ErrorKind = io::ErrorKind::ConnectionRefused;

    #[tokio::test(start_paused = true)]
    async fn who_wins_and_when_attempts_begin() {
        #[track_caller]
        fn check(ran: (io::Result<usize>, u64, Vec<u64>), winner: usize, at: u64, begun: &[u64]) {
            assert_eq!((ran.0.unwrap(), ran.1, &*ran.2), (winner, at, begun));
        }
        check(run(&[Connects(30)]).await, 0, 30, &[0]);
        // The first is quick: the others are never dialled.
        check(run(&[Connects(249), Connects(0)]).await, 0, 249, &[0]);
        // A slow one is overtaken, but may still win.
        check(run(&[Hangs, Connects(30)]).await, 1, 280, &[0, 250]);
        check(run(&[Connects(300), Hangs]).await, 0, 300, &[0, 250]);
        check(
            run(&[Hangs, Hangs, Connects(1)]).await,
            2,
            501,
            &[0, 250, 500],
        );
        // A failure moves on at once, and the delay begins anew.
        let fates = [Fails(10, REFUSED), Hangs, Connects(1)];
        check(run(&fates).await, 2, 261, &[0, 10, 260]);
        // Also one that fails late.
        let fates = [Fails(300, REFUSED), Hangs, Connects(1)];
        check(run(&fates).await, 2, 301, &[0, 250, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_names_every_address() {
        let denied = io::ErrorKind::PermissionDenied;
        let (outcome, at, begun) = run(&[Fails(5, denied), Fails(5, REFUSED)]).await;
        let error = outcome.unwrap_err();
        assert_eq!((at, begun), (10, vec![0, 5]));
        assert_eq!(error.kind(), REFUSED, "what may pass counts");
        assert_eq!(
            error.to_string(),
            "127.0.0.0:1: permission denied; 127.0.0.1:1: connection refused"
        );
        let (outcome, ..) = run(&[Fails(5, denied), Fails(5, denied)]).await;
        assert_eq!(outcome.unwrap_err().kind(), denied);
        let (outcome, ..) = run(&[Fails(0, REFUSED); 20]).await;
        let text = outcome.unwrap_err().to_string();
        assert_eq!(text.matches("refused").count(), MAX_NAMED);
        assert!(text.ends_with("; and 12 more"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_drops_every_attempt() {
        let (live, begun) = (Cell::new(0), Cell::new(0));
        let addresses = addresses("1.0.0.1 1.0.0.2 1.0.0.3");
        let race = race(&addresses, DELAY, |_| {
            begun.set(begun.get() + 1);
            let counted = Counted::new(&live);
            async move {
                let _counted = counted;
                pending::<io::Result<()>>().await
            }
        });
        let given_up = timeout(DELAY * 3 / 2, race);
        assert!(given_up.await.is_err());
        assert_eq!((begun.get(), live.get()), (2, 0));
    }
}
