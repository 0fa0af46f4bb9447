//! What the decorators of connections cost per read. See the crate's README.

use std::{
    env,
    fmt::Debug,
    hint::black_box,
    io,
    pin::Pin,
    process::ExitCode,
    task::{Context, Poll},
    time::Duration,
};

use benches::{Error, PAYLOAD};
use metrics_util::debugging::DebuggingRecorder;
use mqtt_transport::{
    Address, Conn, ConnInfo, ConnKind, Metered, ReadDeadline, Stateful, StreamConn, WriteDeadline,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Instant,
};

const HELP: &str = "\
decorators [--reads N] [--smoke]
  --reads N  reads of each decorator over each stream (1000000); a tenth of them where each waits
  --smoke    few reads: that everything works, not how fast";

/// Reads that are timed together. Their bytes fit into the buffers of a socket.
const BATCH: usize = 500;

/// Batches from which on a median says something.
const JUDGED: usize = 100;

/// A decorator may make a read of a real connection so many times as dear.
const BOUND: f64 = 1.10;

/// Deadlines that are never reached.
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match options(env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<usize, Error> {
    let mut reads = 1_000_000;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--reads" => reads = args.next().ok_or(HELP)?.parse()?,
            "--smoke" => reads = 10 * BATCH,
            _ => return Err(HELP.into()),
        }
    }
    Ok(reads)
}

fn run(reads: usize) -> Result<(), Error> {
    // Counters that count: those without a recorder cost nothing.
    let recorder = DebuggingRecorder::new();
    let counted = recorder.snapshotter();
    recorder.install()?;
    // One thread reads, writes and waits, so that no other's pace is in the figures.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // In a task, as in most programs: to wake a runtime's main future costs a system call.
    let all = async move {
        tokio::spawn(async move {
            println!("reads of {PAYLOAD} B, {BATCH} at a time, interleaved; medians (quartiles)");
            compare(Way::InProcess, reads).await?;
            compare(Way::Tcp, reads).await?;
            compare(Way::TcpThatWaits, reads / 10).await
        })
        .await
    };
    runtime.block_on(all)??;
    if counted.snapshot().into_vec().is_empty() {
        return Err("nothing was counted, so that the figures of Metered are wrong".into());
    }
    Ok(())
}

/// What is read, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A stream within the process that always has something.
    InProcess,
    /// A loopback connection; the data is there before it is read.
    Tcp,
    /// A loopback connection; the data comes when the reader waits for it.
    TcpThatWaits,
}

/// One decorator, or several, over a connection of its own.
struct Lane {
    name: &'static str,
    near: Box<dyn Reads>,
    far: Option<TcpStream>,
    /// Nanoseconds per read, of each batch.
    figures: Vec<f64>,
}

/// A connection as the reader sees it. The loops are in here, so that its type is known in them.
trait Reads: Send {
    /// Reads a batch that is there.
    fn batch(&mut self) -> Timed<'_>;
    /// Reads a batch, of which `far` sends the next part when the reader waits.
    fn batch_that_waits<'a>(&'a mut self, far: &'a mut TcpStream) -> Timed<'a>;
}

type Timed<'a> = Pin<Box<dyn Future<Output = io::Result<Duration>> + Send + 'a>>;

impl<C: Conn> Reads for C {
    fn batch(&mut self) -> Timed<'_> {
        Box::pin(async move {
            let mut buffer = [0; PAYLOAD];
            let start = Instant::now();
            for _ in 0..BATCH {
                let n = self.read(&mut buffer).await?;
                black_box(&buffer);
                check(n)?;
            }
            Ok(start.elapsed())
        })
    }

    fn batch_that_waits<'a>(&'a mut self, far: &'a mut TcpStream) -> Timed<'a> {
        Box::pin(async move {
            let mut buffer = [0; PAYLOAD];
            let start = Instant::now();
            for _ in 0..BATCH {
                // In this order: the reader finds nothing, then something is sent.
                let (n, sent) = tokio::join!(
                    biased;
                    self.read(&mut buffer),
                    far.write_all(&[7; PAYLOAD])
                );
                sent?;
                check(n?)?;
            }
            Ok(start.elapsed())
        })
    }
}

fn check(n: usize) -> io::Result<()> {
    if n == PAYLOAD {
        Ok(())
    } else {
        Err(io::Error::other("a read got only a part"))
    }
}

/// A lane of `way`, whose connection is wrapped with the expression.
macro_rules! lane {
    ($way:expr, $name:literal, |$conn:ident| $wrapped:expr) => {
        match $way {
            Way::InProcess => {
                let $conn = StreamConn::new(Endless, ConnInfo::memory());
                Lane::new($name, $wrapped, None)
            }
            Way::Tcp | Way::TcpThatWaits => {
                let ($conn, far) = pair().await?;
                Lane::new($name, $wrapped, Some(far))
            }
        }
    };
}

impl Lane {
    fn new(name: &'static str, near: impl Conn, far: Option<TcpStream>) -> Self {
        Self {
            name,
            near: Box::new(near),
            far,
            figures: Vec::new(),
        }
    }

    async fn run(&mut self, way: Way) -> Result<(), Error> {
        let took = match (way, &mut self.far) {
            (Way::TcpThatWaits, Some(far)) => self.near.batch_that_waits(far).await?,
            (_, Some(far)) => {
                far.write_all(&[7; PAYLOAD * BATCH]).await?;
                self.near.batch().await?
            }
            (_, None) => self.near.batch().await?,
        };
        let reads = f64::from(u32::try_from(BATCH)?);
        self.figures.push(took.as_secs_f64() * 1e9 / reads);
        Ok(())
    }

    /// The lower quartile, the median, the upper quartile.
    fn quartiles(&mut self) -> [f64; 3] {
        self.figures.sort_by(f64::total_cmp);
        let count = self.figures.len();
        [count / 4, count / 2, count * 3 / 4]
            .map(|index| self.figures.get(index).copied().unwrap_or(f64::NAN))
    }
}

async fn compare(way: Way, reads: usize) -> Result<(), Error> {
    let mut lanes = [
        lane!(way, "none", |conn| conn),
        lane!(way, "none, again", |conn| conn),
        lane!(way, "ReadDeadline", |conn| ReadDeadline::new(conn, TIMEOUT)),
        lane!(way, "ReadDeadline<WriteDeadline>", |conn| {
            ReadDeadline::new(WriteDeadline::new(conn, TIMEOUT), TIMEOUT)
        }),
        lane!(way, "Metered", |conn| Metered::new(conn)),
        lane!(way, "Stateful", |conn| Stateful::new(conn)),
        lane!(way, "all four", |conn| {
            let conn = WriteDeadline::new(conn, TIMEOUT);
            Stateful::new(Metered::new(ReadDeadline::new(conn, TIMEOUT)))
        }),
    ];
    for lane in &mut lanes {
        lane.run(way).await?;
        // What was made for the first time does not count.
        lane.figures.clear();
    }
    for _ in 0..(reads / BATCH).max(1) {
        for lane in &mut lanes {
            lane.run(way).await?;
        }
    }
    print(way, reads, &mut lanes);
    Ok(())
}

fn print(way: Way, reads: usize, lanes: &mut [Lane]) {
    let (title, bound) = match way {
        Way::InProcess => ("in process, always ready: the decorators bare", None),
        Way::Tcp => ("loopback TCP, the data is there", Some(BOUND)),
        Way::TcpThatWaits => ("loopback TCP, each read waits", Some(BOUND)),
    };
    println!("\n{title}; {reads} reads");
    println!("{:<28}{:>30}{:>10}", "", "ns per read", "ratio");
    let mut none = None;
    let mut broken = Vec::new();
    for lane in lanes {
        let [low, median, high] = lane.quartiles();
        let ratio = median / *none.get_or_insert(median);
        let figure = format!("{median:.1} ({low:.1}..{high:.1})");
        println!("{:<28}{figure:>30}{ratio:>9.3}x", lane.name);
        if bound.is_some_and(|bound| ratio > bound) {
            broken.push(lane.name);
        }
    }
    match bound {
        None => {}
        Some(_) if reads / BATCH < JUDGED => println!("too few reads to judge by"),
        Some(_) if broken.is_empty() => println!("all within the bound, {BOUND:.2}x"),
        Some(_) => println!("BROKEN, the bound of {BOUND:.2}x: {}", broken.join(", ")),
    }
}

/// Both ends of a loopback connection.
async fn pair() -> io::Result<(StreamConn<TcpStream>, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (near, far) = tokio::join!(
        TcpStream::connect(listener.local_addr()?),
        listener.accept()
    );
    let (near, (far, _)) = (near?, far?);
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let local = Address::Socket(near.local_addr()?);
    let info = ConnInfo::new(ConnKind::Tcp, local, Address::Socket(near.peer_addr()?));
    Ok((StreamConn::new(near, info), far))
}

/// A stream that always has something, as cheaply as that can be.
#[derive(Debug)]
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = buf.remaining();
        buf.initialize_unfilled().fill(7);
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(b.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
