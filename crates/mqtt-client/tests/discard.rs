//! What a reader that falls behind loses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{config, now, open, subscribed};
use mqtt_client::{Discard, QoS, Subscribe, Subscription, Version};
use tokio::time::Instant;

const EVERY: [Discard; 3] = [Discard::Newest, Discard::Oldest, Discard::AllButLatest];

fn subscribe(discard: Discard) -> Subscribe {
    let subscribe = Subscribe::new("a/#").unwrap().with_max_messages(4);
    subscribe.with_discard(discard)
}

/// What can be read now, as "topic payload".
async fn unread(messages: &mut Subscription) -> Vec<String> {
    let mut unread = Vec::new();
    while let Some(Some(message)) = now(messages.recv()).await {
        let payload = String::from_utf8(message.payload.to_vec()).unwrap();
        unread.push(format!("{} {payload}", &*message.topic));
    }
    unread
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// After these messages, each "topic payload" at its QoS, what is read, and how many were dropped.
async fn check(subscribe: Subscribe, sent: &[(&str, QoS)], read: &[&str], dropped: u64) {
    let (session, mut server) = open(config(Version::V5)).await;
    let discard = subscribe.discard;
    let mut messages = subscribed(&session, &mut server, subscribe).await;
    for (id, (text, qos)) in (1..).zip(sent) {
        let (topic, payload) = text.split_once(' ').unwrap();
        let id = if *qos == ZERO { 0 } else { id };
        server.publish(topic, payload.to_owned(), *qos, id).await;
        // The driver waits for a reader that does not come.
        pause().await;
    }
    assert_eq!(unread(&mut messages).await, read, "{discard:?}");
    assert_eq!(messages.dropped(), dropped, "{discard:?}");
}

const ZERO: QoS = QoS::AtMostOnce;
const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

#[tokio::test(start_paused = true)]
async fn a_full_queue_loses_the_newest_or_the_oldest() {
    let sent = ["a 1", "a 2", "a 3", "a 4", "a 5", "a 6"].map(|text| (text, ZERO));
    let newest = ["a 1", "a 2", "a 3", "a 4"];
    check(subscribe(Discard::Newest), &sent, &newest, 2).await;
    let oldest = ["a 3", "a 4", "a 5", "a 6"];
    check(subscribe(Discard::Oldest), &sent, &oldest, 2).await;
    check(subscribe(Discard::AllButLatest), &sent, &["a 6"], 5).await;
    let plain = Subscribe::new("a/#").unwrap().with_max_messages(4);
    check(plain, &sent, &newest, 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_latest_of_a_topic_takes_the_place_of_the_one_before() {
    let sent = ["a/1 a", "a/2 a", "a/1 b", "a/3 a", "a/2 b", "a/1 c"].map(|text| (text, ZERO));
    let read = ["a/1 c", "a/2 b", "a/3 a"];
    check(subscribe(Discard::AllButLatest), &sent, &read, 3).await;
    // Of too many topics the oldest place goes; a topic that has lost its place gets a new one.
    let sent = ["a/1 a", "a/2 a", "a/3 a", "a/4 a", "a/5 a", "a/1 b"].map(|text| (text, ZERO));
    let read = ["a/3 a", "a/4 a", "a/5 a", "a/1 b"];
    check(subscribe(Discard::AllButLatest), &sent, &read, 2).await;
}

#[tokio::test(start_paused = true)]
async fn qos_1_and_2_are_never_discarded_and_keep_their_place() {
    let sent = [
        ("a/1 one", ONE),
        ("a/1 zero", ZERO),
        ("a/1 two", TWO),
        ("a/2 zero", ZERO),
        ("a/1 more", ONE),
        ("a/3 zero", ZERO),
        ("a/1 last", TWO),
    ];
    let read = ["a/1 one", "a/1 two", "a/1 more", "a/3 zero", "a/1 last"];
    check(subscribe(Discard::Oldest), &sent, &read, 2).await;
    check(subscribe(Discard::AllButLatest), &sent, &read, 2).await;
    // They alone fill it: what comes goes.
    let sent: Vec<_> = [("a 1", ONE); 5]
        .into_iter()
        .chain([("a 0", ZERO)])
        .collect();
    for discard in EVERY {
        check(subscribe(discard), &sent, &["a 1"; 5], 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_as_messages_are() {
    let by_bytes = |discard| {
        let subscribe = Subscribe::new("a/#").unwrap().with_max_bytes(20);
        subscribe.with_discard(discard)
    };
    let sent = ["a/1 1234567", "a/2 1234567", "a/3 1234567"].map(|text| (text, ZERO));
    let read = ["a/2 1234567", "a/3 1234567"];
    check(by_bytes(Discard::Oldest), &sent, &read, 1).await;
    check(by_bytes(Discard::AllButLatest), &sent, &read, 1).await;
    // One that has grown in its place, and one that is larger than all the room.
    let sent = ["a/1 1234567", "a/2 1", "a/2 12345678"].map(|text| (text, ZERO));
    check(by_bytes(Discard::AllButLatest), &sent, &["a/2 12345678"], 2).await;
    let large = "a/1 larger than twenty bytes";
    let sent = [("a/2 1", ZERO), ("a/3 1", ZERO), (large, ZERO)];
    for discard in [Discard::Oldest, Discard::AllButLatest] {
        check(by_bytes(discard), &sent, &[large], 2).await;
    }
}

/// Where those that stay are more than there is room for, no loss of others makes any.
#[tokio::test(start_paused = true)]
async fn a_latest_that_has_no_room_beside_those_that_stay_goes() {
    let all_but_latest = subscribe(Discard::AllButLatest).with_max_bytes(8_usize);
    let sent = [
        ("a 1", ZERO),
        ("a/1 large", ONE),
        ("a/2 large", TWO),
        ("a 2", ZERO),
        ("a 3", ZERO),
    ];
    check(all_but_latest, &sent, &["a/1 large", "a/2 large"], 3).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_makes_room() {
    for discard in [Discard::Oldest, Discard::AllButLatest] {
        let (session, mut server) = open(config(Version::V5)).await;
        let subscribe = Subscribe::new("a/#").unwrap().with_max_bytes(20);
        let subscribe = subscribe.with_discard(discard);
        let mut messages = subscribed(&session, &mut server, subscribe).await;
        for n in 0..9 {
            server.publish(&format!("a/{n}"), "123", ZERO, 0).await;
            pause().await;
            if n >= 2 {
                let topic = messages.recv().await.unwrap().topic;
                assert_eq!(*topic, *format!("a/{}", n - 2), "{discard:?}");
            }
        }
        assert_eq!(messages.dropped(), 0);
    }
}

/// A stream takes what waits in one go by default: what it has taken cannot be replaced.
#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_message_that_is_being_read_may_still_go() {
    for (discard, rest) in [
        (
            Discard::Oldest,
            ["a/1 4", "a/1 5", "a/1 6", "a/1 7"].as_slice(),
        ),
        (Discard::AllButLatest, ["a/1 7"].as_slice()),
    ] {
        let (session, mut server) = open(config(Version::V5)).await;
        let mut messages = subscribed(&session, &mut server, subscribe(discard)).await;
        let mut first = None;
        for n in 1..=7 {
            server.publish("a/1", n.to_string(), ZERO, 0).await;
            pause().await;
            if n == 3 {
                first = messages.recv().await;
            }
        }
        let payload = if discard == Discard::Oldest { "1" } else { "3" };
        assert_eq!(first.unwrap().payload, payload);
        assert_eq!(unread(&mut messages).await, rest);
    }
}

/// Against a queue of the plainest kind, over many random conversations.
#[tokio::test(start_paused = true)]
async fn it_loses_what_a_plain_model_loses() {
    for discard in EVERY {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (session, mut server) = open(config(Version::V5)).await;
            let mut messages = subscribed(&session, &mut server, subscribe(discard)).await;
            // Topic, payload, whether it may be lost.
            let mut model: Vec<(String, String, bool)> = Vec::new();
            let (mut dropped, mut id) = (0, 0);
            for n in 0..200 {
                let piecemeal = discard != Discard::Newest;
                if piecemeal && random.u8(..) < 80 {
                    let expected = (!model.is_empty()).then(|| model.remove(0));
                    let read = now(messages.recv()).await.flatten();
                    let read = read.map(|it| (it.topic.to_string(), it.payload));
                    assert_eq!(
                        read,
                        expected.map(|(topic, payload, _)| (topic, payload.into()))
                    );
                    continue;
                }
                let topic = format!("a/{}", random.u8(..6));
                let free = random.u8(..) < 200;
                let qos = if free { ZERO } else { ONE };
                id += 1;
                let packet_id = if free { 0 } else { id };
                server.publish(&topic, n.to_string(), qos, packet_id).await;
                pause().await;
                let message = (topic.clone(), n.to_string(), free);
                let same = model.iter().position(|it| it.2 && it.0 == topic);
                if free
                    && discard == Discard::AllButLatest
                    && let Some(same) = same
                {
                    model[same] = message;
                    dropped += 1;
                    continue;
                }
                if free && model.len() >= 4 {
                    dropped += 1;
                    match model.iter().position(|it| it.2) {
                        Some(oldest) if piecemeal => {
                            // More than one if those that cannot be lost have filled it.
                            model.remove(oldest);
                            while model.len() >= 4
                                && let Some(oldest) = model.iter().position(|it| it.2)
                            {
                                model.remove(oldest);
                                dropped += 1;
                            }
                            if model.len() >= 4 {
                                dropped += 1;
                                continue;
                            }
                        }
                        _ => continue,
                    }
                }
                model.push(message);
            }
            assert_eq!(messages.dropped(), dropped, "{discard:?} {seed}");
            let rest: Vec<_> = model
                .into_iter()
                .map(|it| format!("{} {}", it.0, it.1))
                .collect();
            assert_eq!(unread(&mut messages).await, rest, "{discard:?} {seed}");
        }
    }
}

/// One that is slow for good is waited for once, not each time it takes a message.
#[tokio::test(start_paused = true)]
async fn a_slow_stream_does_not_hurt_another() {
    for discard in EVERY {
        let (session, mut server) = open(config(Version::V5)).await;
        let slow = Subscribe::new("slow/#").unwrap();
        let slow = slow.with_max_messages(20).with_discard(discard);
        let mut slow = subscribed(&session, &mut server, slow).await;
        let mut quick = subscribed(&session, &mut server, Subscribe::new("quick").unwrap()).await;
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while slow.recv().await.is_some() {
                read += 1;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            (read, slow)
        });
        let began = Instant::now();
        let sender = tokio::spawn(async move {
            for n in 0..2_000_u32 {
                let topic = format!("slow/{}", n % 100);
                server.publish(&topic, "x", ZERO, 0).await;
                let sent = began.elapsed().as_millis().to_string();
                server.publish("quick", sent, ZERO, 0).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server
        });
        let mut late = 0;
        for _ in 0..2_000 {
            let message = quick.recv().await.unwrap();
            let sent: u128 = str::from_utf8(&message.payload).unwrap().parse().unwrap();
            let age = began.elapsed().as_millis() - sent;
            // One that has taken a burst is waited for again if the next fills its queue.
            let times = if discard == Discard::Newest { 2 } else { 1 };
            assert!(age <= 50 * times + 1, "{discard:?} {age}");
            late += u32::from(age > 2);
        }
        // What came in one pause, or in as many as there were bursts that the slow one took.
        let pauses = if discard == Discard::Newest { 6 } else { 1 };
        assert!(late <= 50 * pauses, "{discard:?} {late}");
        drop(sender.await.unwrap());
        let (read, slow) = reader.await.unwrap();
        assert_eq!(read + slow.dropped(), 2_000, "{discard:?}");
    }
}

/// What was lost does not lie about, and neither do topics that come once each.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_what_was_discarded_or_read() {
    let (session, mut server) = open(config(Version::V5)).await;
    let mut messages = subscribed(&session, &mut server, subscribe(Discard::AllButLatest)).await;
    for n in 0..100 {
        server.publish(&format!("a/{n}"), "x", ZERO, 0).await;
        pause().await;
    }
    // Four in their places, and where they are by topic.
    let kept = |topic: &str| format!("{session:#?}").matches(topic).count();
    assert_eq!((kept("\"a/9"), kept("\"a/8")), (8, 0));
    assert_eq!(unread(&mut messages).await.len(), 4);
    assert_eq!(kept("\"a/9"), 0);
}
