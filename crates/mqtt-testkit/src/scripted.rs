//! A server that does what a test says, packet by packet, over any stream.
//!
//! A test reads as a conversation: what the server expects, what it answers. It keeps no state and
//! no rules of its own, so it can misbehave in every way a test wants to see survived.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else comes fails the test"
)]

use std::{fmt::Debug, time::Duration};

use bytes::BytesMut;
use mqtt_proto::{
    Decoder, Message, PacketId, QoS, ReasonCode, Version,
    codec::MAX_PACKET_SIZE,
    packet::{
        Ack, ConnAck, Connect, Disconnect, Packet, Publish, SubAck, Subscribe, UnsubAck,
        Unsubscribe,
    },
};
use mqtt_transport::{ConnInfo, Endpoint, StreamConn};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// How long the server waits for what it expects before the test fails. On tokio's clock, so that
/// a paused test waits no real time.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server's end of one connection. Its methods panic, with what came instead, when the client
/// does not do what is expected.
#[derive(Debug)]
pub struct ScriptedServer<S = DuplexStream> {
    stream: S,
    decoder: Decoder,
    read: BytesMut,
    input: bytes::Bytes,
    version: Version,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Debug> ScriptedServer<S> {
    /// Serves the client at the other end of `stream`.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::new(Version::V5, MAX_PACKET_SIZE),
            read: BytesMut::new(),
            input: bytes::Bytes::new(),
            version: Version::V5,
        }
    }

    /// The next packet, or `None` if the client has closed.
    pub async fn next(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.read_packet())
            .await
            .expect("the client sends nothing")
    }

    /// The same, however long it takes: for a server of many that are not expected to do anything.
    pub async fn next_patiently(&mut self) -> Option<Packet> {
        self.read_packet().await
    }

    async fn read_packet(&mut self) -> Option<Packet> {
        loop {
            if !self.input.is_empty()
                && let Some(packet) = self
                    .decoder
                    .decode(&mut self.input)
                    .expect("the client sends packets")
            {
                return Some(packet);
            }
            // A reset is one way to close.
            if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                return None;
            }
            self.input = self.read.split().freeze();
        }
    }

    /// The next packet.
    pub async fn recv(&mut self) -> Packet {
        self.next().await.expect("the client has closed")
    }

    /// That the client closes, having sent no more packets.
    pub async fn expect_closed(&mut self) {
        if let Some(packet) = self.next().await {
            panic!("expected the client to close, got {packet:?}");
        }
    }

    /// That the client sends nothing for `duration`.
    pub async fn expect_silence(&mut self, duration: Duration) {
        if let Ok(packet) = timeout(duration, self.read_packet()).await {
            panic!("expected silence, got {packet:?}");
        }
    }

    /// CONNECT; from here on the server speaks its version.
    pub async fn expect_connect(&mut self) -> Connect {
        match self.recv().await {
            Packet::Connect(connect) => {
                self.version = connect.version;
                *connect
            }
            packet => panic!("expected CONNECT, got {packet:?}"),
        }
    }

    /// CONNECT, and a CONNACK that accepts it with a new session.
    pub async fn accept(&mut self) -> Connect {
        self.accept_with(ConnAck::accepted()).await
    }

    /// CONNECT, and this CONNACK.
    pub async fn accept_with(&mut self, connack: ConnAck) -> Connect {
        let connect = self.expect_connect().await;
        self.send(Packet::ConnAck(connack)).await;
        connect
    }

    /// PUBLISH.
    pub async fn expect_publish(&mut self) -> Publish {
        match self.recv().await {
            Packet::Publish(publish) => publish,
            packet => panic!("expected PUBLISH, got {packet:?}"),
        }
    }

    /// SUBSCRIBE.
    pub async fn expect_subscribe(&mut self) -> Subscribe {
        match self.recv().await {
            Packet::Subscribe(subscribe) => subscribe,
            packet => panic!("expected SUBSCRIBE, got {packet:?}"),
        }
    }

    /// SUBSCRIBE, granted as asked.
    pub async fn grant(&mut self) -> Subscribe {
        let subscribe = self.expect_subscribe().await;
        let grants = subscribe
            .filters
            .iter()
            .map(|filter| ReasonCode::new(filter.options.qos.bits()))
            .collect();
        self.suback(subscribe.packet_id, grants).await;
        subscribe
    }

    /// UNSUBSCRIBE.
    pub async fn expect_unsubscribe(&mut self) -> Unsubscribe {
        match self.recv().await {
            Packet::Unsubscribe(unsubscribe) => unsubscribe,
            packet => panic!("expected UNSUBSCRIBE, got {packet:?}"),
        }
    }

    /// PUBACK for this identifier.
    pub async fn expect_puback(&mut self, packet_id: u16) {
        match self.recv().await {
            Packet::PubAck(ack) if ack.packet_id.value() == packet_id => {}
            packet => panic!("expected PUBACK {packet_id}, got {packet:?}"),
        }
    }

    /// DISCONNECT.
    pub async fn expect_disconnect(&mut self) -> Disconnect {
        match self.recv().await {
            Packet::Disconnect(disconnect) => disconnect,
            packet => panic!("expected DISCONNECT, got {packet:?}"),
        }
    }

    /// Sends a packet.
    pub async fn send(&mut self, packet: Packet) {
        let mut bytes = Vec::new();
        packet
            .encode(self.version, &mut bytes)
            .expect("the server sends packets");
        self.send_bytes(&bytes).await;
    }

    /// Sends bytes, whatever they are.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .await
            .expect("the client has closed");
        self.stream.flush().await.expect("the client has closed");
    }

    /// PUBACK.
    pub async fn puback(&mut self, packet_id: PacketId) {
        self.send(Packet::PubAck(Ack::new(packet_id))).await;
    }

    /// SUBACK.
    pub async fn suback(&mut self, packet_id: PacketId, reason_codes: Vec<ReasonCode>) {
        self.send(Packet::SubAck(SubAck {
            packet_id,
            reason_codes,
            properties: Default::default(),
        }))
        .await;
    }

    /// UNSUBACK: success for each of `filters`.
    pub async fn unsuback(&mut self, packet_id: PacketId, filters: usize) {
        let reason_codes = vec![ReasonCode::SUCCESS; filters];
        self.send(Packet::UnsubAck(UnsubAck {
            packet_id,
            reason_codes,
            properties: Default::default(),
        }))
        .await;
    }

    /// A message to the client; `packet_id` is 0 at QoS 0.
    pub async fn publish(
        &mut self,
        topic: &str,
        payload: impl Into<bytes::Bytes>,
        qos: QoS,
        packet_id: u16,
    ) {
        let message = Message::new(topic, payload).expect("a topic").with_qos(qos);
        self.send(Packet::Publish(Publish {
            message,
            packet_id: PacketId::new(packet_id),
            dup: false,
        }))
        .await;
    }

    /// Answers requests as a server would that wants nothing itself, until the client leaves.
    ///
    /// Returns the messages the client published, in the order of their first arrival.
    pub async fn serve(&mut self) -> Vec<Message> {
        let mut published = Vec::new();
        while let Some(packet) = self.next().await {
            match packet {
                Packet::Publish(publish) => {
                    match (publish.message.qos, publish.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => self.puback(id).await,
                        (QoS::ExactlyOnce, Some(id)) => {
                            self.send(Packet::PubRec(Ack::new(id))).await
                        }
                        _ => {}
                    }
                    if !publish.dup {
                        published.push(publish.message);
                    }
                }
                Packet::PubRel(ack) => self.send(Packet::PubComp(Ack::new(ack.packet_id))).await,
                Packet::Subscribe(subscribe) => {
                    let grants = vec![ReasonCode::SUCCESS; subscribe.filters.len()];
                    self.suback(subscribe.packet_id, grants).await;
                }
                Packet::Unsubscribe(unsubscribe) => {
                    self.unsuback(unsubscribe.packet_id, unsubscribe.filters.len())
                        .await;
                }
                Packet::PingReq => self.send(Packet::PingResp).await,
                Packet::Disconnect(_) => break,
                _ => {}
            }
        }
        published
    }

    /// The stream, to treat as one likes.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// The stream, to read and write beside the packets.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

/// Bytes that fit into an in-memory connection before its writer must wait.
const PIPE: usize = 64 * 1024;

/// Connections in memory: what the connector dials comes out of the listener.
pub fn memory() -> (MemoryConnector, MemoryListener) {
    memory_with_capacity(PIPE)
}

/// The same, with room for so many bytes each way.
pub fn memory_with_capacity(capacity: usize) -> (MemoryConnector, MemoryListener) {
    let (dialled, accepted) = mpsc::channel(1024);
    (
        MemoryConnector { dialled, capacity },
        MemoryListener { accepted },
    )
}

/// Dials into a [`MemoryListener`], whatever the endpoint.
#[derive(Clone, Debug)]
pub struct MemoryConnector {
    dialled: mpsc::Sender<DuplexStream>,
    capacity: usize,
}

impl tower_service::Service<Endpoint> for MemoryConnector {
    type Response = StreamConn<DuplexStream>;
    type Error = mqtt_transport::ConnectError;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Endpoint) -> Self::Future {
        let dialled = self.dialled.clone();
        let (near, far) = tokio::io::duplex(self.capacity);
        Box::pin(async move {
            dialled.send(far).await.map_err(|_| refused(&endpoint))?;
            Ok(StreamConn::new(near, ConnInfo::memory()))
        })
    }
}

fn refused(endpoint: &Endpoint) -> mqtt_transport::ConnectError {
    let source = std::io::ErrorKind::ConnectionRefused.into();
    mqtt_transport::ConnectError::new(mqtt_transport::ConnectPhase::Dial, endpoint, source)
}

/// Accepts what a [`MemoryConnector`] dials.
#[derive(Debug)]
pub struct MemoryListener {
    accepted: mpsc::Receiver<DuplexStream>,
}

impl MemoryListener {
    /// The next connection.
    pub async fn accept(&mut self) -> ScriptedServer {
        let stream = timeout(PATIENCE, self.accepted.recv())
            .await
            .expect("nobody dials");
        ScriptedServer::over(stream.expect("the connector is in use"))
    }

    /// The same, however long it takes; never, if the connector is gone.
    pub async fn accept_patiently(&mut self) -> ScriptedServer {
        match self.accepted.recv().await {
            Some(stream) => ScriptedServer::over(stream),
            None => std::future::pending().await,
        }
    }
}

/// A listener on 127.0.0.1 whose connections are scripted.
#[derive(Debug)]
pub struct ScriptedListener {
    listener: TcpListener,
}

impl ScriptedListener {
    /// Listens on a port the system chooses.
    pub async fn bind() -> std::io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(("127.0.0.1", 0)).await?,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        let address = self
            .listener
            .local_addr()
            .expect("a bound listener has an address");
        format!("mqtt://{address}")
    }

    /// The next connection.
    pub async fn accept(&self) -> ScriptedServer<TcpStream> {
        let accepted = timeout(PATIENCE, self.listener.accept())
            .await
            .expect("nobody dials");
        ScriptedServer::over(accepted.expect("a listener accepts").0)
    }
}
