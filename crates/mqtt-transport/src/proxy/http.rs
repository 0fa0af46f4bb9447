//! HTTP CONNECT (RFC 9110, section 9.3.6) with Basic authentication (RFC 7617).

use std::{fmt, io};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, zeroize::Zeroizing};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    config::{Authority, Credentials},
    nonsense, read_answer,
};

/// How long the answer may be up to its last empty line, in bytes; usual ones have some hundred.
const MAX_HEAD: usize = 8 * 1024;

/// The shortest that can come before the end of a line: `HTTP/1.1 200`.
const MIN_STATUS: usize = 12;

/// How much of the words after the status an error repeats, in characters.
const MAX_REASON: usize = 80;

/// Asks for a tunnel.
pub(super) async fn connect<C: AsyncRead + AsyncWrite + Unpin>(
    conn: &mut C,
    host: &str,
    port: u16,
    credentials: Option<&Credentials>,
) -> io::Result<()> {
    let request = request(host, port, credentials);
    conn.write_all(request.as_bytes()).await?;
    conn.flush().await?;
    let mut budget = MAX_HEAD;
    loop {
        let head = read_head(conn, &mut budget).await?;
        let status = Status::of(&head).ok_or_else(|| nonsense(NOT_HTTP))?;
        match status.code {
            // An interim answer: the one that counts follows.
            100 | 102..=199 => {}
            200..=299 => return Ok(()),
            _ => return Err(status.refusal(credentials.is_some())),
        }
    }
}

fn request(host: &str, port: u16, credentials: Option<&Credentials>) -> Zeroizing<String> {
    let server = Authority(host, port);
    let mut request = Zeroizing::new(format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n"));
    if let Some(credentials) = credentials {
        let (user_name, password) = (&credentials.user_name, credentials.password.expose_secret());
        let pair = Zeroizing::new([user_name, ":", password].concat());
        // Room for all of it, so that nothing is moved and left behind.
        request.reserve(64 + 2 * pair.len());
        request.push_str("Proxy-Authorization: Basic ");
        BASE64_STANDARD.encode_string(pair.as_bytes(), &mut request);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

const NOT_HTTP: &str = "the answer is not HTTP: is this an HTTP proxy?";

/// Reads an answer up to its empty line, and nothing of what follows: of any stream, that takes
/// reading no more than is certainly left of it.
async fn read_head<C: AsyncRead + Unpin>(conn: &mut C, budget: &mut usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = [0; MIN_STATUS];
    loop {
        let certain = if head.is_empty() {
            MIN_STATUS
        } else if head.ends_with(b"\n") || head.ends_with(b"\n\r") {
            1
        } else {
            2
        };
        *budget = budget
            .checked_sub(certain)
            .ok_or_else(|| nonsense("the answer is longer than 8 KiB"))?;
        let (bytes, _) = buffer.split_at_mut(certain);
        read_answer(conn, bytes).await?;
        head.extend_from_slice(bytes);
        if !head.starts_with(b"HTTP/1.") {
            return Err(nonsense(NOT_HTTP));
        }
        if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
            return Ok(head);
        }
    }
}

/// What a proxy says of a request.
struct Status {
    code: u16,
    /// In the words of the proxy: cut short, and without control characters.
    reason: String,
}

impl Status {
    /// The status in the first line of an answer.
    fn of(head: &[u8]) -> Option<Self> {
        let line = head.split(|byte| *byte == b'\n').next()?;
        let line = String::from_utf8_lossy(line);
        let (_version, rest) = line.trim_end().split_once(' ')?;
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            code: code.parse().ok()?,
            reason: reason
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_REASON)
                .collect(),
        })
    }

    /// The answer as an error, of a kind that says whether another attempt can help.
    fn refusal(self, had_credentials: bool) -> io::Error {
        let kind = match self.code {
            403 | 407 => io::ErrorKind::PermissionDenied,
            408 | 504 => io::ErrorKind::TimedOut,
            502 | 503 => io::ErrorKind::HostUnreachable,
            501 | 505 => io::ErrorKind::Unsupported,
            429 | 500..=599 => io::ErrorKind::Other,
            // Other requests than CONNECT were meant, or a server and not a proxy answers.
            _ => io::ErrorKind::Unsupported,
        };
        let hint = match (self.code, had_credentials) {
            (407, true) => ": the user name or password is wrong",
            (407, false) => ": a user name and password must be set",
            _ => "",
        };
        io::Error::new(kind, format!("the proxy answered {self}{hint}"))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, reason } = self;
        match reason.as_str() {
            "" => write!(f, "{code}"),
            reason => write!(f, "{code} {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(
            *request("::1", 1883, None),
            "CONNECT [::1]:1883 HTTP/1.1\r\nHost: [::1]:1883\r\n\r\n"
        );
        // The example of RFC 7617, section 2.
        let credentials = Credentials {
            user_name: "Aladdin".to_owned(),
            password: "open sesame".into(),
        };
        assert_eq!(
            *request("a", 1, Some(&credentials)),
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_and_not_beyond() {
        for answer in [
            "HTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 200\n\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.0 200 Connection established\r\nVia: x\r\nA: b\r\n\r\n",
            "HTTP/1.1 204 x\n\n",
            "HTTP/1.1 200 odd\nA: b\r\n\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            let text = format!("{answer}\n\r\nrest");
            let mut stream = tokio::io::join(text.as_bytes(), tokio::io::sink());
            connect(&mut stream, "a", 1, None).await.unwrap();
            assert_eq!(*stream.reader(), b"\n\r\nrest", "{answer:?}");
        }
    }

    #[tokio::test]
    async fn refusals_say_what_and_whether_to_try_again() {
        #[track_caller]
        fn check(outcome: io::Result<()>, text: &str, is_transient: bool) {
            let error = outcome.unwrap_err();
            assert_eq!(error.to_string(), text);
            let kind = error.kind();
            assert_eq!(
                crate::error::is_transient_kind(kind),
                is_transient,
                "{text}"
            );
        }
        async fn answer(text: &str) -> io::Result<()> {
            let mut stream = tokio::io::join(text.as_bytes(), tokio::io::sink());
            connect(&mut stream, "a", 1, None).await
        }
        for (status, is_transient) in [
            ("400 Bad Request", false),
            ("101 Switching Protocols", false),
            ("301 Moved", false),
            ("403 Forbidden", false),
            ("405 Method Not Allowed", false),
            ("429 Too Many Requests", true),
            ("500", true),
            ("501 Not Implemented", false),
            ("502 Bad Gateway", true),
            ("503 Service Unavailable", true),
            ("504 Gateway Timeout", true),
            ("999 x", false),
        ] {
            check(
                answer(&format!("HTTP/1.1 {status}\r\n\r\n")).await,
                &format!("the proxy answered {status}"),
                is_transient,
            );
        }
        check(
            answer("HTTP/1.1 407 \u{1b}[31mWho?\r\n\r\n").await,
            "the proxy answered 407 [31mWho?: a user name and password must be set",
            false,
        );
        for garbage in [
            "HTTP/1.1 2000 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1\r\n\r\n  \r\n\r\n",
        ] {
            check(answer(garbage).await, NOT_HTTP, true);
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(2_000));
        check(
            answer(&endless).await,
            "the answer is longer than 8 KiB",
            true,
        );
        check(
            answer("HTTP/1.1 200 OK\r\n").await,
            "the proxy closed the connection instead of answering",
            true,
        );
    }
}
