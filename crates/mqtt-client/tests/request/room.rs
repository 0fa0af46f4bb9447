//! Places for open requests: back-pressure that reserves nothing, and layers on it.

use std::{future::poll_fn, pin::pin};

use mqtt_client::{Message, Request, RequesterConfig, Version};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use crate::{
    SECOND, asked,
    common::{config, no_outbox, now, open, settle},
    make, reply, request, requester,
};

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_a_place_and_reserves_none() {
    let options = RequesterConfig::default().with_max_open(1_usize);
    let (mut first, _session, mut server) = requester(options).await;
    let (mut second, mut idle) = (first.clone(), first.clone());
    for requester in [&mut first, &mut second, &mut idle] {
        assert!(now(poll_fn(|cx| requester.poll_ready(cx))).await.is_some());
    }
    let mut open = Box::pin(first.call(request()));
    let mut waits = Box::pin(second.call(request()));
    assert!(now(&mut open).await.is_none() && now(&mut waits).await.is_none());
    assert!(now(poll_fn(|cx| idle.poll_ready(cx))).await.is_none());
    let ready = tokio::spawn(async move {
        poll_fn(|cx| idle.poll_ready(cx)).await.unwrap();
        idle
    });
    let address = asked(&mut server).await;
    server.expect_silence(SECOND).await;
    reply(&mut server, &address, "").await;
    open.await.unwrap();
    settle().await;
    assert!(!ready.is_finished(), "the one who waits goes first");
    let (outcome, ()) = tokio::join!(waits, async {
        let address = asked(&mut server).await;
        reply(&mut server, &address, "").await;
    });
    outcome.unwrap();
    ready.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_place_goes_to_the_next_when_the_first_in_line_gives_up() {
    let options = RequesterConfig::default().with_max_open(1_usize);
    let (requester, _session, mut server) = requester(options).await;
    let mut open = Box::pin(requester.request(request()));
    let mut gives_up = Box::pin(requester.request(request()));
    assert!(now(&mut open).await.is_none() && now(&mut gives_up).await.is_none());
    let next = tokio::spawn(requester.request(request()));
    let mut service = requester.clone();
    settle().await;
    let ready = tokio::spawn(async move { poll_fn(|cx| service.poll_ready(cx)).await });
    asked(&mut server).await;
    // The place is free, and the first in line is told.
    drop(open);
    settle().await;
    drop(gives_up);
    let address = asked(&mut server).await;
    assert!(!ready.is_finished());
    reply(&mut server, &address, "").await;
    next.await.unwrap().unwrap();
    tokio::time::timeout(SECOND, ready)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_the_publishers_window_too() {
    let narrow = config(Version::V5)
        .with_max_in_flight(1_u16)
        .with_outbox(no_outbox());
    let (session, mut server) = open(narrow).await;
    let mut requester = make(&session, &mut server, RequesterConfig::default()).await;
    let mut sent = pin!(requester.request(request()));
    assert!(now(&mut sent).await.is_none());
    assert!(now(poll_fn(|cx| requester.poll_ready(cx))).await.is_none());
    let request = server.expect_publish().await;
    server.puback(request.packet_id.unwrap()).await;
    poll_fn(|cx| requester.poll_ready(cx)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_are_held_than_allowed_where_no_reply_ever_comes() {
    let options = RequesterConfig::default()
        .with_max_open(16_usize)
        .with_timeout(SECOND);
    let (requester, session, mut server) = requester(options).await;
    let serves = tokio::spawn(async move { server.serve().await.len() });
    let mut requests: tokio::task::JoinSet<_> = (0..1_000)
        .map(|_| requester.request(request().with_timeout(SECOND * 120)))
        .collect();
    for _ in 0..10 {
        tokio::time::sleep(SECOND).await;
        assert_eq!(requester.open(), 16);
    }
    requests.shutdown().await;
    assert_eq!(requester.open(), 0);
    assert_eq!(session.in_flight(), 0);
    // And again, when their time runs out.
    for _ in 0..100 {
        requester.request(request()).await.unwrap_err();
    }
    assert_eq!(requester.open(), 0);
    drop(requester);
    settle().await;
    drop(session);
    assert_eq!(serves.await.unwrap(), 116);
}

#[tokio::test(start_paused = true)]
async fn layers_stack_on_a_requester() {
    let options = RequesterConfig::default().with_max_open(1_usize);
    let (requester, _session, mut server) = requester(options).await;
    let shed = ServiceBuilder::new().load_shed().service(requester.clone());
    let service: BoxCloneSyncService<Request, Message, BoxError> = BoxCloneSyncService::new(
        ServiceBuilder::new()
            .buffer(16)
            .concurrency_limit(8)
            .timeout(SECOND)
            .service(requester.clone()),
    );
    let first = tokio::spawn(service.clone().oneshot(request()));
    let address = asked(&mut server).await;
    let error = shed.oneshot(request()).await.unwrap_err();
    assert!(error.is::<tower::load_shed::error::Overloaded>(), "{error}");
    reply(&mut server, &address, "answer").await;
    assert_eq!(first.await.unwrap().unwrap().payload, "answer");
    let error = service.oneshot(request()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    settle().await;
    assert_eq!(requester.open(), 0);
}
