//! One conversation, cut at every byte the client writes and every packet the server sends.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects"
)]

mod session_common;

use mqtt_proto::{AckId, Event, Version};
use session_common::*;

/// When the application takes the messages it gets.
#[derive(Clone, Copy, Debug)]
enum Takes {
    AtOnce,
    /// When the next connection begins, before anything is sent again.
    AfterReconnect,
    /// When nothing more comes.
    Last,
}

const ALL: usize = usize::MAX;

struct Conversation {
    pair: Pair,
    server: Server,
    takes: Takes,
    held: Vec<AckId>,
    /// What was delivered to the application, in order.
    delivered: Vec<String>,
    published: Vec<u32>,
}

impl Conversation {
    fn new(version: Version, takes: Takes) -> Self {
        let mut conversation = Self {
            pair: Pair::new(version),
            server: Server::new(version),
            takes,
            held: Vec::new(),
            delivered: Vec::new(),
            published: Vec::new(),
        };
        conversation
            .pair
            .session
            .connect(lasting(version), conversation.pair.now)
            .expect("valid");
        assert!(conversation.run(&mut ALL.clone()));
        for (index, qos) in [
            AtMostOnce,
            AtLeastOnce,
            ExactlyOnce,
            AtLeastOnce,
            ExactlyOnce,
        ]
        .into_iter()
        .enumerate()
        {
            conversation.pair.publish_at(qos, format!("{index}"));
            let message = message(qos, format!("{index}"));
            conversation.server.backlog.push_back(message);
        }
        conversation
    }

    /// Goes on for so many steps; `false` if that was not enough.
    fn run(&mut self, budget: &mut usize) -> bool {
        let Self {
            pair,
            server,
            takes,
            held,
            delivered: got,
            published,
        } = self;
        loop {
            let dry = server.run(pair, budget, |pair, event| match event {
                Event::Message { ack, .. } => {
                    got.push(delivered(Some(event)));
                    match takes {
                        Takes::AtOnce => ack.into_iter().for_each(|ack| pair.acknowledge(ack)),
                        Takes::AfterReconnect | Takes::Last => held.extend(ack),
                    }
                }
                Event::Published {
                    token, reason_code, ..
                } => {
                    assert_eq!(reason_code, OK);
                    published.push(token);
                }
                Event::Connected(connected) => {
                    assert_eq!(connected.lost, []);
                    if let Takes::AfterReconnect = takes {
                        held.drain(..).for_each(|ack| pair.acknowledge(ack));
                    }
                }
                other => panic!("{other:?}"),
            });
            if !dry || held.is_empty() {
                return dry;
            }
            held.drain(..).for_each(|ack| pair.acknowledge(ack));
        }
    }

    fn cut(&mut self) {
        assert_eq!(self.pair.cut(), []);
        self.server.cut();
        let connect = lasting(self.pair.version);
        self.pair
            .session
            .connect(connect, self.pair.now)
            .expect("valid");
    }

    /// Everything has arrived as often as its QoS promises.
    fn check(&mut self) {
        assert!(self.run(&mut ALL.clone()));
        let took = self.server.took.iter();
        let took = took
            .map(|payload| String::from_utf8(payload.to_vec()).expect("valid"))
            .collect();
        for side in [took, std::mem::take(&mut self.delivered)] {
            let side: Vec<String> = side;
            let times = |n: usize| {
                side.iter()
                    .filter(|payload| **payload == n.to_string())
                    .count()
            };
            assert!(times(0) <= 1, "QoS 0: {side:?}");
            assert!(times(1) >= 1 && times(3) >= 1, "QoS 1: {side:?}");
            assert!(times(2) == 1 && times(4) == 1, "QoS 2: {side:?}");
            let mut first = Vec::new();
            for payload in side.iter().filter(|payload| *payload != "0") {
                if !first.contains(payload) {
                    first.push(payload.clone());
                }
            }
            assert_eq!(first, ["1", "2", "3", "4"], "{side:?}");
        }
        self.published.sort_unstable();
        assert_eq!(self.published, [2, 3, 4, 5]);
        assert_eq!(self.pair.session.in_flight(), 0);
        assert_eq!(self.server.open(), 0);
    }
}

/// Runs the conversation with a cut after each number of steps in `cuts`; `None` if it was over
/// before the last of them.
fn with_cuts(version: Version, takes: Takes, cuts: &[usize]) -> Option<()> {
    let mut conversation = Conversation::new(version, takes);
    let mut over = None;
    for &cut in cuts {
        over = (!conversation.run(&mut cut.clone())).then_some(());
        conversation.cut();
    }
    conversation.check();
    over
}

const TAKES: [Takes; 3] = [Takes::AtOnce, Takes::AfterReconnect, Takes::Last];

/// [MQTT5-4.3.2-1] [MQTT5-4.3.3-10] [MQTT5-4.4.0-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-2] [MQTT3-4.4.0-1]
#[test]
fn each_qos_keeps_its_promise_wherever_the_connection_is_cut() {
    both(|version| {
        for takes in TAKES {
            let mut cut = 0;
            while with_cuts(version, takes, &[cut]).is_some() {
                cut += 1;
            }
            assert!(cut > 60, "{cut} places to cut");
        }
    });
}

/// The same with a second cut, and a third that comes soon after it.
#[test]
fn each_qos_keeps_its_promise_over_several_cuts() {
    both(|version| {
        for takes in TAKES {
            for first in (0..).step_by(3) {
                if with_cuts(version, takes, &[first]).is_none() {
                    break;
                }
                // The client's session is known from its first CONNACK on, so the resumed one may
                // be cut before its CONNACK too.
                for second in (0..).step_by(7) {
                    if with_cuts(version, takes, &[first, second, 40 + second % 5]).is_none() {
                        break;
                    }
                }
            }
        }
    });
}

/// A conversation that is never cut, for comparison.
#[test]
fn without_a_cut_everything_arrives_once() {
    both(|version| {
        for takes in TAKES {
            let mut conversation = Conversation::new(version, takes);
            conversation.run(&mut ALL.clone());
            assert_eq!(conversation.delivered, ["0", "1", "2", "3", "4"]);
            assert_eq!(conversation.server.took, ["0", "1", "2", "3", "4"]);
            conversation.check();
        }
    });
}
