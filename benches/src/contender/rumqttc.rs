//! rumqttc 0.25, MQTT 3.1.1, in its best configuration: the window as wide as the work's, a request
//! channel large enough not to be waited for, packets of any size, and its event loop polled by the
//! task that waits for the outcome, so that no event crosses a channel.
//!
//! It does not tell which publish an acknowledgement belongs to, so operations are counted.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

use crate::{Error, PAYLOAD, TOPIC, WINDOW, Work};

/// Requests that fit its channel.
const CHANNEL: usize = 1000;

fn client(server: SocketAddr, in_flight: u16) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new("bench", server.ip().to_string(), server.port());
    options.set_inflight(in_flight);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_max_packet_size(1024 * 1024, 1024 * 1024);
    AsyncClient::new(options, CHANNEL)
}

async fn connect(server: SocketAddr, in_flight: u16) -> Result<(AsyncClient, EventLoop), Error> {
    let (client, mut events) = client(server, in_flight);
    await_packet(&mut events, |packet| matches!(packet, Packet::ConnAck(_))).await?;
    Ok((client, events))
}

/// An idle client with default options, its event loop in a task.
pub(super) async fn hold(server: SocketAddr) -> Result<AsyncClient, Error> {
    let options = MqttOptions::new("bench", server.ip().to_string(), server.port());
    let (client, mut events) = AsyncClient::new(options, 10);
    await_packet(&mut events, |packet| matches!(packet, Packet::ConnAck(_))).await?;
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    Ok(client)
}

async fn await_packet(
    events: &mut EventLoop,
    wanted: impl Fn(&Packet) -> bool,
) -> Result<(), Error> {
    loop {
        if let Event::Incoming(packet) = events.poll().await?
            && wanted(&packet)
        {
            return Ok(());
        }
    }
}

async fn publish(client: &AsyncClient, qos: QoS, payload: &Bytes) -> Result<(), Error> {
    Ok(client
        .publish_bytes(TOPIC, qos, false, payload.clone())
        .await?)
}

pub(super) async fn perform(work: Work, server: SocketAddr, operations: u64) -> Result<(), Error> {
    let payload = Bytes::from(vec![1; PAYLOAD]);
    let is_puback = |packet: &Packet| matches!(packet, Packet::PubAck(_));
    match work {
        Work::Publish0 => {
            let (client, mut events) = connect(server, WINDOW).await?;
            tokio::spawn(async move {
                for _ in 1..operations {
                    publish(&client, QoS::AtMostOnce, &payload).await?;
                }
                publish(&client, QoS::AtLeastOnce, &payload).await
            });
            await_packet(&mut events, is_puback).await
        }
        Work::Publish1(1) => {
            let (client, mut events) = connect(server, 1).await?;
            for _ in 0..operations {
                publish(&client, QoS::AtLeastOnce, &payload).await?;
                await_packet(&mut events, is_puback).await?;
            }
            Ok(())
        }
        Work::Publish1(in_flight) => {
            let (client, mut events) = connect(server, in_flight).await?;
            tokio::spawn(async move {
                for _ in 0..operations {
                    publish(&client, QoS::AtLeastOnce, &payload).await?;
                }
                Ok::<_, Error>(())
            });
            for _ in 0..operations {
                await_packet(&mut events, is_puback).await?;
            }
            Ok(())
        }
        Work::Receive0 => receive(server, operations, QoS::AtMostOnce).await,
        Work::Receive1 => receive(server, operations, QoS::AtLeastOnce).await,
        Work::Short => {
            for _ in 0..operations {
                let (client, mut events) = connect(server, 1).await?;
                publish(&client, QoS::AtLeastOnce, &payload).await?;
                await_packet(&mut events, is_puback).await?;
                client.disconnect().await?;
                // The event that the DISCONNECT was written.
                events.poll().await?;
            }
            Ok(())
        }
        Work::Idle => Err("idle is not performed".into()),
    }
}

async fn receive(server: SocketAddr, operations: u64, qos: QoS) -> Result<(), Error> {
    let (client, mut events) = connect(server, WINDOW).await?;
    client
        .subscribe(format!("source/{operations}"), qos)
        .await?;
    for _ in 0..operations {
        await_packet(&mut events, |packet| matches!(packet, Packet::Publish(_))).await?;
    }
    Ok(())
}
