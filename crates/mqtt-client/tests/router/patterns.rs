//! Which topics go to which route, and what is no router.

use mqtt_client::{
    Message, TopicFilter,
    router::{HandlerError, Incoming, Path, PatternError, Router, State},
};
use proptest::{collection::vec, prelude::*};
use tower::{Service, ServiceExt};

use crate::{Log, router};

/// All that is wrong is told at once, each conflict with both patterns.
#[test]
fn every_problem_is_told_when_it_is_built() {
    async fn handler() {}
    let patterns = [
        "devices/{id}/state",
        "devices/{}/x",
        "devices/{name}/state",
        "a/{*rest}/b",
        "$share/group/devices/+/state",
        "a/#",
        "a/{*rest}",
        "a+b",
        "{x}/{x}",
    ];
    let router = patterns.iter().fold(Router::new(), |router, pattern| {
        router.route(pattern, handler)
    });
    let errors = router.build().unwrap_err();
    let conflicts: Vec<_> = errors
        .iter()
        .filter_map(|error| match error {
            PatternError::Conflict { first, second } => Some([first.as_str(), second.as_str()]),
            _ => None,
        })
        .collect();
    let expected = [
        ["devices/{id}/state", "devices/{name}/state"],
        ["devices/{id}/state", "$share/group/devices/+/state"],
        ["a/#", "a/{*rest}"],
    ];
    assert_eq!(conflicts, expected);
    assert_eq!(errors.iter().count(), 7);
    let text = "\
`{}` in `devices/{}/x`: a capture is a whole level, `{name}` or `{*name}`, and other braces are doubled
in `a/{*rest}/b` something follows what takes the rest
`a+b` is not a topic filter: `+` fills a whole level
`{x}/{x}` captures `x` twice
`devices/{id}/state` and `devices/{name}/state` are for the same topics
`devices/{id}/state` and `$share/group/devices/+/state` are for the same topics
`a/#` and `a/{*rest}` are for the same topics";
    assert_eq!(errors.to_string(), text);
}

#[tokio::test]
async fn what_no_route_matches_goes_to_the_fallback() {
    let log = Log::default();
    let message = || Incoming::new(Message::new("$SYS/x", "").unwrap());
    let mut routes = router(&log, &["#"]).build().unwrap();
    let error = routes.ready().await.unwrap().call(message()).await;
    assert!(matches!(error, Err(HandlerError::NotRouted)));
    let fallback = |State(log): State<Log>, incoming: Incoming| async move {
        assert_eq!(incoming.pattern(), None);
        assert_eq!(incoming.captures().count(), 0);
        log.add("fallback");
    };
    let router = router(&log, &["#"]).with_fallback(fallback);
    router.build().unwrap().oneshot(message()).await.unwrap();
    assert_eq!(log.take(), ["fallback"]);
}

#[tokio::test]
async fn one_router_inside_another_finds_its_own_routes() {
    async fn inner(Path(rest): Path<String>) -> Result<(), String> {
        Err(rest)
    }
    let inner = Router::new().route("a/{*rest}", inner).build().unwrap();
    let outer = Router::new()
        .with_route(mqtt_client::router::Route::from_service(
            "{x}/{y}/{*z}",
            inner,
        ))
        .build()
        .unwrap();
    let message = Message::new("a/b/c", "").unwrap();
    let error = outer.oneshot(message.into()).await.unwrap_err();
    let HandlerError::Failed(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.to_string(), "b/c");
}

/// Levels of patterns: what is subscribed to, and how it ranks.
fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just("a"), Just("b"), Just("$a"), Just("+")]
}

fn pattern() -> impl Strategy<Value = String> {
    let levels = vec(level(), 1..5);
    (levels, any::<bool>()).prop_map(|(mut levels, rest)| {
        if rest {
            levels.pop();
            levels.push("#");
        }
        levels.join("/")
    })
}

fn topic() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![Just(""), Just("a"), Just("b"), Just("$a")],
        1..6,
    )
    .prop_map(|levels| levels.join("/"))
    .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

/// Lower wins: level by level a literal, `+`, `#`; and a pattern that ends before one that takes the rest.
fn rank(pattern: &str) -> Vec<u8> {
    let levels = pattern.split('/');
    levels
        .map(|level| match level {
            "#" => 3,
            "+" => 2,
            _ => 1,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Against the filters themselves: a topic goes to the best of those that match it, or nowhere.
    #[test]
    fn a_topic_goes_to_the_most_specific_filter_that_matches(
        mut patterns in vec(pattern(), 1..8),
        topics in vec(topic(), 1..8),
    ) {
        patterns.sort();
        patterns.dedup();
        patterns.retain(|pattern| !pattern.is_empty());
        let router = patterns.iter().fold(Router::new(), |router, pattern| {
            router.route(pattern, |incoming: Incoming| async move {
                Err::<(), _>(incoming.pattern().unwrap().to_owned())
            })
        });
        let mut routes = router.build().unwrap();
        for topic in topics {
            let matching = patterns
                .iter()
                .filter(|pattern| TopicFilter::new(pattern.as_str()).unwrap().matches(&topic));
            let expected = matching.min_by_key(|pattern| rank(pattern));
            let message = Message::new(topic.clone(), "").unwrap();
            let mut handled = routes.call(message.into());
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let std::task::Poll::Ready(outcome) = handled.as_mut().poll(&mut cx) else {
                panic!("it waits");
            };
            let found = match outcome.unwrap_err() {
                HandlerError::Failed(pattern) => Some(pattern.to_string()),
                HandlerError::NotRouted => None,
                error => panic!("{error:?}"),
            };
            prop_assert_eq!(found, expected.cloned(), "{}", topic);
        }
    }
}
