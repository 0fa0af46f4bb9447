//! A server that answers pings and not requests.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::as_conversions,
    reason = "the server looks at what it knows, and closures of one table are functions"
)]

mod session_common;

use std::time::Duration;

use mqtt_proto::{
    Overdue,
    packet::{ConnAck, Packet, PacketType},
};
use session_common::*;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time passes, in which the server answers pings and each second does something. Whoever writes begins
/// the watch. Returns what was overdue, and when.
fn run(
    pair: &mut Pair,
    seconds: u32,
    mut act: impl FnMut(&mut Pair, u32),
) -> Vec<(u32, PacketType)> {
    let mut overdue = Vec::new();
    for second in 0..seconds {
        act(pair, second);
        write(pair);
        pair.pass(SECOND);
        pair.session.handle_timeout(pair.now).expect("alive");
        if let Some(Overdue {
            awaited, timeout, ..
        }) = pair.session.take_overdue()
        {
            assert_eq!(timeout, TIMEOUT);
            overdue.push((second + 1, awaited));
        }
    }
    overdue
}

fn write(pair: &mut Pair) -> Vec<Packet> {
    let sent = pair.sent();
    if sent.contains(&Packet::PingReq) {
        pair.give(Packet::PingResp);
    }
    if !sent.is_empty() && pair.session.has_unwatched_requests() {
        pair.session.watch_answers(TIMEOUT, pair.now);
    }
    sent
}

#[test]
fn each_kind_of_request_is_overdue_within_the_time_and_a_quarter_and_again_after_it() {
    both(|version| {
        for (awaited, request) in [
            (
                PacketType::PubAck,
                (|pair| {
                    pair.publish_at(AtLeastOnce, "m");
                }) as fn(&mut Pair),
            ),
            (PacketType::PubRec, |pair| {
                pair.publish_at(ExactlyOnce, "m");
            }),
            (PacketType::PubComp, |pair| {
                pair.publish_at(ExactlyOnce, "m");
                pair.sent();
                pair.give(pubrec(1));
            }),
            (PacketType::SubAck, |pair| {
                pair.subscribe(&["a"]);
            }),
            (PacketType::UnsubAck, |pair| {
                let token = pair.token();
                pair.session
                    .unsubscribe(vec![filter("a")], Default::default(), token)
                    .expect("admitted");
            }),
        ] {
            let mut pair = Pair::connected(version);
            let seen = run(&mut pair, 190, |pair, second| {
                if second == 0 {
                    request(pair);
                }
            });
            assert_eq!(seen, [60, 120, 180].map(|at| (at, awaited)));
        }
    });
}

/// Whenever it comes, and though others before and after it are answered. Keep-alive makes other
/// deadlines, which do not count as looks.
#[test]
fn one_that_is_not_answered_while_others_are_is_found_in_time() {
    both(|version| {
        for stuck in [0, 7, 14, 15, 16, 44, 59] {
            let mut pair = Pair::connected(version);
            let mut at = 0;
            let seen = run(&mut pair, stuck + 77, |pair, second| {
                pair.publish_at(AtLeastOnce, "m");
                for packet in write(pair) {
                    match packet {
                        Packet::Publish(publish) if second != stuck => {
                            pair.give(puback(publish.packet_id.expect("QoS 1").value()));
                        }
                        Packet::Publish(_) => at = second,
                        _ => {}
                    }
                }
            });
            assert_eq!(seen.len(), 1, "{stuck} {seen:?}");
            assert!((at + 60..=at + 76).contains(&seen[0].0), "{at} {seen:?}");
        }
    });
}

/// The last one waits for longer than the time, and the server comes to it in its turn.
#[test]
fn a_server_that_is_slow_and_makes_progress_is_not_overdue() {
    both(|version| {
        for (qos, step) in [(AtLeastOnce, 44), (ExactlyOnce, 22)] {
            let mut pair = Pair::connected(version);
            for n in 0..10 {
                pair.publish_at(qos, format!("{n}"));
            }
            let mut answers = Vec::new();
            for n in 1..=10 {
                match qos {
                    ExactlyOnce => answers.extend([pubrec(n), pubcomp(n)]),
                    _ => answers.push(puback(n)),
                }
            }
            let mut answers = answers.into_iter();
            let seen = run(&mut pair, 600, |pair, second| {
                if second > 0
                    && second % step == 0
                    && let Some(answer) = answers.next()
                {
                    pair.give(answer);
                }
            });
            assert_eq!(seen, []);
            assert!(pair.open().is_empty());
        }
    });
}

#[test]
fn resends_that_wait_for_their_turn_are_not_overdue_and_the_one_before_them_is() {
    both(|version| {
        for answers in [true, false] {
            let mut pair = Pair::connected(version);
            for n in 0..4 {
                pair.publish_at(AtLeastOnce, format!("{n}"));
            }
            pair.sent();
            pair.cut();
            pair.session.hold_resends();
            pair.dial(lasting(version));
            pair.accept(ConnAck::resumed());
            // Held back: nobody has seen them.
            assert_eq!(run(&mut pair, 200, |_, _| {}), []);
            assert_eq!(pair.session.take_overdue(), None);
            pair.session.release_resends();
            let mut next = 1;
            let seen = run(&mut pair, 70, |pair, second| {
                if answers && second % 40 == 39 {
                    pair.give(puback(next));
                    next += 1;
                }
            });
            let expected: &[_] = if answers {
                &[]
            } else {
                &[(60, PacketType::PubAck)]
            };
            assert_eq!(seen, expected);
        }
    });
}

/// Also one whose timer is at its finest, or never comes.
#[test]
fn without_requests_and_between_connections_nobody_looks() {
    both(|version| {
        for timeout in [Duration::ZERO, TIMEOUT, Duration::MAX] {
            let mut pair = Pair::new(version);
            let mut connect = lasting(version);
            connect.keep_alive = 0;
            pair.dial(connect.clone());
            pair.accept(ConnAck::accepted());
            assert!(!pair.session.has_unwatched_requests());
            pair.session.watch_answers(timeout, pair.now);
            assert_eq!(pair.session.next_deadline(), None);

            pair.publish_at(AtLeastOnce, "m");
            pair.sent();
            assert!(pair.session.has_unwatched_requests());
            pair.session.watch_answers(timeout, pair.now);
            assert!(pair.session.next_deadline() > Some(pair.now));
            if timeout < Duration::MAX {
                assert!(!pair.session.has_unwatched_requests());
                pair.give(puback(1));
                assert_eq!(pair.wait().1, Ok(()));
                assert_eq!(pair.session.next_deadline(), None);
                assert_eq!(pair.session.take_overdue(), None);
                // The next one is watched anew.
                pair.publish_at(AtLeastOnce, "m");
                pair.sent();
                pair.session.watch_answers(timeout, pair.now);
                assert!(pair.session.next_deadline().is_some());
            }
            pair.cut();
            assert_eq!(pair.session.next_deadline(), None);
            pair.dial(connect.clone());
            pair.accept(ConnAck::resumed());
            assert_eq!(pair.session.next_deadline(), None);
        }
    });
}
