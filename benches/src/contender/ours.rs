//! This project's client, as its documentation has it: a publisher for each task, each awaiting the
//! outcome of its message before the next.

use std::net::SocketAddr;

use bytes::Bytes;
use mqtt_client::{
    Endpoint, Message, Publish, QoS, Session, SessionConfig, SessionConnector, Subscribe,
    TopicName, Version,
};
use tokio::task::JoinSet;

use crate::{Error, PAYLOAD, TOPIC, WINDOW, Work};

fn connector(version: Version) -> Result<SessionConnector, Error> {
    let config = SessionConfig::new("bench")
        .with_version(version)
        .with_max_in_flight(WINDOW);
    Ok(SessionConnector::new(config)?)
}

fn endpoint(server: SocketAddr) -> Result<Endpoint, Error> {
    Ok(format!("mqtt://{server}").parse()?)
}

/// Opens sessions as a process does that has one for each of its devices: of one connector, each
/// under a name of its own.
pub(super) struct Opener {
    connector: SessionConnector,
    endpoint: Endpoint,
}

impl Opener {
    pub(super) fn new(version: Version, server: SocketAddr) -> Result<Self, Error> {
        Ok(Self {
            connector: connector(version)?,
            endpoint: endpoint(server)?,
        })
    }

    pub(super) async fn open(&self, number: u64) -> Result<Session, Error> {
        let connector = self.connector.with_client_id(format!("bench-{number}"))?;
        Ok(connector.connect(self.endpoint.clone()).await?)
    }
}

async fn connect(version: Version, server: SocketAddr) -> Result<Session, Error> {
    Ok(connector(version)?.connect(endpoint(server)?).await?)
}

/// Makes the same message again and again: a topic that was parsed once, a shared payload.
#[derive(Clone)]
struct Messages {
    message: Message,
}

impl Messages {
    fn new(qos: QoS) -> Result<Self, Error> {
        let message =
            Message::new(TopicName::new(TOPIC)?, Bytes::from(vec![1; PAYLOAD]))?.with_qos(qos);
        Ok(Self { message })
    }

    fn next(&self) -> Publish {
        self.message.clone().into()
    }
}

pub(super) async fn perform(
    version: Version,
    work: Work,
    server: SocketAddr,
    operations: u64,
) -> Result<(), Error> {
    match work {
        Work::Publish0 => {
            let session = connect(version, server).await?;
            let publisher = session.publisher();
            let messages = Messages::new(QoS::AtMostOnce)?;
            for _ in 1..operations {
                publisher.publish(messages.next()).await?;
            }
            publisher
                .publish(Messages::new(QoS::AtLeastOnce)?.next())
                .await?;
        }
        Work::Publish1(in_flight) => {
            let session = connect(version, server).await?;
            let messages = Messages::new(QoS::AtLeastOnce)?;
            let mut tasks = JoinSet::new();
            let in_flight = u64::from(in_flight);
            for task in 0..in_flight {
                let publisher = session.publisher();
                let messages = messages.clone();
                let share = operations / in_flight + u64::from(task < operations % in_flight);
                tasks.spawn(async move {
                    for _ in 0..share {
                        publisher.publish(messages.next()).await?;
                    }
                    Ok::<_, Error>(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
        }
        Work::Receive0 => receive(version, server, operations, QoS::AtMostOnce).await?,
        Work::Receive1 => receive(version, server, operations, QoS::AtLeastOnce).await?,
        Work::Short => {
            let (connector, endpoint) = (connector(version)?, endpoint(server)?);
            let messages = Messages::new(QoS::AtLeastOnce)?;
            for _ in 0..operations {
                let session = connector.connect(endpoint.clone()).await?;
                session.publish(messages.next()).await?;
                session.disconnect().await?;
            }
        }
        Work::Idle => return Err("idle is not performed".into()),
    }
    Ok(())
}

async fn receive(
    version: Version,
    server: SocketAddr,
    operations: u64,
    qos: QoS,
) -> Result<(), Error> {
    let session = connect(version, server).await?;
    let subscribe = Subscribe::new(format!("source/{operations}"))?.with_qos(qos);
    let mut messages = session.subscribe(subscribe).await?;
    for received in 0..operations {
        if received + 1 == operations && messages.dropped() > 0 {
            return Err(format!("{} messages were dropped", messages.dropped()).into());
        }
        messages
            .recv()
            .await
            .ok_or("the connection has ended, or a message was dropped")?;
    }
    Ok(())
}
