//! Messages to handlers by their topics, as a web framework does it with requests.
//!
//! ```text
//! cargo run -p examples --example router                                        # on an embedded server
//! cargo run -p examples --example router -- --server mqtt://localhost:1883      # on any server
//! ```
//!
//! A few devices publish states as JSON, log lines and jobs. A router sorts them: captures of the topic and
//! the payload are arguments of the handlers, a layer limits how long a job may take, and what cannot be
//! handled is rejected so that the server does not send it again. Ends with status 1 if a message is not
//! handled as it should be.

use std::{error::Error, process::ExitCode, time::Duration};

use mqtt_client::{
    Endpoint, Publish, QoS, ReasonCode, SessionConfig, SessionConnector, Version,
    router::{
        BoxError, HandlerError, Json, OnFailure, Order, Path, Route, Router, Routes, ServeEnd,
        State,
    },
};
use mqtt_testkit::EmbeddedServer;
use serde::Deserialize;
use tokio::{
    sync::{
        mpsc::{self, error::SendError},
        oneshot,
    },
    time::timeout,
};
use tower::timeout::TimeoutLayer;

const HELP: &str = "\
router [--server URL] [--mqtt 3|5]
  --server URL   a server to use instead of the embedded one: mqtt://host:port or unix:///path
  --mqtt 3|5     MQTT 3.1.1 or 5.0 (5)";

/// How long to wait for a handler before something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the devices publish, and what is to come of it.
const MESSAGES: [(&str, &str, &str); 8] = [
    (
        "devices/1/state",
        r#"{"on": true, "celsius": 21.5}"#,
        "device 1 is on at 21.5 °C",
    ),
    (
        "devices/2/state",
        r#"{"on": false, "celsius": 4}"#,
        "device 2 is off at 4 °C",
    ),
    (
        "devices/3/state",
        "not JSON",
        "the message is not what the handler takes",
    ),
    (
        "devices/x/state",
        r#"{"on": true, "celsius": 1}"#,
        "the message is not what the handler takes",
    ),
    ("devices/gateway/state", "well", "the gateway is well"),
    (
        "devices/1/log/net/tcp",
        "connected",
        "device 1, net.tcp: connected",
    ),
    ("jobs/count", "0", "a job is done: count"),
    ("jobs/sleep", "60", "the handler failed"),
];

/// What the handlers share: here whom they tell what they did, in a program a database, a cache, another client.
#[derive(Clone)]
struct App {
    done: mpsc::Sender<String>,
}

#[derive(Deserialize)]
struct DeviceState {
    on: bool,
    celsius: f32,
}

async fn on_state(
    State(app): State<App>,
    Path(device): Path<u32>,
    Json(state): Json<DeviceState>,
) -> Result<(), SendError<String>> {
    let is = if state.on { "on" } else { "off" };
    let done = format!("device {device} is {is} at {} °C", state.celsius);
    app.done.send(done).await
}

async fn on_log(
    State(app): State<App>,
    Path((device, module)): Path<(u32, Vec<String>)>,
    line: String,
) -> Result<(), SendError<String>> {
    let done = format!("device {device}, {}: {line}", module.join("."));
    app.done.send(done).await
}

async fn on_gateway(State(app): State<App>, state: String) -> Result<(), SendError<String>> {
    app.done.send(format!("the gateway is {state}")).await
}

async fn on_job(
    State(app): State<App>,
    Path(kind): Path<String>,
    seconds: String,
) -> Result<(), BoxError> {
    tokio::time::sleep(Duration::from_secs(seconds.parse()?)).await;
    app.done.send(format!("a job is done: {kind}")).await?;
    Ok(())
}

/// Patterns that begin with `base`, so that runs on one server keep out of each other's way.
fn routes(base: &str, app: App) -> Result<Routes, Box<dyn Error>> {
    let failed = app.done.clone();
    let jobs = Route::new(&format!("$share/workers/{base}/jobs/{{kind}}"), on_job)
        .with_layer(TimeoutLayer::new(Duration::from_secs(1)))
        .with_order(Order::None);
    let routes = Router::with_state(app)
        .route(&format!("{base}/devices/{{id}}/state"), on_state)
        .route(&format!("{base}/devices/{{id}}/log/{{*module}}"), on_log)
        // More specific than the states of devices, so that these messages come here and not there.
        .route(&format!("{base}/devices/gateway/state"), on_gateway)
        .with_route(jobs)
        .with_failure_policy(move |error: &HandlerError| {
            // Here a full channel matters no more than what did not fit in.
            let _ = failed.try_send(error.to_string());
            OnFailure::Reject(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR)
        })
        .build()?;
    Ok(routes)
}

pub(crate) struct Options {
    server: Option<String>,
    version: Version,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            server: None,
            version: Version::V5,
        };
        while let Some(arg) = args.next() {
            let value = args.next().ok_or(HELP);
            match arg.as_str() {
                "--server" => options.server = Some(value?),
                "--mqtt" => {
                    options.version = match value?.as_str() {
                        "3" | "3.1.1" => Version::V3,
                        "5" | "5.0" => Version::V5,
                        other => return Err(format!("--mqtt {other}: 3 or 5\n{HELP}").into()),
                    }
                }
                _ => return Err(HELP.into()),
            }
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => run(options).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs it all; false if a message was not handled as it should be.
pub(crate) async fn run(options: Options) -> Result<bool, Box<dyn Error>> {
    let embedded = match &options.server {
        Some(_) => None,
        None => Some(EmbeddedServer::start().await?),
    };
    let url = options
        .server
        .or_else(|| embedded.as_ref().map(EmbeddedServer::url));
    let endpoint: Endpoint = url.unwrap_or_default().parse()?;
    println!("server   {endpoint}, MQTT {}", options.version);

    let base = format!("router-{}", std::process::id());
    let config = SessionConfig::new(&base).with_version(options.version);
    let session = SessionConnector::new(config)?.connect(endpoint).await?;

    let (done, mut handled) = mpsc::channel(MESSAGES.len());
    let routes = routes(&base, App { done })?;
    println!("routes   {routes:?}");
    let subscribed = routes.subscribe(&session).await?;
    let (shutdown, told) = oneshot::channel::<()>();
    let serving = tokio::spawn(subscribed.serve_until(async { drop(told.await) }));

    for (topic, payload, _) in MESSAGES {
        let publish = Publish::new(format!("{base}/{topic}"), payload)?.with_qos(QoS::AtLeastOnce);
        session.publish(publish).await?;
    }

    let mut all_well = true;
    let mut expected: Vec<_> = MESSAGES.iter().map(|(.., expected)| *expected).collect();
    while !expected.is_empty() {
        let Ok(Some(line)) = timeout(PATIENCE, handled.recv()).await else {
            println!("MISSING  {expected:?}");
            all_well = false;
            break;
        };
        match expected.iter().position(|expected| *expected == line) {
            Some(place) => {
                expected.swap_remove(place);
                println!("handled  {line}");
            }
            None => {
                println!("NOT MEANT {line}");
                all_well = false;
            }
        }
    }

    // What was taken is handled and acknowledged, and then it unsubscribes and leaves.
    let _ = shutdown.send(());
    let end = serving.await?;
    if let ServeEnd::ShutDown(subscribed) = end {
        subscribed.unsubscribe().await?;
    } else {
        println!("ENDED    {end:?}");
        all_well = false;
    }
    session.disconnect().await?;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    Ok(all_well)
}
