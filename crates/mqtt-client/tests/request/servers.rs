//! Both sides over a real server: a thousand requests at once, layers on either side, a restart.

use std::{convert::Infallible, time::Duration};

use mqtt_client::{
    Message, Reply, Request, RequestError, RequesterConfig, ResponderConfig, Session,
    SessionConfig, SessionConnector, Subscribe, TopicFilter,
};
use mqtt_testkit::Mosquitto;
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

const REQUESTS: usize = 1_000;

async fn open(client_id: &str, url: &str) -> Session {
    let connector = SessionConnector::new(SessionConfig::new(client_id)).unwrap();
    connector.connect(url.parse().unwrap()).await.unwrap()
}

async fn check(url: &str) {
    let (asks, answers) = (open("asks", url).await, open("answers", url).await);
    let echo = service_fn(|request: Message| async move {
        let payload = [b"re: ", &request.payload[..]].concat();
        Ok::<_, Infallible>(Reply::new(payload))
    });
    let service = ServiceBuilder::new()
        .concurrency_limit(128)
        .timeout(PATIENCE)
        .service(echo);
    let filter = TopicFilter::new("responses/#").unwrap();
    let options = ResponderConfig::default()
        .with_max_running(256_usize)
        .with_response_filter(Some(filter));
    let subscribe = Subscribe::new("$share/echoes/echo/+").unwrap();
    let respond = answers.respond(subscribe, service, options);
    let responder = respond.await.unwrap();
    let options = RequesterConfig::default().with_timeout(PATIENCE);
    let requester = asks.requester(options).await.unwrap();
    let mut requests = JoinSet::new();
    for number in 0..REQUESTS {
        let mut requester = requester.clone();
        requests.spawn(async move {
            let topic = format!("echo/{}", number % 7);
            let request = Request::new(topic, number.to_string()).unwrap();
            let reply = requester.ready().await.unwrap().call(request).await;
            assert_eq!(reply.unwrap().payload, format!("re: {number}"));
        });
    }
    while let Some(outcome) = requests.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(requester.open(), 0);
    let answered = responder.totals().answered;
    responder.shutdown(PATIENCE).await.unwrap();
    assert!(answered > 0);
    drop(requester);
    for session in [asks, answers] {
        session.disconnect().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto() {
    let Some(mut server) = Mosquitto::start_or_skip("requests over mosquitto").await else {
        return;
    };
    check(&server.tcp_url()).await;

    let asks = open("asks-nobody", &server.tcp_url()).await;
    let requester = asks.requester(RequesterConfig::default()).await.unwrap();
    let nobody = requester.request(Request::new("nobody", "").unwrap()).await;
    assert!(
        matches!(nobody, Err(RequestError::NoSubscribers)),
        "{nobody:?}"
    );

    // Both sides are there again after their server, which has forgotten them.
    let answers = open("answers-again", &server.tcp_url()).await;
    let echo = service_fn(|it: Message| async { Ok::<_, Infallible>(Reply::new(it.payload)) });
    let subscribe = Subscribe::new("echo").unwrap();
    let respond = answers.respond(subscribe, echo, ResponderConfig::default());
    let _responder = respond.await.unwrap();
    server.kill();
    server.restart().await.unwrap();
    let answered = async {
        loop {
            let request = Request::new("echo", "again").unwrap();
            match requester.request(request.with_timeout(PATIENCE)).await {
                Ok(reply) => break reply,
                // The responder is not back yet.
                Err(RequestError::NoSubscribers) => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let reply = tokio::time::timeout(PATIENCE, answered).await.unwrap();
    assert_eq!(reply.payload, "again");
}
