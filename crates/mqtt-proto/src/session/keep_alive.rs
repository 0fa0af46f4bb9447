//! Keep-alive both ways, without reading a clock for each packet.
//!
//! Somewhat more than twice a keep-alive the session looks whether anything was sent and received
//! since the last look. Two looks without sending, and a PINGREQ keeps the client from being taken for
//! dead, also when the timer is late `[MQTT5-3.1.2-20]` `[MQTT3-3.1.2-23]`. Two looks without
//! receiving probe the server in the same way, and one more without an answer means that it is gone:
//! within one and a half keep-alive after its last byte.

use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    /// As agreed with the server; zero switches it off.
    keep_alive: Duration,
    next: Option<Instant>,
    sent: bool,
    received: bool,
    /// Bytes received since the last look.
    bytes: usize,
    /// A PINGREQ went out and nothing has come since.
    probing: bool,
}

/// How long after one look the next comes: half a keep-alive, less a twentieth of that half for a
/// late timer.
fn look(keep_alive: Duration) -> Duration {
    keep_alive * 19 / 40
}

/// So many bytes of an incomplete packet between two looks count as something received.
const PROGRESS: usize = 1024;

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    Quiet,
    Ping,
    Dead { keep_alive: Duration },
}

impl KeepAlive {
    /// Starts at CONNACK, `now`. The last packet sent is CONNECT, at `sent`.
    pub(super) fn start(keep_alive: Duration, sent: Instant, now: Instant) -> Self {
        let look = look(keep_alive);
        // A slow CONNACK has taken the place of the first look.
        let is_slow = now >= sent + look;
        let first = if is_slow { look * 2 } else { look };
        Self {
            keep_alive,
            next: (!keep_alive.is_zero()).then(|| sent + first),
            sent: !is_slow,
            received: true,
            bytes: 0,
            probing: false,
        }
    }

    pub(super) fn sent(&mut self) {
        self.sent = true;
    }

    pub(super) fn received(&mut self) {
        self.received = true;
        self.probing = false;
    }

    pub(super) fn bytes_received(&mut self, n: usize) {
        self.bytes = self.bytes.saturating_add(n);
        if self.bytes >= PROGRESS {
            self.received();
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn tick(&mut self, now: Instant) -> Tick {
        if self.next.is_none_or(|next| now < next) {
            return Tick::Quiet;
        }
        self.next = Some(now + look(self.keep_alive));
        self.bytes = 0;
        if self.probing {
            self.next = None;
            return Tick::Dead {
                keep_alive: self.keep_alive,
            };
        }
        let (sent, received) = (
            std::mem::take(&mut self.sent),
            std::mem::take(&mut self.received),
        );
        if sent && received {
            return Tick::Quiet;
        }
        self.probing = true;
        Tick::Ping
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_secs(15);

    fn ticks(keep_alive: &mut KeepAlive, now: &mut Instant, n: usize) -> Vec<Tick> {
        (0..n)
            .map(|_| {
                *now += HALF;
                keep_alive.tick(*now)
            })
            .collect()
    }

    /// [MQTT5-3.1.2-20] [MQTT3-3.1.2-23]
    #[test]
    fn an_idle_client_pings_once_a_keep_alive() {
        let mut now = Instant::now();
        let mut keep_alive = KeepAlive::start(HALF * 2, now, now);
        for _ in 0..5 {
            assert_eq!(
                ticks(&mut keep_alive, &mut now, 2),
                [Tick::Quiet, Tick::Ping]
            );
            keep_alive.sent();
            keep_alive.received();
        }
    }

    #[test]
    fn a_busy_client_does_not_ping() {
        let mut now = Instant::now();
        let mut keep_alive = KeepAlive::start(HALF * 2, now, now);
        for _ in 0..10 {
            keep_alive.sent();
            keep_alive.received();
            assert_eq!(ticks(&mut keep_alive, &mut now, 1), [Tick::Quiet]);
        }
    }

    #[test]
    fn a_large_packet_keeps_the_server_alive_and_a_trickle_does_not() {
        for (bytes, last) in [
            (PROGRESS, Tick::Quiet),
            (
                PROGRESS - 1,
                Tick::Dead {
                    keep_alive: HALF * 2,
                },
            ),
        ] {
            let mut now = Instant::now();
            let mut keep_alive = KeepAlive::start(HALF * 2, now, now);
            let mut seen = Tick::Quiet;
            for _ in 0..3 {
                keep_alive.sent();
                keep_alive.bytes_received(bytes);
                seen = ticks(&mut keep_alive, &mut now, 1)[0];
            }
            assert_eq!(seen, last, "{bytes}");
        }
    }

    /// [MQTT5 3.12] [MQTT3 3.1.2.10]
    #[test]
    fn a_silent_server_is_dead_after_one_and_a_half_keep_alive_though_we_keep_sending() {
        let mut now = Instant::now();
        let mut keep_alive = KeepAlive::start(HALF * 2, now, now);
        let mut seen = Vec::new();
        for _ in 0..3 {
            keep_alive.sent();
            seen.extend(ticks(&mut keep_alive, &mut now, 1));
        }
        assert_eq!(
            seen,
            [
                Tick::Quiet,
                Tick::Ping,
                Tick::Dead {
                    keep_alive: HALF * 2
                }
            ]
        );
    }

    #[test]
    fn zero_switches_it_off() {
        let now = Instant::now();
        let keep_alive = KeepAlive::start(Duration::ZERO, now, now);
        assert_eq!(keep_alive.next_deadline(), None);
    }
}
