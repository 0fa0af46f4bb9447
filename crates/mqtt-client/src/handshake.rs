//! CONNECT to CONNACK on a new connection.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use mqtt_proto::{Connected, DecodeError, Decoder, Event};
use mqtt_transport::Conn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{authenticate::Exchange, error::ConnectCause, shared::Shared};

/// In 5.0 the server is told why, if the connection still takes it [MQTT5 4.13.1]. What has
/// happened is known already, so this has a time of its own and changes nothing about it.
pub(crate) async fn say_goodbye<C: Conn>(conn: &mut C, shared: &Shared) {
    let mut out = shared.lock().core.take_outbound(Default::default());
    let goodbye = async {
        conn.write_all_buf(&mut out).await?;
        conn.shutdown().await
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Enough for a round trip to anywhere.
const GOODBYE: Duration = Duration::from_millis(500);

/// CONNECT to CONNACK, with AUTH between them. Returns what came behind the CONNACK too.
pub(crate) async fn exchange<C: Conn>(
    conn: &mut C,
    shared: &Shared,
    decoder: &mut Decoder,
    mut authenticating: Option<&mut Exchange>,
) -> Result<(Box<Connected<usize>>, Bytes), ConnectCause> {
    let mut unwritten = write(conn, shared).await.err();
    let mut read = BytesMut::with_capacity(READ_SIZE);
    loop {
        match conn.read_buf(&mut read).await {
            Ok(0) => return Err(unwritten.map_or(ConnectCause::Closed, ConnectCause::Io)),
            Ok(_) => {}
            // A server that took no CONNECT may have said why before, with an alert of TLS or with
            // a packet; if not, the first error tells more.
            Err(error) if mqtt_transport::is_transient(&error) => {
                return Err(ConnectCause::Io(unwritten.unwrap_or(error)));
            }
            Err(error) => return Err(ConnectCause::Io(error)),
        }
        let mut input = read.split().freeze();
        while let Some(packet) = decoder
            .decode(&mut input)
            .map_err(|error| malformed(shared, error))?
        {
            if let Some(authenticating) = &mut authenticating {
                authenticating.check(&packet, shared).await?;
            }
            let now = Instant::now().into_std();
            let event = shared.lock().core.handle_packet(packet, now);
            match event.map_err(ConnectCause::Protocol)? {
                Some(Event::Connected(connected)) => {
                    // Copied, if there is any, so that the session does not keep the buffer.
                    return Ok((connected, Bytes::copy_from_slice(&input)));
                }
                Some(Event::Refused(connack)) => return Err(ConnectCause::Refused(connack)),
                Some(Event::Auth(auth)) => {
                    if let Some(authenticating) = &mut authenticating {
                        authenticating.go_on(&auth, shared).await?;
                        unwritten = write(conn, shared).await.err().or(unwritten);
                    }
                }
                _ => {}
            }
        }
        read.reserve(READ_SIZE);
    }
}

/// Writes what the core has to say.
async fn write<C: Conn>(conn: &mut C, shared: &Shared) -> io::Result<()> {
    let mut out = shared.lock().core.take_outbound(Default::default());
    conn.write_all_buf(&mut out).await?;
    conn.flush().await
}

/// A CONNACK with all its properties is smaller; it is freed when the session is open.
const READ_SIZE: usize = 1024;

fn malformed(shared: &Shared, error: DecodeError) -> ConnectCause {
    shared.lock().core.abort(error.reason_code());
    ConnectCause::Malformed(error)
}
