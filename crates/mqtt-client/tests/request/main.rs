//! Requests and their replies, and those who answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod making;
mod matching;
mod reconnecting;
mod responding;
mod room;
mod servers;
mod wakers;

use std::time::Duration;

use bytes::Bytes;
use common::{config, open};
use mqtt_client::{
    Message, QoS, Request, Requester, RequesterConfig, Session, SessionConfig, TopicName, Version,
    proto::packet::{Packet, Publish},
};
use mqtt_testkit::ScriptedServer;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn request() -> Request {
    Request::new("ask", "question").unwrap()
}

/// A requester with these options, whose session ends with its connection.
pub(crate) async fn requester(options: RequesterConfig) -> (Requester, Session, ScriptedServer) {
    let (session, mut server) = open(config(Version::V5)).await;
    let requester = make(&session, &mut server, options).await;
    (requester, session, server)
}

pub(crate) async fn make(
    session: &Session,
    server: &mut ScriptedServer,
    options: RequesterConfig,
) -> Requester {
    let (requester, subscribe) = tokio::join!(session.requester(options), server.grant());
    let requester = requester.unwrap();
    assert_eq!(
        subscribe.filters.first().unwrap().filter.as_str(),
        requester.response_topic().as_str()
    );
    requester
}

/// What a request says of its reply.
pub(crate) struct Address {
    pub(crate) response_topic: TopicName,
    pub(crate) correlation_data: Bytes,
}

impl Address {
    pub(crate) fn of(request: &Publish) -> Self {
        let properties = &request.message.properties;
        Self {
            response_topic: properties.response_topic.clone().unwrap(),
            correlation_data: properties.correlation_data.clone().unwrap().into_bytes(),
        }
    }
}

/// The next request, acknowledged if it wants that.
pub(crate) async fn asked(server: &mut ScriptedServer) -> Address {
    let request = server.expect_publish().await;
    if let Some(id) = request.packet_id {
        server.puback(id).await;
    }
    Address::of(&request)
}

pub(crate) async fn reply(server: &mut ScriptedServer, address: &Address, payload: &str) {
    let mut message = Message::new(&address.response_topic, payload.to_owned()).unwrap();
    message.qos = QoS::AtMostOnce;
    let data = address.correlation_data.clone();
    message.properties.correlation_data = Some(mqtt_client::proto::BinaryData::new(data).unwrap());
    send(server, message).await;
}

pub(crate) async fn send(server: &mut ScriptedServer, message: Message) {
    server
        .send(Packet::Publish(Publish {
            message,
            packet_id: None,
            dup: false,
        }))
        .await;
}

/// A session that outlives its connections.
pub(crate) fn lasting() -> SessionConfig {
    SessionConfig::new("gateway").with_reconnect(Some(
        mqtt_client::ReconnectConfig::default().with_jitter(Duration::ZERO),
    ))
}
