//! A pool of sessions whose server is killed again and again, under callers of every kind: whatever
//! happens, everybody is answered in time, the server never has more sessions than it may, it is not
//! stormed, and nothing is left.
//!
//! `POOL_STRESS_SECONDS` says how long it goes on; 60 if it is not set.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use mqtt_client::{
    PooledSessions, Publish, QoS, SessionConfig, SessionConnector,
    pool::{AcquireError, BackoffConfig, Lease, Limit, Pool, PoolConfig},
};
use mqtt_testkit::Mosquitto;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::{Notify, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

type SessionPool = Pool<PooledSessions>;

const CALLERS: u64 = 32;
const MAX_SIZE: usize = 8;
const MAX_CONNECTING: usize = 4;
const BASE: Duration = Duration::from_millis(100);

/// What a busy machine may add to any deadline.
const GRACE: Duration = Duration::from_secs(5);

/// Far more than anything without a deadline of its own takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stands before the server and counts, in a thread of its own: what arrives first is seen first.
struct Front {
    addr: SocketAddr,
    counts: Arc<Counts>,
    /// Ends it when dropped.
    _end: oneshot::Sender<()>,
}

#[derive(Default)]
struct Counts {
    /// Connections that were tried.
    dialled: AtomicUsize,
    /// Those of them behind which there was no server.
    refused: AtomicUsize,
    /// From CONNECT to DISCONNECT, or to the end of the connection at either side.
    live: AtomicUsize,
    /// Sessions that were taken out of the pool and have not left yet.
    detached: AtomicUsize,
    /// The most there was of the first beyond the second.
    most_live: AtomicUsize,
    /// The largest number in a client identifier.
    largest_slot: AtomicUsize,
    /// Cuts one connection, whichever comes first.
    cut: Notify,
}

const NAME: &str = "stress-";

impl Front {
    fn start(server: SocketAddr) -> Self {
        let (end, ended) = oneshot::channel::<()>();
        let counts = Arc::new(Counts::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = counts.clone();
        std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = ended => {}
                    () = accept(&listener, server, shared) => {}
                }
            });
        });
        Self {
            addr,
            counts,
            _end: end,
        }
    }
}

async fn accept(listener: &TcpListener, server: SocketAddr, counts: Arc<Counts>) {
    loop {
        // A client that has gone meanwhile is no reason to stop.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        counts.dialled.fetch_add(1, SeqCst);
        let counts = counts.clone();
        tokio::spawn(async move {
            match TcpStream::connect(server).await {
                Ok(server) => forward(client, server, &counts).await,
                Err(_) => {
                    counts.refused.fetch_add(1, SeqCst);
                }
            }
        });
    }
}

/// A session as the server counts it.
struct Live<'a>(&'a Counts);

impl<'a> Live<'a> {
    fn begin(counts: &'a Counts, connect: &[u8]) -> Self {
        let live = counts.live.fetch_add(1, SeqCst) + 1;
        let pooled = live.saturating_sub(counts.detached.load(SeqCst));
        counts.most_live.fetch_max(pooled, SeqCst);
        let text = String::from_utf8_lossy(connect);
        let slot = text.split(NAME).nth(1).unwrap_or_default();
        let slot: String = slot.chars().take_while(char::is_ascii_digit).collect();
        let slot = slot.parse().expect("a pooled session has a number");
        counts.largest_slot.fetch_max(slot, SeqCst);
        Self(counts)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, SeqCst);
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, counts: &Counts) {
    let mut live = None;
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    loop {
        let forwarded = tokio::select! {
            () = counts.cut.notified() => break,
            read = client.read_buf(&mut from_client) => match read {
                Ok(n) if n > 0 => {
                    if from_client.first() == Some(&0x10) {
                        live = Some(Live::begin(counts, &from_client));
                    }
                    // DISCONNECT; what is published here does not end so.
                    if from_client.ends_with(&[0xE0, 0]) {
                        live = None;
                    }
                    server.write_all(&from_client).await
                }
                Ok(_) | Err(_) => break,
            },
            read = server.read_buf(&mut from_server) => match read {
                Ok(n) if n > 0 => client.write_all(&from_server).await,
                Ok(_) | Err(_) => break,
            },
        };
        if forwarded.is_err() {
            break;
        }
        from_client.clear();
        from_server.clear();
    }
    // Before the client can know.
    drop(live);
    drop((client, server));
}

struct Random(fastrand::Rng);

impl Random {
    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.0.u64(range))
    }
}

/// What came of the calls.
#[derive(Debug, Default)]
struct Tally {
    leases: AtomicUsize,
    timeouts: AtomicUsize,
    cancelled: AtomicUsize,
    published: AtomicUsize,
    lost: AtomicUsize,
}

async fn call(
    pool: SessionPool,
    counts: Arc<Counts>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    seed: u64,
) {
    let mut random = Random(fastrand::Rng::with_seed(seed));
    while !stop.load(SeqCst) {
        let patience = random.millis(1..3_000);
        let deadline = Instant::now() + patience;
        let get = pool.get_with(deadline);
        let lease = if random.0.u8(..10) == 0 {
            // Gives up before it is answered.
            timeout(patience / 4, get).await.ok()
        } else {
            let answered = timeout_at(deadline + GRACE, get).await;
            Some(answered.expect("a caller is answered by its deadline"))
        };
        match lease {
            None => {
                tally.cancelled.fetch_add(1, SeqCst);
            }
            Some(Err(AcquireError::Timeout { .. })) => {
                tally.timeouts.fetch_add(1, SeqCst);
            }
            Some(Err(error)) => panic!("{error:?}"),
            Some(Ok(lease)) => {
                tally.leases.fetch_add(1, SeqCst);
                work(lease, &counts, &tally, &mut random).await;
            }
        }
    }
}

async fn work(lease: Lease<PooledSessions>, counts: &Counts, tally: &Tally, random: &mut Random) {
    // Before the publishes, so that one that is given up is still in flight at the end.
    sleep(random.millis(0..40)).await;
    for _ in 0..random.0.u8(1..5) {
        let message = Publish::new("stress", "message").unwrap();
        let publish = lease.publish(message.with_qos(QoS::AtLeastOnce));
        if random.0.u8(..20) == 0 {
            // Gives up on it, which makes the lease one to discard.
            let _ = timeout(random.millis(0..3), publish).await;
            continue;
        }
        let outcome = timeout(PATIENCE, publish).await;
        match outcome.expect("a publish is answered") {
            Ok(_) => tally.published.fetch_add(1, SeqCst),
            Err(_) => tally.lost.fetch_add(1, SeqCst),
        };
    }
    match random.0.u8(..60) {
        0 => lease.discard(),
        1 => {
            // Its slot is free, and its successor of the same name may end it.
            counts.detached.fetch_add(1, SeqCst);
            let session = lease.detach();
            let _ = timeout(PATIENCE, session.disconnect())
                .await
                .expect("it leaves");
            counts.detached.fetch_sub(1, SeqCst);
        }
        2 => {
            // Told to leave, by one who does not stay to see it.
            let _ = timeout(random.millis(0..2), lease.disconnect()).await;
        }
        3 => counts.cut.notify_one(),
        _ => drop(lease),
    }
}

fn config() -> PoolConfig {
    PoolConfig::default()
        .with_max_size(MAX_SIZE)
        .with_min_idle(2)
        .with_max_connecting(MAX_CONNECTING)
        .with_connect_timeout(Duration::from_millis(1_500))
        .with_idle_timeout(Limit::After(Duration::from_secs(1)))
        .with_max_lifetime(Limit::After(Duration::from_secs(3)))
        .with_backoff(
            BackoffConfig::default()
                .with_base(BASE)
                .with_max(BASE * 8)
                .with_stable_after(Duration::from_secs(2)),
        )
}

/// Waits for a number to come to what it has to be.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_again_and_again() {
    let name = "a_server_that_is_killed_again_and_again";
    let Some(mut server) = Mosquitto::start_or_skip(name).await else {
        return;
    };
    let seconds = env::var("POOL_STRESS_SECONDS").map_or(60, |text| text.parse().unwrap());
    let front = Front::start(server.addr());
    let (counts, tally) = (front.counts.clone(), Arc::new(Tally::default()));
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let tasks_before = tasks();

    let connector = SessionConnector::new(SessionConfig::new(NAME.trim_end_matches('-'))).unwrap();
    let endpoint = format!("mqtt://{}", front.addr).parse().unwrap();
    let sessions = PooledSessions::new(connector, endpoint);
    let pool = Pool::new(sessions, config()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let callers_count = usize::try_from(CALLERS).unwrap();
    let callers: Vec<_> = (0..CALLERS)
        .map(|seed| {
            let (counts, tally) = (counts.clone(), tally.clone());
            tokio::spawn(call(pool.clone(), counts, tally, stop.clone(), seed))
        })
        .collect();

    let mut random = Random(fastrand::Rng::with_seed(CALLERS));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut outages, mut most_tasks) = (0, 0);
    while Instant::now() < end && callers.iter().all(|caller| !caller.is_finished()) {
        sleep(random.millis(1_500..4_000)).await;
        let refused = counts.refused.load(SeqCst);
        let down = Instant::now();
        server.kill();
        sleep(random.millis(200..1_500)).await;
        server.restart().await.unwrap();
        outages += 1;
        // Those that were on their way, and then one after the other with a pause in between that is
        // half of `base` at least.
        let refused = counts.refused.load(SeqCst) - refused;
        let pauses = down.elapsed().as_millis() / (BASE / 2).as_millis();
        let bound = MAX_CONNECTING + usize::try_from(pauses).unwrap() + 1;
        assert!(refused <= bound, "{refused} dials in {:?}", down.elapsed());
        most_tasks = most_tasks.max(tasks());
    }
    stop.store(true, SeqCst);
    for caller in callers {
        let ended = timeout(PATIENCE * 2, caller).await;
        ended.expect("every caller comes to an end").unwrap();
    }
    println!(
        "{outages} outages, {tally:?}, {} dials, {} of them refused; most: {} live, slot {}, {most_tasks} tasks",
        counts.dialled.load(SeqCst),
        counts.refused.load(SeqCst),
        counts.most_live.load(SeqCst),
        counts.largest_slot.load(SeqCst),
    );

    // The keeper and the callers; for each member that lives or leaves, one that drives it and one that
    // closes it, and so for what the callers have detached.
    let members = 2 * MAX_SIZE + MAX_CONNECTING + callers_count;
    let bound = tasks_before + 1 + callers_count + 2 * members;
    assert!(most_tasks <= bound, "{most_tasks} tasks, not {bound}");

    // Each place is there and none twice.
    let deadline = Instant::now() + PATIENCE;
    let leases = join_all((0..MAX_SIZE).map(|_| pool.get_with(deadline))).await;
    let leases: Vec<_> = leases.into_iter().map(Result::unwrap).collect();
    let soon = Instant::now() + Duration::from_millis(200);
    let error = pool.get_with(soon).await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
    let status = pool.status();
    assert_eq!((status.size, status.in_use), (MAX_SIZE, MAX_SIZE));
    assert_eq!((status.connecting, status.waiting), (0, 0));
    for lease in &leases {
        let message = Publish::new("stress", "last").unwrap();
        let publish = lease.publish(message.with_qos(QoS::AtLeastOnce));
        timeout(PATIENCE, publish).await.unwrap().unwrap();
    }
    until("the server has as many", || {
        counts.live.load(SeqCst) == MAX_SIZE
    })
    .await;
    assert_eq!(counts.most_live.load(SeqCst), MAX_SIZE);
    // A dead member keeps its slot until it is closed, while its successor is dialled.
    assert!(counts.largest_slot.load(SeqCst) < 2 * MAX_SIZE + MAX_CONNECTING);

    drop(leases);
    let drained = pool.drain(Instant::now() + PATIENCE).await;
    assert!(drained.is_complete(), "{drained:?}");
    until("no session is left", || counts.live.load(SeqCst) == 0).await;
    until("no task is left", || tasks() <= tasks_before).await;
    assert!(tally.published.load(SeqCst) > 0 && outages > 0);
}
