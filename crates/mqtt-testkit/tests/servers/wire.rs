//! A client in a hundred lines: just enough bytes of MQTT to see that a server serves.
#![allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of it is test code, where a panic is a failed test"
)]

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// What any answer may take; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBSCRIBE: u8 = 0x82;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const PINGRESP: u8 = 0xd0;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Version {
    V311 = 4,
    V5 = 5,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

async fn dial(url: &str) -> std::io::Result<Box<dyn Stream>> {
    if let Some(path) = url.strip_prefix("unix://") {
        Ok(Box::new(UnixStream::connect(path).await?))
    } else {
        let addr = url.strip_prefix("mqtt://").expect("a known scheme");
        Ok(Box::new(TcpStream::connect(addr).await?))
    }
}

/// Waits until nobody listens there any more. A socket that this process has closed may live on for
/// a moment in a child that is just being spawned.
pub(crate) async fn refused(url: &str) {
    tokio::time::timeout(PATIENCE, async {
        while dial(url).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("refused in time");
}

pub(crate) struct Client {
    stream: BufReader<Box<dyn Stream>>,
    version: Version,
    pub(crate) session_present: bool,
    /// Properties of the CONNACK, none in 3.1.1.
    pub(crate) connack_properties: Vec<u8>,
}

impl Client {
    /// With a clean start and a session that ends with the connection.
    pub(crate) async fn connect(url: &str, version: Version, id: &str) -> Self {
        Self::open(url, version, id, true).await
    }

    /// Takes up the session if the server has one, and leaves one behind.
    pub(crate) async fn resume(url: &str, version: Version, id: &str) -> Self {
        Self::open(url, version, id, false).await
    }

    async fn open(url: &str, version: Version, id: &str, clean: bool) -> Self {
        let stream = dial(url).await.unwrap();
        let mut client = Self {
            stream: BufReader::new(stream),
            version,
            session_present: false,
            connack_properties: Vec::new(),
        };
        let mut body = b"\0\x04MQTT".to_vec();
        // Protocol level, connect flags, no keep-alive.
        body.extend([version as u8, u8::from(clean) << 1, 0, 0]);
        if version == Version::V5 {
            let expiry: &[u8] = if clean {
                &[]
            } else {
                &[0x11, 0xff, 0xff, 0xff, 0xff]
            };
            body.push(u8::try_from(expiry.len()).unwrap());
            body.extend(expiry);
        }
        body.extend(string(id));
        client.send(&packet(0x10, &body)).await;
        let connack = client.expect(CONNACK).await;
        assert_eq!(connack[1], 0, "accepted");
        client.session_present = connack[0] == 1;
        client.connack_properties = connack[2..].to_vec();
        client
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1];
        body.extend(self.no_properties());
        body.extend(string(filter));
        body.push(qos);
        self.send(&packet(SUBSCRIBE, &body)).await;
        let suback = self.expect(SUBACK).await;
        assert_eq!(suback.last(), Some(&qos), "granted");
    }

    pub(crate) fn publish(&self, topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
        let mut body = string(topic);
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        body.extend(self.no_properties());
        body.extend(payload);
        packet(PUBLISH | qos << 1, &body)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn ping(&mut self) {
        self.send(&packet(0xc0, &[])).await;
        self.expect(PINGRESP).await;
    }

    /// The body of the next packet, which must be of this kind (flags of PUBLISH apart).
    pub(crate) async fn expect(&mut self, kind: u8) -> Vec<u8> {
        let (first, body) = self.read().await;
        assert_eq!(first & 0xf0, kind & 0xf0, "{first:#04x} {body:?}");
        body
    }

    pub(crate) async fn read(&mut self) -> (u8, Vec<u8>) {
        tokio::time::timeout(PATIENCE, self.read_packet())
            .await
            .expect("an answer in time")
            .unwrap()
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let wait = Duration::from_millis(200);
        tokio::time::timeout(wait, self.stream.read_u8())
            .await
            .is_err()
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        tokio::time::timeout(PATIENCE, async {
            // A DISCONNECT may come first.
            while self.read_packet().await.is_ok() {}
        })
        .await
        .expect("closed in time");
    }

    async fn read_packet(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok((first, body))
    }

    fn no_properties(&self) -> &'static [u8] {
        match self.version {
            Version::V311 => &[],
            Version::V5 => &[0],
        }
    }
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap();
        length >>= 7;
        bytes.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// Publishes to itself, once with each quality of service.
pub(crate) async fn converse(url: &str, version: Version) {
    let mut client = Client::connect(url, version, "converse").await;
    client.subscribe("a/+", 0).await;

    let publish = client.publish("a/0", 0, 0, b"zero");
    client.send(&publish).await;
    assert!(client.expect(PUBLISH).await.ends_with(b"zero"));

    let publish = client.publish("a/1", 1, 7, b"one");
    client.send(&publish).await;
    // The acknowledgement and the message come in either order.
    let mut answers = [client.read().await, client.read().await];
    answers.sort();
    assert!(answers[0].1.ends_with(b"one"), "{answers:?}");
    assert_eq!((answers[1].0, &answers[1].1[..2]), (PUBACK, &[0, 7][..]));

    let publish = client.publish("b/2", 2, 8, b"two");
    client.send(&publish).await;
    assert_eq!(client.expect(PUBREC).await[..2], [0, 8]);
    client.send(&packet(PUBREL, &[0, 8])).await;
    assert_eq!(client.expect(PUBCOMP).await[..2], [0, 8]);
}

/// Leaves a session with a subscription, has a message sent to it meanwhile, and comes back for it.
/// `between` runs while the session is away.
pub(crate) async fn leave_and_come_back(url: &str, version: Version, between: impl AsyncFnOnce()) {
    let mut subscriber = Client::resume(url, version, "sleeper").await;
    assert!(!subscriber.session_present);
    subscriber.subscribe("news", 1).await;
    drop(subscriber);

    let mut publisher = Client::connect(url, version, "publisher").await;
    let publish = publisher.publish("news", 1, 1, b"while you were away");
    publisher.send(&publish).await;
    publisher.expect(PUBACK).await;
    // Mosquitto acknowledges before it saves, and has saved before it answers anything further.
    publisher.ping().await;
    drop(publisher);

    between().await;

    let mut subscriber = Client::resume(url, version, "sleeper").await;
    assert!(subscriber.session_present);
    let message = subscriber.expect(PUBLISH).await;
    assert!(message.ends_with(b"while you were away"));

    // Leave no session behind for the next version.
    drop(subscriber);
    Client::connect(url, version, "sleeper").await;
}

/// More messages of QoS 1 than either server keeps for an absent client unless it is told to.
pub(crate) async fn queue_for_the_absent(url: &str, version: Version) {
    const COUNT: u16 = 12_000;
    const BATCH: u16 = 500;
    let mut subscriber = Client::resume(url, version, "absent").await;
    subscriber.subscribe("queue", 1).await;
    drop(subscriber);

    let mut publisher = Client::connect(url, version, "publisher").await;
    for batch in 0..COUNT / BATCH {
        let ids = batch * BATCH + 1..=(batch + 1) * BATCH;
        let bytes: Vec<u8> = ids
            .flat_map(|id| publisher.publish("queue", 1, id, &id.to_be_bytes()))
            .collect();
        publisher.send(&bytes).await;
        for _ in 0..BATCH {
            publisher.expect(PUBACK).await;
        }
    }

    let mut subscriber = Client::resume(url, version, "absent").await;
    assert!(subscriber.session_present);
    for n in 1..=COUNT {
        let message = subscriber.expect(PUBLISH).await;
        assert!(message.ends_with(&n.to_be_bytes()), "message {n}");
        subscriber.send(&packet(PUBACK, &message[7..9])).await;
    }
    drop(subscriber);
    Client::connect(url, version, "absent").await;
}

/// A subscriber that acknowledges nothing is sent `window` messages of QoS 1 and no more.
pub(crate) async fn fill_window(url: &str, version: Version, window: u16) {
    let mut subscriber = Client::connect(url, version, "silent").await;
    subscriber.subscribe("w", 1).await;
    let mut publisher = Client::connect(url, version, "publisher").await;
    for id in 1..=window + 10 {
        let publish = publisher.publish("w", 1, id, b"x");
        publisher.send(&publish).await;
        publisher.expect(PUBACK).await;
    }
    for _ in 0..window {
        subscriber.expect(PUBLISH).await;
    }
    assert!(subscriber.is_quiet().await, "more than the window");
}

/// Thousands of QoS 2 messages, all started before the first is finished, from one client to another.
pub(crate) async fn flood_exactly_once(url: &str, version: Version) {
    const COUNT: u16 = 3000;
    let mut subscriber = Client::connect(url, version, "subscriber").await;
    subscriber.subscribe("flood", 2).await;
    let mut publisher = Client::connect(url, version, "publisher").await;

    let receiving = tokio::spawn(async move {
        let mut received = 0;
        let mut finished = 0;
        while finished < COUNT {
            let (first, body) = subscriber.read().await;
            match first & 0xf0 {
                PUBLISH => {
                    received += 1;
                    // The identifier follows the topic.
                    subscriber.send(&packet(PUBREC, &body[7..9])).await;
                }
                0x60 => {
                    finished += 1;
                    subscriber.send(&packet(PUBCOMP, &body[..2])).await;
                }
                _ => panic!("{first:#04x} {body:?}"),
            }
        }
        received
    });

    // As many at once as either server takes; the next follows each that is finished.
    let mut next = 1;
    let mut unfinished = 0;
    let mut finished = 0;
    while finished < COUNT {
        while unfinished < 1000 && next <= COUNT {
            let publish = publisher.publish("flood", 2, next, b"x");
            publisher.send(&publish).await;
            next += 1;
            unfinished += 1;
        }
        let (first, body) = publisher.read().await;
        match first {
            PUBREC => publisher.send(&packet(PUBREL, &body[..2])).await,
            PUBCOMP => {
                finished += 1;
                unfinished -= 1;
            }
            _ => panic!("{first:#04x} {body:?}"),
        }
    }
    assert_eq!(receiving.await.unwrap(), COUNT, "each once");
}

/// 40,000 messages of QoS 0, eight megabytes and thus more than the sockets hold, to a subscriber
/// that looks only afterwards.
pub(crate) async fn burst_at_most_once(url: &str, version: Version) {
    const COUNT: usize = 40_000;
    let mut subscriber = Client::connect(url, version, "subscriber").await;
    subscriber.subscribe("burst", 0).await;
    let mut publisher = Client::connect(url, version, "publisher").await;
    let burst = publisher.publish("burst", 0, 0, &[7; 200]).repeat(1000);
    for _ in 0..COUNT / 1000 {
        publisher.send(&burst).await;
    }
    // Served in order, so that its acknowledgement says that the burst has been taken in.
    let publish = publisher.publish("other", 1, 1, b"");
    publisher.send(&publish).await;
    publisher.expect(PUBACK).await;
    for n in 0..COUNT {
        let message = tokio::time::timeout(Duration::from_secs(5), subscriber.read()).await;
        assert!(message.is_ok(), "message {n} of {COUNT} is missing");
    }
}
