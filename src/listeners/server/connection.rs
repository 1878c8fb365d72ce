//! What a request can know of the connection it came on.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;

use http::HeaderValue;

use crate::caller_auth::{KnownCaller, PeerCertificate};

/// A caller's connection.
#[derive(Debug, Default)]
pub struct CallerConnection {
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// Whether TLS is spoken.
    pub https: bool,
    /// The client certificate that it was opened with, verified.
    pub certificate: Option<PeerCertificate>,
    /// Who sent the request before.
    pub known: KnownCaller,
    forwarded_for: OnceCell<Option<HeaderValue>>,
    requests: Requests,
}

/// Requests of a connection. Counted only by listeners whose connections may be parked.
#[derive(Debug, Default)]
struct Requests {
    begun: Cell<u64>,
    under_way: Cell<u64>,
    /// Whether another may follow the last one, and nothing of that one can still come.
    go_on: Cell<bool>,
}

impl CallerConnection {
    pub(super) fn new(peer: Option<SocketAddr>, https: bool, certificate: Option<PeerCertificate>) -> Self {
        Self { peer, https, certificate, ..Self::default() }
    }

    /// The caller's address as a header says it.
    pub fn forwarded_for(&self) -> Option<&HeaderValue> {
        let made = || HeaderValue::from_str(&self.peer?.ip().to_string()).ok();
        self.forwarded_for.get_or_init(made).as_ref()
    }

    /// Counts a request as under way until what this gives is dropped, which has to be when the last
    /// byte of its answer was handed over.
    pub fn busy(self: &Rc<Self>) -> Busy {
        let requests = &self.requests;
        requests.begun.set(requests.begun.get() + 1);
        requests.under_way.set(requests.under_way.get() + 1);
        requests.go_on.set(false);
        Busy(self.clone())
    }

    /// Says that the last request had no body and does not end the connection. Otherwise the bytes that
    /// follow may be none of another request, and whoever speaks on it must go on to know that.
    pub fn goes_on(&self) {
        self.requests.go_on.set(true);
    }

    /// Requests so far, if none of them is under way and another may follow.
    pub(super) fn answered(&self) -> Option<u64> {
        let requests = &self.requests;
        (requests.under_way.get() == 0 && requests.go_on.get()).then(|| requests.begun.get())
    }
}

/// A request under way on a connection.
#[derive(Debug)]
pub struct Busy(Rc<CallerConnection>);

impl Drop for Busy {
    fn drop(&mut self) {
        let under_way = &self.0.requests.under_way;
        under_way.set(under_way.get() - 1);
    }
}
