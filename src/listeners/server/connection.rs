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
        Busy(self.clone())
    }

    /// Requests so far, if none of them is under way.
    pub(super) fn answered(&self) -> Option<u64> {
        (self.requests.under_way.get() == 0).then(|| self.requests.begun.get())
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
