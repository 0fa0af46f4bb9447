//! Wakers that run the code of others are woken and dropped without the lock of the open requests.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use mqtt_client::{RequestFuture, Requester, RequesterConfig};
use tower::Service;

use crate::{asked, reply, request, requester};

/// Runs `test`, and fails rather than hangs if it does not end.
fn check<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test());
    });
    for _ in 0..500 {
        if thread.is_finished() {
            return thread.join().unwrap();
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it waits for its own lock");
}

/// The last thing that holds a request; looks at the requester when it is woken.
struct Holds {
    _future: Mutex<RequestFuture>,
    requester: Requester,
}

impl Wake for Holds {
    fn wake(self: Arc<Self>) {
        self.requester.open();
    }
}

/// Polls with a waker that holds a request which waits.
fn poll<T>(requester: &Requester, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) {
    let mut waits = requester.clone().call(request());
    let polled = Pin::new(&mut waits).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    let waker = Waker::from(Arc::new(Holds {
        _future: Mutex::new(waits),
        requester: requester.clone(),
    }));
    assert!(poll(&mut Context::from_waker(&waker)).is_pending());
}

#[test]
fn what_a_waker_holds_may_be_a_request() {
    check(async || {
        let options = RequesterConfig::default().with_max_open(1_usize);
        let (requester, _session, mut server) = requester(options).await;
        let mut open = requester.clone().call(request());
        let mut waits = requester.clone().call(request());
        let mut ready = requester.clone();
        // The second waker takes the place of the first.
        for _ in 0..2 {
            poll(&requester, |cx| Pin::new(&mut open).poll(cx));
            poll(&requester, |cx| Pin::new(&mut waits).poll(cx));
            poll(&requester, |cx| ready.poll_ready(cx));
        }
        // Woken by the reply, by a place, by giving up, and by the end.
        let address = asked(&mut server).await;
        reply(&mut server, &address, "").await;
        crate::common::settle().await;
        drop(open);
        drop(server);
        crate::common::settle().await;
        drop((waits, ready));
        assert_eq!(requester.open(), 0);
    });
}
