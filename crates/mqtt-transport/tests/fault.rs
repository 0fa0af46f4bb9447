//! Connections that fail on purpose do it exactly as planned.

#![cfg(feature = "test-util")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    time::Duration,
};

use mqtt_transport::{
    Conn, ConnInfo, ConnKind, ConnectPhase, Endpoint, FaultPlan, Faulty, FaultyConnector,
    StreamConn,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, timeout},
};
use tower::{Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn pipe(plan: FaultPlan) -> (Faulty<StreamConn<DuplexStream>>, DuplexStream) {
    let (near, far) = tokio::io::duplex(1024);
    let near = StreamConn::new(near, ConnInfo::memory());
    (Faulty::new(near, plan), far)
}

fn bytes(n: u8) -> Vec<u8> {
    (0..n).collect()
}

#[tokio::test(start_paused = true)]
async fn without_faults_all_goes_through() {
    let (mut near, mut far) = pipe(FaultPlan::new());
    assert_eq!(near.info().kind, ConnKind::Memory);
    near.write_all(&bytes(100)).await.unwrap();
    let bufs = [
        IoSlice::new(&[1; 3]),
        IoSlice::new(&[]),
        IoSlice::new(&[2; 4]),
    ];
    assert_eq!(near.write_vectored(&bufs).await.unwrap(), 7);
    near.shutdown().await.unwrap();
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), 107);
    far.write_all(&read).await.unwrap();
    far.shutdown().await.unwrap();
    let mut back = Vec::new();
    near.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, read);
}

#[tokio::test(start_paused = true)]
async fn a_cut_takes_effect_after_just_so_many_bytes_for_both_sides() {
    let (mut near, mut far) = pipe(FaultPlan::new().cut_after_read(10));
    far.write_all(&bytes(20)).await.unwrap();
    let mut read = Vec::new();
    let error = near.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(read, bytes(10));
    let error = near.write(b"late").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    near.flush().await.unwrap_err();
    near.shutdown().await.unwrap_err();
    far.write(b"late").await.unwrap_err();

    let (mut near, mut far) = pipe(FaultPlan::new().cut_after_write(10));
    let error = near.write_all(&bytes(20)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes(10));

    let (mut near, _far) = pipe(FaultPlan::new().cut_after_write(0));
    near.write(b"x").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_cut_wakes_who_waits_in_the_other_direction() {
    let (near, _far) = pipe(FaultPlan::new().cut_after_write(3));
    let (mut read, mut write) = tokio::io::split(near);
    let read = tokio::spawn(async move { read.read_u8().await });
    sleep(SECOND).await;
    write.write_all(&[0; 3]).await.unwrap();
    let error = timeout(SECOND, read).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_clean_cut_looks_like_the_end() {
    let (mut near, mut far) = pipe(FaultPlan::new().cut_after_read(2).ends_cleanly());
    far.write_all(&bytes(5)).await.unwrap();
    let mut read = Vec::new();
    near.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes(2));
    let error = near.write(b"late").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn what_stalls_waits_until_it_is_released() {
    let plan = FaultPlan::new().stall_after_read(4).stall_after_write(2);
    let handle = plan.handle();
    let (mut near, mut far) = pipe(plan);
    far.write_all(&bytes(6)).await.unwrap();
    near.read_exact(&mut [0; 4]).await.unwrap();
    let mut rest = [0; 2];
    let stalled = timeout(600 * SECOND, near.read_exact(&mut rest)).await;
    assert!(stalled.is_err());
    // Writes wait for themselves.
    near.write_all(&[7; 2]).await.unwrap();
    let start = Instant::now();
    tokio::spawn(async move {
        sleep(SECOND).await;
        handle.release();
    });
    let written = timeout(2 * SECOND, near.write_all(&[8; 2])).await;
    written.unwrap().unwrap();
    assert_eq!(start.elapsed(), SECOND);
    near.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest, [4, 5]);
    let mut read = [0; 4];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(read, [7, 7, 8, 8]);
}

#[tokio::test(start_paused = true)]
async fn one_byte_is_corrupted_and_no_other() {
    let mut expected = bytes(20);
    for at in [0, 7, 8, 19] {
        expected[at] = !expected[at];
    }
    let plan = FaultPlan::new();
    let plan = [0, 7, 8, 19, 20, u64::MAX]
        .into_iter()
        .fold(plan, |plan, at| plan.corrupt_read(at).corrupt_write(at));
    let (mut near, mut far) = pipe(plan);
    near.write_all(&bytes(10)).await.unwrap();
    let rest = &bytes(20)[10..];
    let bufs = [IoSlice::new(&rest[..4]), IoSlice::new(&rest[4..])];
    let written = near.write_vectored(&bufs).await.unwrap();
    near.write_all(&rest[written..]).await.unwrap();
    let mut read = [0; 20];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(read[..], expected);
    far.write_all(&bytes(20)).await.unwrap();
    near.read_exact(&mut read).await.unwrap();
    assert_eq!(read[..], expected);
}

#[tokio::test(start_paused = true)]
async fn operations_are_split_and_delayed() {
    let (mut near, mut far) = pipe(FaultPlan::new().split(3).delay(SECOND));
    let start = Instant::now();
    assert_eq!(near.write(&bytes(9)).await.unwrap(), 3);
    assert_eq!(start.elapsed(), SECOND);
    let bufs = [IoSlice::new(&[1; 2]), IoSlice::new(&[2; 4])];
    assert_eq!(near.write_vectored(&bufs).await.unwrap(), 2);
    far.write_all(&bytes(9)).await.unwrap();
    assert_eq!(near.read(&mut [0; 9]).await.unwrap(), 3);
    near.read_exact(&mut [0; 6]).await.unwrap();
    assert_eq!(start.elapsed(), 5 * SECOND);
}

/// The sizes of reads until the end, of 200 bytes that are written at once.
async fn sizes(plan: FaultPlan) -> Vec<usize> {
    let (mut near, mut far) = pipe(plan);
    far.write_all(&bytes(200)).await.unwrap();
    far.shutdown().await.unwrap();
    let mut sizes = Vec::new();
    let mut all: Vec<u8> = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let n = near.read(&mut buffer).await.unwrap();
        if n == 0 {
            assert_eq!(all, bytes(200));
            return sizes;
        }
        sizes.push(n);
        all.extend(buffer.iter().take(n));
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_splits_at_random_and_always_the_same() {
    let first = sizes(FaultPlan::seeded(1)).await;
    assert!(first.iter().all(|size| (1..=16).contains(size)));
    let different: BTreeSet<_> = first.iter().collect();
    assert!(different.len() > 4, "{first:?}");
    assert_eq!(sizes(FaultPlan::seeded(1)).await, first);
    assert_ne!(sizes(FaultPlan::seeded(2)).await, first);
    let short = sizes(FaultPlan::seeded(1).split(2)).await;
    assert!(short.iter().all(|size| (1..=2).contains(size)));
}

#[tokio::test(start_paused = true)]
async fn a_connector_plans_by_number_over_all_its_clones() {
    let connector = FaultyConnector::new(
        service_fn(async |_: Endpoint| {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(&bytes(200)).await.unwrap();
            Ok(StreamConn::new(near, ConnInfo::memory()))
        }),
        |n| match n {
            2 => FaultPlan::new().fail_dial(io::ErrorKind::ConnectionRefused),
            3 => FaultPlan::new().cut_after_read(100),
            _ => FaultPlan::new(),
        },
    );
    let endpoint: Endpoint = "mqtt://localhost".parse().unwrap();
    let mut lengths = Vec::new();
    for _ in 1..=4 {
        // A clone each time; they count together.
        let mut connector = connector.clone();
        let service = connector.ready().await.unwrap();
        match service.call(endpoint.clone()).await {
            Ok(mut conn) => {
                let mut read = Vec::new();
                // The end is of one kind or the other.
                let _ = conn.read_to_end(&mut read).await;
                lengths.push(Some(read.len()));
            }
            Err(error) => {
                assert_eq!(error.phase(), ConnectPhase::Dial);
                assert_eq!(error.io_error().kind(), io::ErrorKind::ConnectionRefused);
                lengths.push(None);
            }
        }
    }
    assert_eq!(lengths, [Some(200), None, Some(100), Some(200)]);
    assert_eq!(connector.calls(), 4);
}
