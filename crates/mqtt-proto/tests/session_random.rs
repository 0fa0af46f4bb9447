//! Random conversations with a truthful server, over connections that break at any place.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects"
)]

mod session_common;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use mqtt_proto::{
    AckId, Event, QoS, SessionOptions, Version,
    packet::{Disconnect, Packet},
};
use proptest::prelude::*;
use session_common::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    // The client's application.
    Publish(QoS),
    Subscribe,
    Unsubscribe,
    /// Takes, or refuses, one of the messages it has.
    Take(usize, bool),
    // The server.
    Message(QoS),
    RefuseNext,
    Forget,
    // The wire.
    /// So many bytes reach the server.
    Up(usize),
    /// So many packets reach the client.
    Down(usize),
    /// An acknowledgement overtakes the others.
    Overtake(usize),
    Run,
    // The connection.
    Cut,
    Dial {
        clean: bool,
    },
    Timeout,
    Disconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let qos = || prop_oneof![Just(AtMostOnce), Just(AtLeastOnce), Just(ExactlyOnce)];
    prop_oneof![
        8 => qos().prop_map(Step::Publish),
        1 => Just(Step::Subscribe),
        1 => Just(Step::Unsubscribe),
        8 => (0..8_usize, prop::bool::weighted(0.1)).prop_map(|(at, no)| Step::Take(at, no)),
        8 => qos().prop_map(Step::Message),
        1 => Just(Step::RefuseNext),
        1 => Just(Step::Forget),
        8 => (1..60_usize).prop_map(Step::Up),
        8 => (1..4_usize).prop_map(Step::Down),
        4 => (0..8_usize).prop_map(Step::Overtake),
        2 => Just(Step::Run),
        4 => Just(Step::Cut),
        6 => prop::bool::weighted(0.05).prop_map(|clean| Step::Dial { clean }),
        1 => Just(Step::Timeout),
        1 => Just(Step::Disconnect),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    version: Version,
    max_in_flight: u16,
    /// The server's Receive Maximum, and the client's. 5.0 only.
    window: u16,
    receive_maximum: u16,
    releases_last: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    (any::<bool>(), 1..5_u16, 1..5_u16, 1..5_u16, any::<bool>()).prop_map(
        |(v5, max_in_flight, window, receive_maximum, releases_last)| Setting {
            version: if v5 { V5 } else { V3 },
            max_in_flight,
            window,
            receive_maximum,
            releases_last,
        },
    )
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Open,
    Taken,
    Refused,
    Lost,
}

/// A message the application has not taken, and the connection it came by.
struct Held {
    ack: AckId,
    qos: QoS,
    payload: usize,
    connection: usize,
}

struct World {
    setting: Setting,
    pair: Pair,
    server: Server,
    dialled: bool,
    /// Whether the server's session, if any, is the client's too.
    in_step: bool,
    /// Whether the session broke off at some time.
    broken: bool,
    held: Vec<Held>,
    connection: usize,
    published: BTreeMap<u32, (QoS, Outcome)>,
    messages: Vec<QoS>,
    delivered: Vec<usize>,
    refused: BTreeSet<usize>,
}

impl World {
    fn new(setting: Setting) -> Self {
        let options = SessionOptions::default().with_max_in_flight(setting.max_in_flight);
        let mut server = Server::new(setting.version);
        server.releases_last = setting.releases_last;
        if setting.version == V5 {
            server.window = NonZeroU16::new(setting.window);
        }
        Self {
            setting,
            pair: Pair::with_options(setting.version, options),
            server,
            dialled: false,
            in_step: true,
            broken: false,
            held: Vec::new(),
            connection: 0,
            published: BTreeMap::new(),
            messages: Vec::new(),
            delivered: Vec::new(),
            refused: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(qos) => self.publish(qos),
            Step::Subscribe => drop(self.pair.try_subscribe(vec![at_qos_1("a")])),
            Step::Unsubscribe => drop(self.pair.try_unsubscribe(vec![filter("a")])),
            Step::Take(at, refuse) => {
                if at < self.held.len() {
                    self.take(at, refuse);
                }
            }
            Step::Message(qos) => {
                let message = message(qos, self.messages.len().to_string());
                self.server.backlog.push_back(message);
                self.messages.push(qos);
                self.server.send_messages();
            }
            Step::RefuseNext => self.server.refuse_next = true,
            Step::Forget => {
                self.server.forget();
                self.broken = true;
            }
            Step::Up(bytes) => {
                self.server.pull(&mut self.pair);
                self.server.arrive(bytes);
                self.server.send_messages();
            }
            Step::Down(packets) => {
                let packets = packets.min(self.server.due.len());
                let due: Vec<_> = self.server.due.drain(..packets).collect();
                due.into_iter().for_each(|packet| self.down(packet));
            }
            Step::Overtake(at) => {
                let is_ack = |packet: &Packet| {
                    matches!(
                        packet,
                        Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_)
                    )
                };
                let connects = |packet: &Packet| matches!(packet, Packet::ConnAck(_));
                let due = &mut self.server.due;
                if due.get(at).is_some_and(is_ack) && !due.iter().any(connects) {
                    let packet = due.remove(at);
                    self.down(packet);
                }
            }
            Step::Run => self.run(),
            Step::Cut => self.cut(),
            Step::Dial { clean } => self.dial(clean),
            Step::Timeout => {
                if self.pair.session.next_deadline().is_some() && self.pair.wait().1.is_err() {
                    self.cut();
                }
            }
            Step::Disconnect => {
                drop(self.pair.session.disconnect(Disconnect::new(OK)));
            }
        }
        self.check();
    }

    fn publish(&mut self, qos: QoS) {
        let n = u32::try_from(self.published.len()).expect("few");
        if let Ok(token) = self.pair.try_publish(message(qos, n.to_string())) {
            assert!(self.published.insert(token, (qos, Outcome::Open)).is_none());
        } else {
            // Keeps numbers and tokens in step.
            let token = self.pair.last_token();
            self.published.insert(token, (AtMostOnce, Outcome::Lost));
        }
    }

    fn take(&mut self, at: usize, refuse: bool) {
        let Held { ack, payload, .. } = self.held.remove(at);
        let code = if refuse { QUOTA } else { OK };
        self.pair.session.acknowledge(ack, code);
        if refuse && self.setting.version == V5 {
            // It may come again if that is lost.
            self.refused.insert(payload);
        }
    }

    fn down(&mut self, packet: Packet) {
        let Some(event) = self.pair.give(packet) else {
            return;
        };
        match event {
            Event::Connected(connected) => {
                self.in_step = true;
                self.lost(&connected.lost);
                if !connected.connack.session_present {
                    self.held.clear();
                }
            }
            Event::Message {
                ack, ref message, ..
            } => {
                let qos = message.qos;
                let payload = delivered(Some(event)).parse().expect("a number");
                self.delivered.push(payload);
                let connection = self.connection;
                self.held.extend(ack.map(|ack| Held {
                    ack,
                    qos,
                    payload,
                    connection,
                }));
            }
            Event::Published {
                token, reason_code, ..
            } => {
                let taken = reason_code == OK;
                let outcome = if taken {
                    Outcome::Taken
                } else {
                    Outcome::Refused
                };
                self.published.entry(token).and_modify(|it| it.1 = outcome);
            }
            Event::Answered { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn lost(&mut self, tokens: &[u32]) {
        for token in tokens {
            if let Some((_, outcome)) = self.published.get_mut(token) {
                *outcome = Outcome::Lost;
            }
        }
    }

    fn run(&mut self) {
        loop {
            let under_way = self.server.pull(&mut self.pair);
            self.server.arrive(under_way);
            self.server.send_messages();
            if self.server.due.is_empty() {
                return;
            }
            let due = std::mem::take(&mut self.server.due);
            due.into_iter().for_each(|packet| self.down(packet));
        }
    }

    fn cut(&mut self) {
        let lost = self.pair.cut();
        self.lost(&lost);
        self.server.cut();
        self.dialled = false;
    }

    fn dial(&mut self, clean: bool) {
        if self.dialled {
            return;
        }
        let mut connect = lasting(self.setting.version);
        connect.clean_start = clean || !self.in_step;
        self.broken |= connect.clean_start;
        self.in_step = false;
        if self.setting.version == V5 {
            connect.properties.receive_maximum = NonZeroU16::new(self.setting.receive_maximum);
        }
        self.pair
            .session
            .connect(connect, self.pair.now)
            .expect("valid");
        self.dialled = true;
        self.connection += 1;
    }

    /// The application never has more than it takes, and the session never more than its window.
    fn check(&self) {
        let Setting {
            receive_maximum,
            max_in_flight,
            version,
            ..
        } = self.setting;
        let here = |held: &&Held| held.qos == ExactlyOnce || held.connection == self.connection;
        let held = self.held.iter().filter(here).count();
        assert!(version == V3 || held <= receive_maximum.into());
        assert!(self.pair.session.in_flight() <= max_in_flight.into());
    }

    /// Lets both ends come to rest on a connection that holds.
    fn make_peace(&mut self) {
        self.cut();
        self.dial(false);
        self.run();
        while !self.held.is_empty() {
            while !self.held.is_empty() {
                self.take(0, false);
            }
            self.run();
        }
        assert_eq!(self.server.backlog.len(), 0);
        assert_eq!(self.server.open(), 0);
        assert_eq!(self.pair.session.in_flight(), 0);
        assert!(self.pair.open().is_empty());
    }

    fn judge(&self) {
        let took: Vec<usize> = self
            .server
            .took
            .iter()
            .map(|payload| number(payload))
            .collect();
        for (n, (qos, outcome)) in self.published.values().enumerate() {
            let times = took.iter().filter(|took| **took == n).count();
            assert_ne!((*outcome, *qos == AtMostOnce), (Outcome::Open, false));
            match (qos, outcome) {
                (AtLeastOnce, Outcome::Taken) => assert!(times >= 1),
                (ExactlyOnce, Outcome::Taken) => assert_eq!(times, 1),
                (AtLeastOnce, _) => {}
                (AtMostOnce | ExactlyOnce, _) => assert!(times <= 1),
            }
        }
        let published: Vec<_> = self.published.values().map(|(qos, _)| *qos).collect();
        let refused = self.server.refused.iter();
        let refused = refused.map(|payload| number(payload)).collect();
        in_order(&took, &published, &refused);
        for (n, qos) in self.messages.iter().enumerate() {
            let times = self.delivered.iter().filter(|got| **got == n).count();
            if *qos != AtLeastOnce && !self.refused.contains(&n) {
                assert!(times <= 1, "message {n} came {times} times");
            }
            if *qos != AtMostOnce && !self.broken {
                assert!(times >= 1, "message {n} never came");
            }
        }
        in_order(&self.delivered, &self.messages, &self.refused);
    }
}

fn number(payload: &[u8]) -> usize {
    String::from_utf8_lossy(payload).parse().expect("a number")
}

/// What came first of each, at QoS 1 and 2, came in order. What was refused may come again, later.
fn in_order(arrived: &[usize], qos: &[QoS], refused: &BTreeSet<usize>) {
    let mut first = Vec::new();
    let counts = |n: &&usize| qos.get(**n) != Some(&AtMostOnce) && !refused.contains(n);
    for n in arrived.iter().filter(counts) {
        if !first.contains(n) {
            first.push(*n);
        }
    }
    assert!(first.is_sorted(), "{first:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// [MQTT5-4.3.2-3] [MQTT5-4.3.3-10] [MQTT5-4.4.0-1] [MQTT5-4.6.0-1] [MQTT3-4.3.3-2]
    /// [MQTT3-4.4.0-1] [MQTT3-4.6.0-1]
    #[test]
    fn each_qos_keeps_its_promise(
        setting in setting(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(setting);
        world.dial(false);
        steps.into_iter().for_each(|step| world.step(step));
        world.make_peace();
        world.judge();
    }
}
