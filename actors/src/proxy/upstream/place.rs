//! What is known of one upstream met with one TLS identity: connections, and which HTTP it speaks.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use super::Exchange;
use super::http1::Sender;
use super::http2::{MOST_STREAMS, Multiplexed, Slot};
use crate::proxy::connect::Wanted;
use crate::proxy::error::UpstreamError;
use crate::proxy::route::{TlsIdentity, UpstreamProtocol};

/// How long it is remembered which HTTP an upstream chose.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A connection that is being opened, for all who wait for it.
pub(super) type Opening = Shared<LocalBoxFuture<'static, Result<Opened, UpstreamError>>>;

/// A connection that was opened.
#[derive(Clone)]
pub(super) enum Opened {
    /// For the first who takes it.
    Http1(Rc<Cell<Option<Sender>>>),
    Http2(Rc<Multiplexed>),
}

/// How to go on.
pub(super) enum Next {
    Http1(Sender),
    Http2(Slot),
    /// Open a connection for oneself.
    Open(Wanted),
    /// Open one for all who come meanwhile.
    Begin(Wanted),
    Await(Opening),
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// An upstream, as it is met with one TLS identity.
pub(super) struct Place {
    /// Whom its connections' TLS trusts and what it shows: they are never used for another.
    pub(super) identity: TlsIdentity,
    /// What the upstream chose last when it had the choice.
    chose_http2: Option<bool>,
    learned: Instant,
    idle: Vec<Idle>,
    multiplexed: Vec<Rc<Multiplexed>>,
    opening: Vec<WeakShared<LocalBoxFuture<'static, Result<Opened, UpstreamError>>>>,
    /// How many requests at once its connections take.
    streams: usize,
}

impl Place {
    pub(super) fn new(identity: TlsIdentity) -> Self {
        Self {
            identity,
            chose_http2: None,
            learned: Instant::now(),
            idle: Vec::new(),
            multiplexed: Vec::new(),
            opening: Vec::new(),
            streams: MOST_STREAMS,
        }
    }

    /// Where the next request goes, or what has to be done for it. HTTP/2 connections must be
    /// `newer_than` others, of HTTP/1.1 only new ones do if that is said.
    pub(super) fn next(
        &mut self,
        exchange: &Exchange<'_>,
        newer_than: Option<u64>,
        oldest: Duration,
    ) -> Next {
        let chosen = exchange.protocol == UpstreamProtocol::Auto && exchange.origin.tls;
        let wanted = match exchange.protocol {
            _ if chosen => Wanted::Either,
            UpstreamProtocol::Http2 => Wanted::Http2,
            UpstreamProtocol::Auto | UpstreamProtocol::Http1 => Wanted::Http1,
        };
        let is_http1 = if chosen { self.chose_http2 == Some(false) } else { wanted == Wanted::Http1 };
        if is_http1 {
            let idle = if newer_than.is_none() { self.take_idle(oldest) } else { None };
            return idle.map_or(Next::Open(wanted), Next::Http1);
        }
        self.multiplexed.retain(|connection| !connection.is_over());
        let newer = |connection: &&Rc<Multiplexed>| newer_than.is_none_or(|than| connection.serial() > than);
        if let Some(most) = self.multiplexed.last().and_then(|last| last.most_streams()) {
            self.streams = most.max(1);
        }
        if let Some(free) = self.multiplexed.iter().filter(newer).find(|connection| connection.has_room()) {
            return Next::Http2(Slot::of(free.clone()));
        }
        let room = if chosen && self.chose_http2.is_none() { usize::MAX } else { self.streams };
        let mut waited_for: Vec<_> = self.opening.iter().filter_map(WeakShared::upgrade).collect();
        waited_for.retain(|opening| opening.peek().is_none());
        self.opening = waited_for.iter().filter_map(Shared::downgrade).collect();
        // All who wait hold one, and so do we.
        waited_for
            .into_iter()
            .find(|opening| opening.strong_count().is_some_and(|waiting| waiting <= room))
            .map_or(Next::Begin(wanted), Next::Await)
    }

    /// The most recently used connection that is ready, so that the others can age.
    fn take_idle(&mut self, oldest: Duration) -> Option<Sender> {
        while let Some(Idle { sender, since }) = self.idle.pop() {
            if sender.is_ready() && since.elapsed() < oldest {
                return Some(sender);
            }
            // Whatever else it is, it is not a connection to send a request on: close it.
        }
        None
    }

    pub(super) fn put_idle(&mut self, sender: Sender, most: usize) {
        if self.idle.len() < most {
            self.idle.push(Idle { sender, since: Instant::now() });
        }
    }

    pub(super) fn began(&mut self, opening: &Opening) {
        self.opening.extend(opening.downgrade());
    }

    /// How many requests at once a new connection gets before its upstream says how many it takes.
    pub(super) fn streams(&self) -> usize {
        self.streams
    }

    pub(super) fn opened_http1(&mut self, wanted: Wanted) {
        self.learned = Instant::now();
        if wanted == Wanted::Either {
            self.chose_http2 = Some(false);
        }
    }

    pub(super) fn opened_http2(&mut self, connection: Rc<Multiplexed>) {
        self.learned = Instant::now();
        self.chose_http2 = Some(true);
        self.multiplexed.push(connection);
    }

    /// Closes what is of no use any more, and says whether anything is left.
    pub(super) fn sweep(&mut self, oldest: Duration) -> bool {
        self.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < oldest);
        self.multiplexed.retain(|connection| {
            !connection.is_over() && connection.idle_for().is_none_or(|idle| idle < oldest)
        });
        self.opening.retain(|opening| opening.upgrade().is_some());
        let remembered = self.chose_http2.is_some() && self.learned.elapsed() < REMEMBERED;
        remembered || !(self.idle.is_empty() && self.multiplexed.is_empty() && self.opening.is_empty())
    }

    pub(super) fn idle_connections(&self) -> usize {
        let resting =
            |connection: &&Rc<Multiplexed>| !connection.is_over() && connection.idle_for().is_some();
        let resting = self.multiplexed.iter().filter(resting);
        self.idle.len() + resting.count()
    }
}
