//! Random conversations with a server that sends anything at any time.
//!
//! The witness looks on: what the client writes is always a packet it may send, no identifier is
//! used twice, the window holds, nothing follows DISCONNECT. Every token comes back once.

mod session_common;

use std::{num::NonZeroU16, time::Duration};

use mqtt_proto::{
    AckId, Decoder, Event, QoS, ReasonCode, SessionOptions, Version,
    packet::{Ack, ConnAck, Connect, Disconnect, Packet, Properties, Subscribe, Unsubscribe},
};
use proptest::prelude::*;
use session_common::*;

#[derive(Clone, Debug)]
enum Step {
    Publish(QoS),
    /// A message with properties, some of them not allowed.
    PublishOdd(QoS, u16),
    Subscribe(usize),
    Unsubscribe(usize),
    Acknowledge(usize, u8),
    Authenticate(u8),
    Disconnect(u8, Option<u32>),
    Abort(u8),
    /// The answer that the next open exchange awaits.
    Answer(usize),
    Packet(Packet),
    Timeout,
    Wait(u64),
    Drain,
    Cut,
    Dial {
        clean: bool,
        accepted: Option<bool>,
    },
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(AtMostOnce), Just(AtLeastOnce), Just(ExactlyOnce)]
}

/// Any code a packet can carry, and some it cannot; the latter do not survive the wire.
fn code() -> impl Strategy<Value = ReasonCode> {
    prop_oneof![
        4 => Just(OK),
        1 => Just(QUOTA),
        1 => Just(NOT_FOUND),
        1 => Just(ReasonCode::NO_MATCHING_SUBSCRIBERS),
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    let n = 1..6_u16;
    let ack = (n.clone(), code(), prop::bool::weighted(0.1))
        .prop_map(|(n, code, texts)| {
            let mut ack = Ack::with_reason(id(n), code);
            if texts {
                ack.properties = reason_string("text");
            }
            ack
        })
        .boxed();
    let message = (n.clone(), qos(), any::<bool>(), 0..5_u16).prop_map(|(n, qos, dup, alias)| {
        let mut message = message(qos, "m");
        if alias > 0 {
            message.properties.topic_alias = NonZeroU16::new(alias);
        }
        let has_id = qos != AtMostOnce;
        publish_of(message, if has_id { n } else { 0 }, dup && has_id)
    });
    let codes = prop::collection::vec(Just(OK), 1..3);
    prop_oneof![
        12 => message,
        2 => ack.clone().prop_map(Packet::PubAck),
        4 => ack.clone().prop_map(Packet::PubRec),
        4 => ack.clone().prop_map(Packet::PubRel),
        2 => ack.prop_map(Packet::PubComp),
        1 => (n.clone(), codes.clone()).prop_map(|(n, codes)| suback(n, &codes)),
        1 => (n, codes).prop_map(|(n, codes)| unsuback(n, &codes)),
        1 => code().prop_map(disconnect),
        1 => Just(Packet::Auth(auth(ReasonCode::CONTINUE_AUTHENTICATION))),
        1 => Just(Packet::ConnAck(ConnAck::accepted())),
        1 => Just(Packet::PingResp),
        1 => prop_oneof![
            Just(Packet::PingReq),
            Just(Packet::Connect(Box::new(lasting(V5)))),
            Just(Packet::Subscribe(Subscribe {
                packet_id: id(1),
                filters: vec![at_qos_1("a")],
                properties: Properties::default(),
            })),
            Just(Packet::Unsubscribe(Unsubscribe {
                packet_id: id(1),
                filters: vec![filter("a")],
                properties: Properties::default(),
            })),
        ],
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => qos().prop_map(Step::Publish),
        1 => (qos(), 0..4_u16).prop_map(|(qos, alias)| Step::PublishOdd(qos, alias)),
        2 => (0..3_usize).prop_map(Step::Subscribe),
        2 => (0..3_usize).prop_map(Step::Unsubscribe),
        8 => (0..8_usize, prop_oneof![4 => Just(0), 1 => any::<u8>()])
            .prop_map(|(at, code)| Step::Acknowledge(at, code)),
        1 => any::<u8>().prop_map(Step::Authenticate),
        1 => (any::<u8>(), prop::option::of(0..2_u32))
            .prop_map(|(code, expiry)| Step::Disconnect(code, expiry)),
        1 => any::<u8>().prop_map(Step::Abort),
        12 => (0..8_usize).prop_map(Step::Answer),
        10 => packet().prop_map(Step::Packet),
        1 => Just(Step::Timeout),
        1 => (0..40_u64).prop_map(Step::Wait),
        6 => Just(Step::Drain),
        3 => Just(Step::Cut),
        8 => (prop::bool::weighted(0.1), prop::option::weighted(0.9, prop::bool::weighted(0.8)))
            .prop_map(|(clean, accepted)| Step::Dial { clean, accepted }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    version: Version,
    max_in_flight: u16,
    window: u16,
    receive_maximum: u16,
    adopt: bool,
    authenticates: bool,
    texts: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let numbers = (1..5_u16, 1..5_u16, 1..5_u16);
    (
        any::<bool>(),
        numbers,
        any::<[bool; 2]>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(v5, (max_in_flight, window, receive_maximum), [adopt, texts], authenticates)| {
                Setting {
                    version: if v5 { V5 } else { V3 },
                    max_in_flight,
                    window,
                    receive_maximum,
                    adopt,
                    authenticates,
                    texts,
                }
            },
        )
}

struct World {
    setting: Setting,
    pair: Pair,
    dialled: bool,
    /// Whether the session outlives this connection.
    lasts: bool,
    /// Messages the application has not taken: QoS 1 of this connection, QoS 2 of this session.
    held: Vec<(AckId, QoS)>,
}

impl World {
    fn new(setting: Setting) -> Self {
        let options = SessionOptions::default()
            .with_max_in_flight(setting.max_in_flight)
            .with_adopt_session(setting.adopt);
        Self {
            setting,
            pair: Pair::with_options(setting.version, options),
            dialled: false,
            lasts: false,
            held: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        let pair = &mut self.pair;
        match step {
            Step::Publish(qos) => drop(pair.try_publish(message(qos, "m"))),
            Step::PublishOdd(qos, alias) => {
                let mut message = message(qos, "x".repeat(60)).with_retain(true);
                message.properties.topic_alias = NonZeroU16::new(alias);
                drop(pair.try_publish(message));
            }
            Step::Subscribe(n) => drop(pair.try_subscribe(vec![at_qos_1("a/+"); n])),
            Step::Unsubscribe(n) => drop(pair.try_unsubscribe(vec![filter("a/+"); n])),
            Step::Acknowledge(at, code) => {
                if at < self.held.len() {
                    let (ack, _) = self.held.remove(at);
                    pair.session.acknowledge(ack, ReasonCode::new(code));
                }
            }
            Step::Authenticate(code) => {
                drop(pair.session.authenticate(auth(ReasonCode::new(code % 32))));
            }
            Step::Disconnect(code, expiry) => {
                let mut disconnect = Disconnect::new(ReasonCode::new(code % 8));
                if expiry.is_some() {
                    disconnect.properties.session_expiry_interval = expiry;
                }
                let disconnected = pair.session.disconnect(disconnect).is_ok();
                self.lasts &= !(disconnected && expiry == Some(0));
            }
            Step::Abort(code) => {
                if self.dialled {
                    pair.session.abort(ReasonCode::new(code));
                }
            }
            Step::Answer(at) => {
                drop(pair.sent());
                if let Some(packet) = pair.witness.awaited(at) {
                    self.give(packet);
                }
            }
            Step::Packet(packet) => self.give(packet),
            Step::Timeout => {
                if pair.session.next_deadline().is_some() {
                    drop(pair.wait());
                }
            }
            Step::Wait(seconds) => {
                pair.pass(Duration::from_secs(seconds));
                drop(pair.session.handle_timeout(pair.now));
            }
            Step::Drain => drop(pair.sent()),
            Step::Cut => self.cut(),
            Step::Dial { clean, accepted } => self.dial(clean, accepted),
        }
        self.check();
    }

    fn give(&mut self, packet: Packet) {
        let mut bytes = Vec::new();
        let version = self.setting.version;
        if packet.encode(version, &mut bytes).is_ok()
            && Decoder::new(version, 1000)
                .decode(&mut bytes.into())
                .is_err()
        {
            return;
        }
        // So that the witness has seen the question before the answer.
        drop(self.pair.sent());
        match self.pair.try_give(packet) {
            Ok(Some(Event::Message { ack, message, .. })) => {
                self.held.extend(ack.map(|ack| (ack, message.qos)));
            }
            Ok(Some(Event::Connected(connected))) => {
                if !connected.connack.session_present {
                    self.held.clear();
                }
            }
            Ok(_) => {}
            Err(_) => {
                assert!(!self.pair.session.is_connected());
                drop(self.pair.sent());
                assert_eq!(self.pair.try_publish(message(AtMostOnce, "m")).ok(), None);
            }
        }
    }

    fn cut(&mut self) {
        drop(self.pair.cut());
        let lasts = self.lasts;
        self.held.retain(|(_, qos)| lasts && *qos == ExactlyOnce);
        self.dialled = false;
    }

    fn dial(&mut self, clean: bool, accepted: Option<bool>) {
        if self.dialled {
            self.cut();
        }
        let Setting { version, texts, .. } = self.setting;
        let mut connect: Connect = lasting(version);
        connect.clean_start = clean;
        self.lasts = version == V5 || !clean;
        if clean {
            self.held.clear();
        }
        connect.properties.receive_maximum = NonZeroU16::new(self.setting.receive_maximum);
        connect.properties.topic_alias_maximum = Some(3);
        connect.properties.request_problem_information = Some(texts);
        let method = self.setting.authenticates.then(|| text("SCRAM"));
        connect.properties.authentication_method = method.clone();
        self.pair.dial(connect);
        self.dialled = true;
        let Some(resumed) = accepted else {
            return;
        };
        let mut connack = ConnAck::accepted();
        connack.session_present = resumed;
        connack.properties.receive_maximum = NonZeroU16::new(self.setting.window);
        connack.properties.authentication_method = method;
        connack.properties.topic_alias_maximum = Some(2);
        if self.setting.window == 2 {
            connack.properties.maximum_qos = Some(AtLeastOnce);
            connack.properties.maximum_packet_size = std::num::NonZeroU32::new(40);
        }
        self.give(Packet::ConnAck(connack));
    }

    /// Memory is bounded: the application's, and the session's.
    fn check(&self) {
        let Setting {
            receive_maximum,
            max_in_flight,
            ..
        } = self.setting;
        assert!(self.held.len() <= receive_maximum.into());
        assert!(self.pair.session.in_flight() <= max_in_flight.into());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// [MQTT5-2.2.1-3] [MQTT5-3.3.4-7] [MQTT5-3.14.4-1] [MQTT5-4.3.3-6] [MQTT3-2.3.1-2]
    /// [MQTT3-3.14.4-2] [MQTT3-4.3.3-1]
    #[test]
    fn the_client_keeps_its_rules_whatever_the_server_does(
        setting in setting(),
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut world = World::new(setting);
        world.dial(false, Some(false));
        steps.into_iter().for_each(|step| world.step(step));
        // Dropping the pair ends the session and counts the tokens.
    }
}
