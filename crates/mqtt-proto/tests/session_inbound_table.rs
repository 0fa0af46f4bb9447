//! Every state of an inbound packet identifier against every input that concerns it.

mod session_common;

use mqtt_proto::{AckId, Event, Version};
use session_common::*;

/// What the client knows of identifier 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Unknown,
    /// QoS 1, the application has it.
    Unacknowledged,
    /// QoS 2, the application has it.
    Held,
    /// The same, from an earlier connection.
    HeldEarlier,
    /// The same, and the application has taken it since.
    TakenEarlier,
    /// PUBREC was sent.
    Released,
    /// PUBREC was sent on an earlier connection; afterwards not told from `Released`.
    ReleasedEarlier,
}

#[derive(Clone, Copy, Debug)]
enum Input {
    PublishQoS1,
    PublishQoS2,
    RepeatQoS2,
    PubRel,
    Acknowledge,
    Refuse,
    ConnectionLost,
}

/// What comes of it: whether a message is delivered, what is written, and the state of the
/// identifier afterwards.
#[derive(Clone, Copy, Debug)]
struct Cell(Delivered, Writes, State);

type Delivered = bool;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Writes {
    Nothing,
    PubAck,
    /// PUBACK with the code of the refusal.
    PubAckError,
    PubRec,
    /// PUBREC with the code of the refusal.
    PubRecError,
    PubComp,
    /// PUBCOMP that says the identifier is not known.
    PubCompUnknown,
}

const INPUTS: [Input; 7] = [
    Input::PublishQoS1,
    Input::PublishQoS2,
    Input::RepeatQoS2,
    Input::PubRel,
    Input::Acknowledge,
    Input::Refuse,
    Input::ConnectionLost,
];

/// One line for each state, its cells in the order of [`INPUTS`]. A PUBLISH at QoS 1 is always a
/// new message and does not touch what is known at QoS 2; it is acknowledged at once here.
#[rustfmt::skip]
const TABLE: [(State, [Cell; 7]); 7] = {
    use State::*;
    use Writes::*;
    [
        (Unknown,         [Cell(true, PubAck, Unknown),         Cell(true, Nothing, Held),             Cell(true, Nothing, Held),             Cell(false, PubCompUnknown, Unknown),        Cell(false, Nothing, Unknown),         Cell(false, Nothing, Unknown),          Cell(false, Nothing, Unknown)]),
        (Unacknowledged,  [Cell(true, Nothing, Unacknowledged), Cell(true, Nothing, Held),             Cell(true, Nothing, Held),             Cell(false, PubCompUnknown, Unacknowledged), Cell(false, PubAck, Unknown),          Cell(false, PubAckError, Unknown),      Cell(false, Nothing, Unknown)]),
        (Held,            [Cell(true, Nothing, Held),           Cell(false, Nothing, Held),            Cell(false, Nothing, Held),            Cell(false, PubCompUnknown, Held),           Cell(false, PubRec, Released),         Cell(false, PubRecError, Unknown),      Cell(false, Nothing, HeldEarlier)]),
        (HeldEarlier,     [Cell(true, PubAck, HeldEarlier),     Cell(false, Nothing, Held),            Cell(false, Nothing, Held),            Cell(false, PubCompUnknown, HeldEarlier),    Cell(false, Nothing, TakenEarlier),    Cell(false, Nothing, TakenEarlier),     Cell(false, Nothing, HeldEarlier)]),
        (TakenEarlier,    [Cell(true, PubAck, TakenEarlier),    Cell(false, PubRec, Released),         Cell(false, PubRec, Released),         Cell(false, PubCompUnknown, TakenEarlier),   Cell(false, Nothing, TakenEarlier),    Cell(false, Nothing, TakenEarlier),     Cell(false, Nothing, TakenEarlier)]),
        (Released,        [Cell(true, PubAck, Released),        Cell(false, PubRec, Released),         Cell(false, PubRec, Released),         Cell(false, PubComp, Unknown),               Cell(false, Nothing, Released),        Cell(false, Nothing, Released),         Cell(false, Nothing, Released)]),
        (ReleasedEarlier, [Cell(true, PubAck, Released), Cell(false, PubRec, Released),         Cell(false, PubRec, Released),         Cell(false, PubComp, Unknown),               Cell(false, Nothing, Released), Cell(false, Nothing, Released),  Cell(false, Nothing, Released)]),
    ]
};

/// The client in this state, with what names the message if the application ever had it.
fn pair_in(state: State, version: Version) -> (Pair, Option<AckId>) {
    let mut pair = Pair::connected(version);
    let qos = match state {
        State::Unknown => return (pair, None),
        State::Unacknowledged => AtLeastOnce,
        State::Held
        | State::HeldEarlier
        | State::TakenEarlier
        | State::Released
        | State::ReleasedEarlier => ExactlyOnce,
    };
    let ack = pair.deliver(publish(qos, 1, "m"));
    if matches!(state, State::Released | State::ReleasedEarlier) {
        pair.acknowledge(ack);
        assert_eq!(pair.sent(), [pubrec(1)]);
    }
    if matches!(
        state,
        State::HeldEarlier | State::TakenEarlier | State::ReleasedEarlier
    ) {
        pair.resume();
    }
    if state == State::TakenEarlier {
        pair.acknowledge(ack);
    }
    assert_eq!(pair.sent(), []);
    (pair, Some(ack))
}

/// [MQTT5-4.3.2-4] [MQTT5-4.3.2-5] [MQTT5-4.3.3-8] [MQTT5-4.3.3-9] [MQTT5-4.3.3-10]
/// [MQTT5-4.3.3-11] [MQTT5-4.3.3-12] [MQTT3-4.3.2-2] [MQTT3-4.3.3-2] [MQTT5 4.3.3]
#[test]
fn every_input_in_every_state() {
    both(|version| {
        for (state, cells) in TABLE {
            for (input, cell) in INPUTS.into_iter().zip(cells) {
                println!("{state:?}, {input:?}: {cell:?}");
                check(state, input, cell, version);
            }
        }
    });
}

fn check(state: State, input: Input, Cell(is_delivered, writes, after): Cell, version: Version) {
    let (mut pair, _, event) = pair_after(state, input, version);
    assert_eq!(event, is_delivered);
    let v5 = version == V5;
    let expected = match writes {
        Writes::Nothing => vec![],
        Writes::PubAck => vec![puback(1)],
        Writes::PubAckError => vec![puback_with(1, if v5 { QUOTA } else { OK })],
        Writes::PubRec => vec![pubrec(1)],
        Writes::PubRecError => vec![pubrec_with(1, if v5 { QUOTA } else { OK })],
        Writes::PubComp => vec![pubcomp(1)],
        Writes::PubCompUnknown => vec![pubcomp_with(1, if v5 { NOT_FOUND } else { OK })],
    };
    assert_eq!(pair.sent(), expected);
    if v5 {
        assert_eq!(state_after(state, input), after);
    } else if writes == Writes::PubRecError {
        // Without codes a PUBREC says that the message was taken [MQTT3-4.3.3-2].
        assert_eq!(pair.give(repeat(ExactlyOnce, 1, "m")), None);
    }
}

/// The client after the input, what names its messages, and whether one was delivered.
fn pair_after(state: State, input: Input, version: Version) -> (Pair, Vec<AckId>, bool) {
    let (mut pair, ack) = pair_in(state, version);
    let mut acks = Vec::from_iter(ack);
    let event = match input {
        Input::PublishQoS1 => pair.give(publish(AtLeastOnce, 1, "new")),
        Input::PublishQoS2 => pair.give(publish(ExactlyOnce, 1, "m")),
        Input::RepeatQoS2 => pair.give(repeat(ExactlyOnce, 1, "m")),
        Input::PubRel => pair.give(pubrel(1)),
        Input::Acknowledge | Input::Refuse => {
            let refuses = matches!(input, Input::Refuse);
            if let Some(ack) = ack {
                pair.session
                    .acknowledge(ack, if refuses { QUOTA } else { OK });
            }
            None
        }
        Input::ConnectionLost => {
            pair.resume();
            None
        }
    };
    let is_delivered = event.is_some();
    if let Some(Event::Message {
        ack: Some(new),
        message,
        ..
    }) = event
    {
        if message.qos == ExactlyOnce {
            acks.push(new);
        } else {
            pair.acknowledge(new);
        }
    }
    (pair, acks, is_delivered)
}

/// Finds out what the client knows of identifier 1 after the input. Each question changes the
/// state, so each is asked of a client of its own.
fn state_after(state: State, input: Input) -> State {
    let ask = |question: fn(&mut Pair, Vec<AckId>) -> bool| {
        let (mut pair, acks, _) = pair_after(state, input, V5);
        pair.sent();
        let delivered = question(&mut pair, acks);
        (delivered, pair.sent())
    };
    let (_, released) = ask(|pair, _| pair.give(pubrel(1)).is_some());
    if released == [pubcomp(1)] {
        return State::Released;
    }
    let (_, acknowledged) = ask(|pair, acks| {
        acks.into_iter().for_each(|ack| pair.acknowledge(ack));
        false
    });
    if acknowledged.contains(&pubrec(1)) {
        return State::Held;
    }
    if acknowledged.contains(&puback(1)) {
        return State::Unacknowledged;
    }
    match ask(|pair, _| pair.give(repeat(ExactlyOnce, 1, "m")).is_some()) {
        (true, _) => State::Unknown,
        (false, sent) if sent == [pubrec(1)] => State::TakenEarlier,
        (false, sent) if sent == [pubrec_with(1, QUOTA)] => State::TakenEarlier,
        (false, sent) => {
            assert_eq!(sent, []);
            State::HeldEarlier
        }
    }
}
