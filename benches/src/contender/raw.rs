//! The floor: a blocking socket that writes and reads the right bytes and knows nothing of them.
//!
//! Packets are made beforehand and acknowledgements are counted by their length.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::{Error, PAYLOAD, TOPIC, Work};

pub(super) fn connect(server: SocketAddr) -> Result<TcpStream, Error> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[
        0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'r',
    ])?;
    read_exactly(&mut stream, 4)?;
    Ok(stream)
}

pub(super) fn perform(work: Work, server: SocketAddr, operations: u64) -> Result<(), Error> {
    match work {
        Work::Publish0 => publish_0(&mut connect(server)?, operations),
        Work::Publish1(in_flight) => publish_1(&mut connect(server)?, operations, in_flight.into()),
        Work::Receive0 => receive(&mut connect(server)?, operations, 0),
        Work::Receive1 => receive(&mut connect(server)?, operations, 1),
        Work::Short => {
            for _ in 0..operations {
                let mut stream = connect(server)?;
                publish_1(&mut stream, 1, 1)?;
                stream.write_all(&[0xE0, 0])?;
            }
            Ok(())
        }
        Work::Idle => Err("idle is not performed".into()),
    }
}

fn message(qos: u8) -> Vec<u8> {
    let mut body = u16::try_from(TOPIC.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
        .to_vec();
    body.extend_from_slice(TOPIC.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&[0, 1]);
    }
    body.extend_from_slice(&[1; PAYLOAD]);
    let mut packet = vec![0x30 | qos << 1, u8::try_from(body.len()).unwrap_or(0x7F)];
    packet.append(&mut body);
    packet
}

fn publish_0(stream: &mut TcpStream, operations: u64) -> Result<(), Error> {
    let message = message(0);
    let many = message.repeat(500);
    for _ in 0..operations / 500 {
        stream.write_all(&many)?;
    }
    stream.write_all(&message.repeat(usize::try_from(operations % 500)?))?;
    publish_1(stream, 1, 1)
}

fn publish_1(stream: &mut TcpStream, operations: u64, in_flight: u64) -> Result<(), Error> {
    let message = message(1);
    let many = message.repeat(usize::try_from(in_flight)?);
    let mut left = operations;
    while left > 0 {
        let n = left.min(in_flight);
        let len = message.len() * usize::try_from(n)?;
        stream.write_all(many.get(..len).unwrap_or_default())?;
        read_exactly(stream, 4 * usize::try_from(n)?)?;
        left -= n;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, operations: u64, qos: u8) -> Result<(), Error> {
    let filter = format!("source/{operations}");
    let mut subscribe = vec![
        0x82,
        u8::try_from(filter.len() + 5)?,
        0,
        1,
        0,
        u8::try_from(filter.len())?,
    ];
    subscribe.extend_from_slice(filter.as_bytes());
    subscribe.push(qos);
    stream.write_all(&subscribe)?;
    read_exactly(stream, 5)?;
    let message_len = 4 + filter.len() + 2 * usize::from(qos) + PAYLOAD;
    let mut buffer = vec![0; 64 * 1024];
    let (mut bytes, mut messages) = (0, 0);
    let acks = [0x40, 2, 0, 1].repeat(buffer.len() / message_len + 1);
    while messages < usize::try_from(operations)? {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err("the server closed".into());
        }
        bytes += n;
        let complete = bytes / message_len - messages;
        if qos > 0 {
            stream.write_all(acks.get(..4 * complete).unwrap_or_default())?;
        }
        messages += complete;
    }
    Ok(())
}

fn read_exactly(stream: &mut TcpStream, mut n: usize) -> Result<(), Error> {
    let mut buffer = [0; 4096];
    while n > 0 {
        let want = n.min(buffer.len());
        let read = stream.read(buffer.get_mut(..want).unwrap_or_default())?;
        if read == 0 {
            return Err("the server closed".into());
        }
        n -= read;
    }
    Ok(())
}
