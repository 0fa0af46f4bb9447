//! What dropping a future does, for every public future of this crate and of `mqtt-pool`.
//!
//! The rule: what was not sent is withdrawn, what was sent goes on, and nothing leaks. Each line names the
//! test that drops the future after each of its polls, or where it waits.
//!
//! | future | dropped before it is done | test |
//! | --- | --- | --- |
//! | `connect`, `ConnectFuture` | gives up, and closes what was opened | `cancel.rs`, `authenticate/connecting.rs` |
//! | `publish`, `PublishFuture` | withdrawn if not sent, otherwise completed without its caller | `cancel.rs` |
//! | `admit`, `Publisher::ready` | not taken; leaves the line | `cancel.rs` |
//! | `Admitted` | nothing: it is sent, and nobody is told its outcome | `outbox/outcomes.rs`, `cancel.rs` |
//! | `subscribe`, `SubscribeFuture` | withdrawn, or unsubscribed again once granted | `cancel.rs`, `subscribe.rs` |
//! | `recv`, also by hand | takes no message | `cancel.rs`, `acknowledge.rs` |
//! | `unsubscribe` | it is unsubscribed all the same | `cancel.rs` |
//! | `disconnect`, `drain` | takes no new requests; leaves with the last handle | `cancel.rs` |
//! | `closed`, changes of `watch_state` | nothing | `cancel.rs` |
//! | `reauthenticate` | the exchange goes on in a task of its own | `authenticate/again.rs` |
//! | `requester` | gives its subscription up | `cancel_above.rs` |
//! | `request`, `RequestFuture` | forgotten; its reply is counted as late | `request/matching.rs` |
//! | `respond` | gives its subscription up | `cancel_above.rs` |
//! | `ended` of a responder | nothing | `cancel_above.rs` |
//! | `shutdown` of a responder | gives up what runs | `request/responding.rs` |
//! | `serve`, `serve_until` of routes | aborts handlers, whose messages are not acknowledged, and unsubscribes | `router/ending.rs` |
//! | `publish`, `publish_keyed` of a `SessionPool` | leaves its turn to the next; then as `publish` | `cancel_above.rs`, `session_pool.rs` |
//! | `get` of a registry | the opening is left to others, or to the next | `registry.rs`, `cancel_above.rs` |
//! | `remove`, `drain`, `close` of a registry or a `SessionPool` | may be called again | `cancel_above.rs` |
//! | `get` of a pool, of shared members | leaves its dial to the next | `mqtt-pool`: `acquiring.rs`, `sharing.rs` |
//! | `enter` of a dial gate | leaves the line to others | `mqtt-pool`: `gating.rs` |
