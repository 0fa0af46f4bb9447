//! What handlers take and return, and layers around them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mqtt_client::{
    Message, QoS, TopicName,
    proto::packet::{Properties, PublishProperties},
    router::{
        BoxError, FromMessage, HandlerError, Incoming, Path, PathError, Route, RouteService,
        Router, State,
    },
};
use tower::{
    Service, ServiceExt,
    layer::layer_fn,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
    service_fn,
    timeout::TimeoutLayer,
};

use crate::Log;

fn message(topic: &str, payload: &'static str) -> Incoming {
    Message::new(topic.to_owned(), payload).unwrap().into()
}

/// Eight arguments, all that there is to take.
#[tokio::test]
async fn arguments_are_taken_of_the_message() {
    #[derive(serde::Deserialize)]
    struct Names {
        id: u32,
        what: String,
    }
    #[expect(clippy::too_many_arguments, reason = "as many as there may be")]
    async fn handler(
        Path((id, what)): Path<(u32, String)>,
        Path(names): Path<Names>,
        State(log): State<Log>,
        topic: TopicName,
        payload: Bytes,
        text: String,
        properties: Properties<PublishProperties>,
        message: Message,
    ) {
        assert_eq!((id, what.as_str()), (names.id, names.what.as_str()));
        assert_eq!(topic, message.topic);
        assert_eq!(payload, message.payload);
        assert_eq!(message.qos, QoS::AtLeastOnce);
        let content_type = properties.content_type.as_ref().unwrap();
        log.add(format!("{id} {what} {text} {}", &**content_type));
    }
    let log = Log::default();
    let routes = Router::with_state(log.clone())
        .route("devices/{id}/{what}", handler)
        .build()
        .unwrap();
    let mut message = Message::new("devices/7/state", "on")
        .unwrap()
        .with_qos(QoS::AtLeastOnce);
    message.properties.content_type = Some("text/plain".try_into().unwrap());
    routes.oneshot(message.into()).await.unwrap();
    assert_eq!(log.take(), ["7 state on text/plain"]);
}

#[cfg(feature = "json")]
#[tokio::test]
async fn a_payload_of_json() {
    use std::collections::HashMap;

    use mqtt_client::router::Json;

    async fn handler(State(log): State<Log>, Json(values): Json<HashMap<String, u8>>) {
        log.add(format!("{values:?}"));
    }
    let log = Log::default();
    let router = Router::with_state(log.clone()).route("a", handler);
    let mut routes = router.build().unwrap();
    routes.call(message("a", r#"{"x": 1}"#)).await.unwrap();
    assert_eq!(log.take(), [r#"{"x": 1}"#]);
    let error = routes
        .call(message("a", r#"{"x": 256}"#))
        .await
        .unwrap_err();
    let HandlerError::Rejected(cause) = error else {
        panic!("{error:?}");
    };
    assert!(cause.is::<serde_json::Error>());
}

/// The handler is not called, and the reason can be told apart.
#[tokio::test]
async fn a_message_without_what_is_taken_is_rejected() {
    async fn never(_: Path<u32>, _: String) {
        panic!("it was called");
    }
    async fn own(_: Own) {
        panic!("it was called");
    }
    #[derive(Debug)]
    struct Own;
    impl FromMessage<()> for Own {
        type Rejection = &'static str;
        fn from_message(incoming: &Incoming, (): &()) -> Result<Self, &'static str> {
            assert_eq!(incoming.capture("x"), Some("y"));
            Err("not mine")
        }
    }
    async fn looks(path: Result<Path<u32>, PathError>) -> Result<(), PathError> {
        path.map(|_| ())
    }
    let router = Router::new()
        .route("a/{x}", never)
        .route("b/{x}", own)
        .route("c/{x}", looks);
    let mut routes = router.build().unwrap();
    let mut call = async |topic, payload: &'static [u8]| {
        let message = Message::new(topic, Bytes::from_static(payload)).unwrap();
        routes.call(message.into()).await.unwrap_err()
    };
    let rejected = |error| match error {
        HandlerError::Rejected(cause) => cause,
        other => panic!("{other:?}"),
    };
    assert!(rejected(call("a/x", b"").await).is::<PathError>());
    assert!(rejected(call("a/1", b"\xFF").await).is::<std::str::Utf8Error>());
    assert_eq!(rejected(call("b/y", b"").await).to_string(), "not mine");
    let looked = call("c/x", b"").await;
    assert!(matches!(looked, HandlerError::Failed(error) if error.is::<PathError>()));
}

#[tokio::test]
async fn handlers_return_nothing_or_a_result() {
    async fn nothing() {}
    async fn own_error() -> Result<(), std::num::ParseIntError> {
        "x".parse::<u8>().map(|_| ())
    }
    async fn text() -> Result<(), &'static str> {
        Err("text")
    }
    async fn boxed() -> Result<(), BoxError> {
        Ok(())
    }
    let router = Router::new()
        .route("nothing", nothing)
        .route("own", own_error)
        .route("text", text)
        .route("boxed", boxed);
    let mut routes = router.build().unwrap();
    for (topic, expected) in [
        ("nothing", None),
        ("own", Some("invalid digit found in string")),
        ("text", Some("text")),
        ("boxed", None),
    ] {
        let outcome = routes.call(message(topic, "")).await;
        let failed = outcome.err().map(|error| match error {
            HandlerError::Failed(error) => error.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(failed.as_deref(), expected);
    }
}

/// What a layer answers is a failure, and what it passes on is the handler's own error.
#[tokio::test(start_paused = true)]
async fn layers_go_around_routes() {
    async fn slow() {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    async fn takes_a_number(_: Path<u8>) {}
    let timeout = || TimeoutLayer::new(Duration::from_secs(1));
    let router = Router::new()
        .with_route(Route::new("slow", slow).with_layer(timeout()))
        .with_route(Route::new("number/{n}", takes_a_number).with_layer(timeout()))
        .route("free", slow);
    let mut routes = router.build().unwrap();
    let error = routes.call(message("slow", "")).await.unwrap_err();
    assert!(
        matches!(error, HandlerError::Failed(error) if error.is::<tower::timeout::error::Elapsed>())
    );
    let error = routes.call(message("number/x", "")).await.unwrap_err();
    assert!(matches!(error, HandlerError::Rejected(_)));
    routes.call(message("free", "")).await.unwrap();
}

/// A service that must be ready before it is called, as a limit is, panics otherwise. It is shared by all clones.
#[tokio::test(start_paused = true)]
async fn a_route_is_called_when_it_is_ready() {
    async fn slow() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let limit = ConcurrencyLimitLayer::new(2);
    let router = Router::new().with_route(Route::new("a/{x}", slow).with_layer(limit));
    let routes = router.build().unwrap();
    let start = tokio::time::Instant::now();
    let mut handled = tokio::task::JoinSet::new();
    for n in 0..6 {
        handled.spawn(routes.clone().oneshot(message(&format!("a/{n}"), "")));
    }
    for outcome in handled.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

/// A layer that notes that it was passed.
fn passing(
    log: &Log,
    name: &'static str,
) -> impl tower::Layer<
    RouteService,
    Service: Service<Incoming, Response = (), Error = HandlerError, Future: Send + 'static>
                 + Clone
                 + Send
                 + Sync
                 + 'static,
> + Send
+ 'static {
    let log = log.clone();
    layer_fn(move |service: RouteService| {
        let log = log.clone();
        service.map_request(move |incoming: Incoming| {
            log.add(format!("{name} {:?}", incoming.pattern()));
            incoming.with_payload(format!("{name} "))
        })
    })
}

#[tokio::test]
async fn later_layers_are_outside_and_those_of_the_router_outside_all() {
    async fn handler(State(log): State<Log>, payload: String) {
        log.add(payload);
    }
    let log = Log::default();
    let mut routes = Router::with_state(log.clone())
        .with_layer(passing(&log, "3"))
        .with_layer(passing(&log, "4"))
        .with_route(
            Route::new("a", handler)
                .with_layer(passing(&log, "1"))
                .with_layer(passing(&log, "2")),
        )
        .with_fallback(handler)
        .build()
        .unwrap();
    routes.call(message("a", "")).await.unwrap();
    let expected = ["4 None", "3 None", r#"2 Some("a")"#, r#"1 Some("a")"#, "1 "];
    assert_eq!(log.take(), expected);
    routes.call(message("other", "")).await.unwrap();
    assert_eq!(log.take(), ["4 None", "3 None", "3 "]);
}

/// The limit of a layer around the router is one for all routes; a service that is not ready waits by itself.
#[tokio::test(start_paused = true)]
async fn a_limit_around_the_router_is_for_all_routes() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let service = {
        let (running, most) = (running.clone(), most.clone());
        service_fn(move |_: Incoming| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(
                    running.fetch_add(1, Ordering::Relaxed) + 1,
                    Ordering::Relaxed,
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<(), BoxError>(())
            }
        })
    };
    let routes = Router::new()
        .with_route(Route::from_service("a/{x}", service.clone()))
        .with_route(Route::from_service("b/{x}", service))
        .with_layer(GlobalConcurrencyLimitLayer::new(3))
        .build()
        .unwrap();
    let start = tokio::time::Instant::now();
    let mut handled = tokio::task::JoinSet::new();
    for n in 0..6 {
        for topic in ["a", "b"] {
            handled.spawn(routes.clone().oneshot(message(&format!("{topic}/{n}"), "")));
        }
    }
    for outcome in handled.join_all().await {
        outcome.unwrap();
    }
    assert_eq!(most.load(Ordering::Relaxed), 3);
    assert_eq!(start.elapsed(), Duration::from_secs(4));
}
