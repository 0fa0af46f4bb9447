//! SOCKS5 (RFC 1928) with user name and password (RFC 1929). Every answer says its own length, so
//! that nothing beyond it is read.

use std::{io, net::IpAddr};

use secrecy::{ExposeSecret, zeroize::Zeroizing};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{config::Credentials, nonsense, read_answer};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xFF;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for a tunnel.
pub(super) async fn connect<C: AsyncRead + AsyncWrite + Unpin>(
    conn: &mut C,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> io::Result<()> {
    let request = request(host, port)?;
    let methods: &[u8] = match credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, PASSWORD],
    };
    conn.write_all(methods).await?;
    conn.flush().await?;
    let mut chosen = [0; 2];
    read_answer(conn, &mut chosen).await?;
    match (chosen, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, PASSWORD], Some(credentials)) => authenticate(conn, credentials).await?,
        ([VERSION, NONE_ACCEPTABLE], None) => {
            return Err(denied("the proxy asks for a user name and password"));
        }
        ([VERSION, NONE_ACCEPTABLE], Some(_)) => {
            return Err(denied("the proxy takes no user name and password"));
        }
        _ => return Err(nonsense(NOT_SOCKS)),
    }
    conn.write_all(&request).await?;
    conn.flush().await?;
    read_reply(conn).await
}

async fn authenticate<C: AsyncRead + AsyncWrite + Unpin>(
    conn: &mut C,
    credentials: &Credentials,
) -> io::Result<()> {
    // Room for all of it, so that nothing is moved and left behind.
    let mut request = Zeroizing::new(Vec::with_capacity(1 + 2 * 256));
    request.push(1);
    push_text(&mut request, &credentials.user_name)?;
    push_text(&mut request, credentials.password.expose_secret())?;
    conn.write_all(&request).await?;
    conn.flush().await?;
    let mut answer = [0; 2];
    read_answer(conn, &mut answer).await?;
    match answer {
        [_, 0] => Ok(()),
        _ => Err(denied(
            "the proxy refuses: the user name or password is wrong",
        )),
    }
}

fn request(host: &str, port: u16) -> io::Result<Vec<u8>> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(NAME);
            push_text(&mut request, host)?;
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

/// A text with its length before it.
fn push_text(request: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u8::try_from(text.len()).map_err(|_| {
        let text = "SOCKS5 has no room for a text of more than 255 bytes";
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    request.push(length);
    request.extend_from_slice(text.as_bytes());
    Ok(())
}

async fn read_reply<C: AsyncRead + Unpin>(conn: &mut C) -> io::Result<()> {
    let mut reply = [0; 4];
    read_answer(conn, &mut reply).await?;
    let [version, outcome, _, kind] = reply;
    if version != VERSION {
        return Err(nonsense(NOT_SOCKS));
    }
    // Of a refusal the rest is of no use, and some proxies do not send it.
    check(outcome)?;
    // The address that the proxy connects from is for no one, but comes before the server's bytes.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let mut length = [0];
            read_answer(conn, &mut length).await?;
            usize::from(u8::from_be_bytes(length))
        }
        _ => return Err(nonsense(NOT_SOCKS)),
    };
    let mut address = [0; 255 + 2];
    let (address, _) = address.split_at_mut(length + 2);
    read_answer(conn, address).await
}

/// What became of a request.
fn check(outcome: u8) -> io::Result<()> {
    let (kind, text) = match outcome {
        0 => return Ok(()),
        1 => (io::ErrorKind::Other, "a failure of its own"),
        2 => (io::ErrorKind::PermissionDenied, "not allowed by its rules"),
        3 => (io::ErrorKind::NetworkUnreachable, "network unreachable"),
        4 => (io::ErrorKind::HostUnreachable, "host unreachable"),
        5 => (io::ErrorKind::ConnectionRefused, "connection refused"),
        6 => (io::ErrorKind::TimedOut, "the time to live expired"),
        7 => (io::ErrorKind::Unsupported, "it makes no connections"),
        8 => (io::ErrorKind::Unsupported, "it knows no such address"),
        _ => (io::ErrorKind::Other, "a failure without a name"),
    };
    let text = format!("the proxy answered {outcome}: {text}");
    Err(io::Error::new(kind, text))
}

fn denied(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

const NOT_SOCKS: &str = "the answer is not SOCKS5: is this a SOCKS5 proxy?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        #[track_caller]
        fn check(host: &str, address: &[u8]) {
            let expected = [&[5, 1, 0], address, &[0x07, 0x5B]].concat();
            assert_eq!(request(host, 1883).unwrap(), expected);
        }
        check("1.2.3.4", &[1, 1, 2, 3, 4]);
        check("::1", &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        check("a.b", &[3, 3, b'a', b'.', b'b']);
        assert!(request(&"a".repeat(256), 1).is_err());
    }

    #[tokio::test]
    async fn a_reply_is_read_to_its_end_and_not_beyond() {
        for address in [
            &[1, 0, 0, 0, 0, 0, 0][..],
            &[4; 19],
            &[3, 2, b'a', b'b', 0, 0],
            &[3, 0, 0, 0],
        ] {
            let reply = [&[5, 0, 0], address, b"rest"].concat();
            let mut reader = &reply[..];
            read_reply(&mut reader).await.unwrap();
            assert_eq!(reader, b"rest");
        }
        let longest = [&[5, 0, 0, 3, 255], &[1; 255 + 2][..], b"rest"].concat();
        let mut reader = &longest[..];
        read_reply(&mut reader).await.unwrap();
        assert_eq!(reader, b"rest");
    }

    #[tokio::test]
    async fn refusals_say_what_and_whether_to_try_again() {
        for (outcome, is_transient) in [
            (1, true),
            (2, false),
            (3, true),
            (4, true),
            (5, true),
            (6, true),
            (7, false),
            (8, false),
            (9, true),
        ] {
            let error = read_reply(&mut &[5, outcome, 0, 1][..]).await.unwrap_err();
            assert!(error.to_string().contains(&outcome.to_string()), "{error}");
            assert_eq!(crate::error::is_transient_kind(error.kind()), is_transient);
        }
        for garbage in [[4, 0, 0, 1], [5, 0, 0, 9]] {
            let error = read_reply(&mut &garbage[..]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
