//! Pools whose members were made with certificates that have been replaced.

use std::time::Duration;

use mqtt_pool::{Connect, Pool};
use mqtt_transport::tls::Tls;

/// Has a pool follow the certificates of its connector: what is connected with older ones leaves
/// it.
///
/// When the material of `tls` is renewed, every member there is then is retired, spread over this
/// time, which should be well within what is left of the old certificates: see
/// [`Pool::retire`]. When older generations are to go at once, as
/// [`Tls::retire_older`] says, the pool is [cleared](Pool::clear), with it what was connected since.
/// Work is not interrupted in either case: what is leased goes when it is returned. An endpoint that
/// has refused the old certificate is dialled again.
///
/// What is renewed from the call on is seen, whether or not the future has been polled. It ends when
/// the pool is closed, which it keeps alive until then, or when `tls` is dropped everywhere; drop it
/// to stop following.
///
/// ```no_run
/// use std::time::Duration;
/// use mqtt_client::{
///     PooledSessions, SessionConfig, SessionConnector, follow_rotation,
///     pool::{Pool, PoolConfig},
///     transport::{Connector, tls::{Tls, TlsConfig}},
/// };
///
/// # async fn example(config: TlsConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::new(config).await?;
/// let connector = Connector::default().with_tls(tls.clone());
/// let connector = SessionConnector::with_transport(connector, SessionConfig::new("gateway"))?;
/// let sessions = PooledSessions::new(connector, "mqtts://server.example".parse()?);
/// let pool = Pool::new(sessions, PoolConfig::default())?;
/// tokio::spawn(follow_rotation(&tls, pool.clone(), Duration::from_secs(600)));
/// # Ok(())
/// # }
/// ```
pub fn follow_rotation<C: Connect>(
    tls: &Tls,
    pool: Pool<C>,
    over: Duration,
) -> impl Future<Output = ()> + Send + use<C> {
    let mut generations = tls.subscribe();
    let first = generations.borrow_and_update().clone();
    let (mut number, mut oldest_allowed) = (first.number, first.oldest_allowed);
    async move {
        loop {
            tokio::select! {
                () = pool.closed() => return,
                changed = generations.changed() => if changed.is_err() {
                    return;
                },
            }
            let now = generations.borrow_and_update().clone();
            if now.oldest_allowed > oldest_allowed {
                pool.clear();
            } else if now.number > number {
                pool.retire(over);
            }
            (number, oldest_allowed) = (now.number, now.oldest_allowed);
        }
    }
}
