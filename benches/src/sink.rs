//! The counterparty: a server that answers as cheaply as a correct answer can be made.
//!
//! It looks at packet types, identifiers and lengths only, and answers everything that came in one
//! read with one write. A subscription to `source/N` makes it send N messages of 64 B, as fast as
//! the socket takes them; at QoS 1 at most a window of them is unacknowledged.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use crate::{PAYLOAD, WINDOW};

/// Serves connections until the process ends, after printing the port.
pub fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        // A small stack: a thousand idle connections have one each.
        thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(move || {
                // The end of a connection is its client's business.
                let _ = Connection {
                    stream,
                    version: 4,
                    answers: Vec::new(),
                }
                .serve();
            })?;
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    /// The protocol level of CONNECT.
    version: u8,
    answers: Vec<u8>,
}

impl Connection {
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        let mut filled = 0;
        loop {
            let n = self
                .stream
                .read(buffer.get_mut(filled..).unwrap_or_default())?;
            if n == 0 {
                return Ok(());
            }
            filled += n;
            let mut at = 0;
            while let Some(packet) = next_packet(buffer.get(at..filled).unwrap_or_default()) {
                if !self.answer(&packet)? {
                    return Ok(());
                }
                at += packet.len;
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
            self.stream.write_all(&self.answers)?;
            self.answers.clear();
        }
    }

    /// False when the client leaves.
    fn answer(&mut self, packet: &Packet<'_>) -> io::Result<bool> {
        let five = self.version == 5;
        match (packet.first >> 4, packet.body) {
            (1, &[_, _, _, _, _, _, version, ..]) => {
                self.version = version;
                let connack: &[u8] = if version == 5 {
                    &[0x20, 3, 0, 0, 0]
                } else {
                    &[0x20, 2, 0, 0]
                };
                self.answers.extend_from_slice(connack);
            }
            (3, &[high, low, ref rest @ ..]) if packet.first & 0b0110 != 0 => {
                if let Some(&[a, b]) = rest
                    .get(usize::from(u16::from_be_bytes([high, low]))..)
                    .and_then(<[u8]>::first_chunk)
                {
                    self.answers.extend_from_slice(&[0x40, 2, a, b]);
                }
            }
            (8, &[a, b, ref rest @ ..]) => {
                let rest = if five {
                    rest.get(1..).unwrap_or_default()
                } else {
                    rest
                };
                let qos = rest.last().copied().unwrap_or(0) & 3;
                let filter = rest.get(2..rest.len() - 1).unwrap_or_default();
                let suback: &[u8] = if five {
                    &[0x90, 4, a, b, 0, qos]
                } else {
                    &[0x90, 3, a, b, qos]
                };
                self.answers.extend_from_slice(suback);
                self.stream.write_all(&self.answers)?;
                self.answers.clear();
                let count = filter
                    .strip_prefix(b"source/")
                    .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok());
                match (count, qos) {
                    (Some(count), 0) => self.send_at_qos_0(filter, count)?,
                    (Some(count), _) => self.send_at_qos_1(filter, count)?,
                    (None, _) => {}
                }
            }
            (12, _) => self.answers.extend_from_slice(&[0xD0, 0]),
            (14, _) => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    /// A PUBLISH, and where its packet identifier is.
    fn message(&self, topic: &[u8], qos: u8) -> (Vec<u8>, usize) {
        let mut body = vec![0, u8::try_from(topic.len()).unwrap_or(u8::MAX)];
        body.extend_from_slice(topic);
        let id_at = body.len() + 2;
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        if self.version == 5 {
            body.push(0);
        }
        body.extend_from_slice(&[7; PAYLOAD]);
        let mut packet = vec![0x30 | qos << 1, u8::try_from(body.len()).unwrap_or(0x7F)];
        packet.append(&mut body);
        (packet, id_at)
    }

    fn send_at_qos_0(&mut self, topic: &[u8], count: usize) -> io::Result<()> {
        let (message, _) = self.message(topic, 0);
        let many = message.repeat(500);
        for _ in 0..count / 500 {
            self.stream.write_all(&many)?;
        }
        self.stream.write_all(&message.repeat(count % 500))
    }

    fn send_at_qos_1(&mut self, topic: &[u8], count: usize) -> io::Result<()> {
        let (mut message, id_at) = self.message(topic, 1);
        let (mut sent, mut acknowledged, mut id) = (0, 0, 1_u16);
        let mut acks = vec![0; 64 * 1024];
        let mut partial = 0;
        let mut out = Vec::new();
        while acknowledged < count {
            out.clear();
            while sent < count && sent - acknowledged < usize::from(WINDOW) {
                if let Some(slot) = message.get_mut(id_at..id_at + 2) {
                    slot.copy_from_slice(&id.to_be_bytes());
                }
                id = id.checked_add(1).unwrap_or(1);
                out.extend_from_slice(&message);
                sent += 1;
            }
            self.stream.write_all(&out)?;
            let n = self.stream.read(&mut acks)?;
            if n == 0 {
                return Ok(());
            }
            // Each PUBACK is four bytes, in 5.0 too.
            acknowledged += (partial + n) / 4;
            partial = (partial + n) % 4;
        }
        Ok(())
    }
}

struct Packet<'a> {
    first: u8,
    body: &'a [u8],
    len: usize,
}

fn next_packet(bytes: &[u8]) -> Option<Packet<'_>> {
    let (&first, rest) = bytes.split_first()?;
    let mut remaining = 0;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let head = 2 + index;
            let body = bytes.get(head..head + remaining)?;
            return Some(Packet {
                first,
                body,
                len: head + remaining,
            });
        }
    }
    None
}
