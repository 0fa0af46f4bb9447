//! Keep-alive: when the client speaks up, and when it takes the server for dead.

mod session_common;

use std::time::Duration;

use mqtt_proto::{
    Event, ProtocolError, Version,
    packet::{ConnAck, Packet},
};
use session_common::*;

const SECOND: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The longest gap of a client that has nothing to send: a twentieth is kept for a late timer.
const GAP: Duration = Duration::from_millis(9_500);

fn keeping_alive(version: Version) -> Pair {
    Pair::connected_with(version, |connect| connect.keep_alive = 10)
}

/// Runs for `duration` in steps of `step`, at each of which `act` may do something, and returns
/// the longest gap between two packets the client sent, and how many of them were PINGREQ.
fn run(
    pair: &mut Pair,
    duration: Duration,
    step: Duration,
    mut act: impl FnMut(&mut Pair),
) -> (Duration, usize) {
    let (end, mut last) = (pair.now + duration, pair.now);
    let (mut longest, mut pings) = (Duration::ZERO, 0);
    let mut next_act = pair.now + step;
    while pair.now < end {
        let deadline = pair.session.next_deadline().expect("a deadline");
        pair.now = deadline.min(next_act);
        if pair.now == deadline {
            pair.session.handle_timeout(pair.now).expect("alive");
        }
        if pair.now == next_act {
            next_act += step;
            act(pair);
        }
        for packet in pair.sent() {
            longest = longest.max(pair.now - last);
            last = pair.now;
            if packet == Packet::PingReq {
                pings += 1;
                assert_eq!(pair.give(Packet::PingResp), None);
            }
        }
    }
    (longest.max(pair.now - last), pings)
}

/// [MQTT5-3.1.2-20] [MQTT3-3.1.2-23]
#[test]
fn an_idle_client_pings_once_a_keep_alive() {
    both(|version| {
        let mut pair = keeping_alive(version);
        let (longest, pings) = run(&mut pair, 20 * KEEP_ALIVE, 200 * KEEP_ALIVE, |_| {});
        assert_eq!((longest, pings), (GAP, 21));
    });
}

/// [MQTT5-3.1.2-20] [MQTT3-3.1.2-23]
#[test]
fn a_client_that_only_receives_pings() {
    both(|version| {
        let mut pair = keeping_alive(version);
        let (longest, pings) = run(&mut pair, 20 * KEEP_ALIVE, SECOND, |pair| {
            assert!(pair.give(publish_0("m")).is_some());
        });
        assert_eq!((longest, pings), (GAP, 21));
    });
}

#[test]
fn a_client_that_is_busy_both_ways_does_not_ping() {
    both(|version| {
        let mut pair = keeping_alive(version);
        let (_, pings) = run(&mut pair, 20 * KEEP_ALIVE, 3 * SECOND, |pair| {
            pair.publish_at(AtLeastOnce, "m");
            let Packet::Publish(publish) = pair.sent().remove(0) else {
                panic!();
            };
            let n = publish.packet_id.unwrap().value();
            assert!(pair.give(puback(n)).is_some());
        });
        assert_eq!(pings, 0);
    });
}

/// A server that takes QoS 0 says nothing by itself, so it is asked.
#[test]
fn a_client_that_only_sends_asks_whether_anybody_is_there() {
    both(|version| {
        let mut pair = keeping_alive(version);
        let (_, pings) = run(&mut pair, 20 * KEEP_ALIVE, SECOND, |pair| {
            pair.publish_at(AtMostOnce, "m");
        });
        assert_eq!(pings, 21);
    });
}

/// Whenever the last packet was sent, the next is there within a keep-alive. [MQTT5-3.1.2-20]
/// [MQTT3-3.1.2-23]
#[test]
fn the_gap_is_never_longer_than_a_keep_alive() {
    both(|version| {
        for tenths in 1..=150 {
            let mut pair = keeping_alive(version);
            let step = Duration::from_millis(100 * tenths);
            let (longest, _) = run(&mut pair, 10 * KEEP_ALIVE, step, |pair| {
                pair.publish_at(AtMostOnce, "m");
            });
            assert!(longest < KEEP_ALIVE, "{step:?}: {longest:?}");
        }
    });
}

/// The keep-alive runs from CONNECT, not from CONNACK. [MQTT5-3.1.2-20] [MQTT3-3.1.2-23]
#[test]
fn a_slow_connack_does_not_lengthen_the_first_gap() {
    both(|version| {
        for seconds in 0..=20 {
            let delay = seconds * SECOND;
            let mut pair = Pair::new(version);
            let mut connect = lasting(version);
            connect.keep_alive = 10;
            pair.dial(connect);
            let dialled = pair.now;
            pair.pass(delay);
            pair.accept(ConnAck::accepted());
            while pair.sent() != [Packet::PingReq] {
                pair.wait().1.unwrap();
            }
            assert_eq!(pair.now - dialled, delay.max(GAP));
        }
    });
}

/// [MQTT5 3.12] [MQTT3 3.1.2.10]
#[test]
fn a_dead_server_is_found_within_one_and_a_half_keep_alive() {
    both(|version| {
        for silent_after in 0..=10 {
            for sends in [false, true] {
                let mut pair = keeping_alive(version);
                let alive = silent_after * SECOND;
                if alive > Duration::ZERO {
                    run(&mut pair, alive, SECOND, |pair| {
                        drop(pair.give(publish_0("m")))
                    });
                }
                let token = pair.publish_at(AtLeastOnce, "open");
                let silent = pair.now;
                let mut looks = (0..10).map(|_| {
                    pair.sent();
                    if sends {
                        pair.publish_at(AtMostOnce, "m");
                        pair.sent();
                    }
                    pair.wait().1
                });
                let error = looks.find_map(Result::err).expect("dead");
                let keep_alive = KEEP_ALIVE;
                assert_eq!(error, ProtocolError::KeepAliveTimeout { keep_alive });
                let found = pair.now - silent;
                assert!(found > KEEP_ALIVE / 2, "too soon: {found:?}");
                assert!(found <= KEEP_ALIVE * 3 / 2, "too late: {found:?}");
                assert!(!pair.session.is_connected());
                assert_eq!(pair.session.next_deadline(), None);
                assert_eq!(pair.sent(), []);
                // The session goes on elsewhere.
                pair.resume();
                assert_eq!(published(pair.give(puback(1))), (token, OK));
            }
        }
    });
}

/// Any packet is a sign of life, not PINGRESP alone.
#[test]
fn a_message_is_as_good_as_a_pingresp() {
    both(|version| {
        let mut pair = keeping_alive(version);
        for _ in 0..20 {
            pair.wait().1.unwrap();
            pair.wait().1.unwrap();
            assert_eq!(pair.sent(), [Packet::PingReq]);
            assert!(matches!(
                pair.give(publish_0("m")),
                Some(Event::Message { .. })
            ));
        }
    });
}

/// [MQTT5-3.1.2-21] [MQTT5-3.2.2-21]
#[test]
fn the_servers_keep_alive_replaces_ours() {
    for (ours, theirs, expected) in [
        (60, Some(2), Some(2)),
        (2, Some(60), Some(60)),
        (0, Some(5), Some(5)),
        (60, Some(0), None),
        (0, None, None),
        (7, None, Some(7)),
    ] {
        let mut pair = Pair::new(V5);
        let mut connect = lasting(V5);
        connect.keep_alive = ours;
        pair.dial(connect.clone());
        let mut connack = ConnAck::accepted();
        connack.properties.server_keep_alive = theirs;
        pair.accept(connack);
        match expected {
            None => assert_eq!(pair.session.next_deadline(), None),
            Some(seconds) => {
                let keep_alive = Duration::from_secs(seconds);
                let (longest, _) = run(&mut pair, 5 * keep_alive, 99 * keep_alive, |_| {});
                assert_eq!(longest, keep_alive * 19 / 20);
            }
        }
        // The next connection asks with our own value again.
        pair.cut();
        assert_eq!(connect_of(&pair.dial(connect)).keep_alive, ours);
    }
}

/// A timer that fires early or late does no harm.
#[test]
fn a_timeout_out_of_turn_changes_nothing() {
    both(|version| {
        let mut pair = keeping_alive(version);
        for _ in 0..10 {
            pair.session.handle_timeout(pair.now).unwrap();
        }
        assert_eq!(pair.sent(), []);
        pair.pass(3 * KEEP_ALIVE);
        pair.session.handle_timeout(pair.now).unwrap();
        pair.session.handle_timeout(pair.now).unwrap();
        assert!(pair.session.is_connected(), "one look at a time");
        let mut closed = Pair::new(version);
        closed.session.handle_timeout(closed.now).unwrap();
        assert_eq!(closed.session.next_deadline(), None);
    });
}
