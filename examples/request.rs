//! Requests and replies over MQTT 5.0, and what they cost.
//!
//! ```text
//! cargo run --release -p examples --example request                    # on an embedded server
//! cargo run --release -p examples --example request -- --server mqtt://localhost:1883
//! ```
//!
//! One session answers: it adds the numbers it is sent, with a time limit by tower, and tells of what
//! are no numbers in a user property. Another asks, from many tasks at once, and checks every reply.
//! Ends with status 1 if any is missing or wrong.

use std::{error::Error, io::Write, process::ExitCode, time::Duration};

use mqtt_client::{
    Endpoint, Message, Reply, Request, RequestError, Requester, RequesterConfig, ResponderConfig,
    Session, SessionConfig, SessionConnector, Subscribe, TopicFilter,
    proto::{Utf8String, packet::PublishProperties},
};
use mqtt_testkit::EmbeddedServer;
use tokio::{task::JoinSet, time::Instant};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const HELP: &str = "\
request [--server URL] [--requests N] [--open N]
  --server URL   a server to use instead of the embedded one
  --requests N   requests in all (20000)
  --open N       requests without a reply at a time (1000)";

pub(crate) struct Options {
    server: Option<String>,
    requests: usize,
    open: usize,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            server: None,
            requests: 20_000,
            open: 1_000,
        };
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| format!("{arg} needs a value\n{HELP}"))
            };
            match arg.as_str() {
                "--server" => options.server = Some(value()?),
                "--requests" => options.requests = value()?.parse()?,
                "--open" => options.open = value()?.parse::<usize>()?.max(1),
                _ => return Err(HELP.into()),
            }
        }
        Ok(options)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    let outcome = match options {
        Ok(options) => run(options, &mut std::io::stdout()).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it all; false if a reply is missing or wrong.
pub(crate) async fn run(options: Options, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
    let embedded = match &options.server {
        Some(_) => None,
        None => Some(EmbeddedServer::start().await?),
    };
    let url = options
        .server
        .clone()
        .or_else(|| embedded.as_ref().map(EmbeddedServer::url))
        .unwrap_or_default();
    let endpoint: Endpoint = url.parse()?;
    writeln!(out, "server   {endpoint}")?;
    // The name of this run keeps it apart from others on the same server.
    let run = format!("request-{}", std::process::id());
    let answers = open(&format!("{run}-answers"), &endpoint).await?;
    let asks = open(&format!("{run}-asks"), &endpoint).await?;

    let service = ServiceBuilder::new()
        .timeout(Duration::from_secs(5))
        .service(service_fn(sum));
    let config = ResponderConfig::default()
        .with_max_running(options.open)
        .with_response_filter(Some(TopicFilter::new("responses/#")?))
        .with_error_reply(|error| Some(tell(error)));
    let responder = answers
        .respond(Subscribe::new(format!("{run}/sum"))?, service, config)
        .await?;
    let config = RequesterConfig::default()
        .with_max_open(options.open)
        .with_timeout(Duration::from_secs(30));
    let requester = asks.requester(config).await?;
    writeln!(out, "replies  {}", requester.response_topic())?;

    let reply = requester
        .request(Request::new(format!("{run}/sum"), "one two")?)
        .await?;
    for (name, value) in &reply.properties.user_properties {
        if name.as_str() == "error" {
            writeln!(out, "refused  {value}")?;
        }
    }
    let nobody = Request::new(format!("{run}/nobody"), "")?.with_timeout(Duration::from_secs(1));
    match requester.request(nobody).await {
        Err(error @ (RequestError::NoSubscribers | RequestError::TimedOut { .. })) => {
            writeln!(out, "nobody   {error}")?;
        }
        outcome => writeln!(out, "nobody   {outcome:?}")?,
    }

    let start = Instant::now();
    let right = ask(&requester, &run, &options).await?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(right).unwrap_or(u32::MAX)) / seconds;
    writeln!(
        out,
        "asked    {right} of {} answered, {} at a time; {rate:.0}/s",
        options.requests, options.open
    )?;
    responder.shutdown(Duration::from_secs(5)).await?;
    drop(requester);
    for session in [asks, answers] {
        session.disconnect().await?;
    }
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    Ok(right == options.requests)
}

async fn open(client_id: &str, endpoint: &Endpoint) -> Result<Session, Box<dyn Error>> {
    // The window is what the server takes at a time; this many requests are to fit into it.
    let config = SessionConfig::new(client_id).with_max_in_flight(1_000_u16);
    let connector = SessionConnector::new(config)?;
    Ok(connector.connect(endpoint.clone()).await?)
}

/// Adds the numbers of the payload.
async fn sum(request: Message) -> Result<Reply, std::num::ParseIntError> {
    let text = String::from_utf8_lossy(&request.payload);
    let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
    Ok(Reply::new(numbers?.iter().sum::<u64>().to_string()))
}

/// An error as a reply.
fn tell(error: &(dyn Error + Send + Sync)) -> Reply {
    let mut properties = PublishProperties::default();
    let name = Utf8String::new("error");
    let text = Utf8String::new(error.to_string());
    properties.user_properties.extend(name.ok().zip(text.ok()));
    Reply::new("").with_properties(properties)
}

/// Asks from as many tasks as requests may be open; says how many replies were right.
async fn ask(requester: &Requester, run: &str, options: &Options) -> Result<usize, Box<dyn Error>> {
    let request = Request::new(format!("{run}/sum"), "")?;
    let mut tasks = JoinSet::new();
    for task in 0..options.open {
        let (mut requester, template) = (requester.clone(), request.clone());
        let numbers = (task..options.requests).step_by(options.open);
        tasks.spawn(async move {
            let mut right = 0;
            for number in numbers {
                let mut request = template.clone();
                request.message.payload = format!("{number} 1").into();
                let reply = requester.ready().await?.call(request).await?;
                right += usize::from(reply.payload == (number + 1).to_string());
            }
            Ok::<_, RequestError>(right)
        });
    }
    let mut right = 0;
    while let Some(task) = tasks.join_next().await {
        right += task??;
    }
    Ok(right)
}
