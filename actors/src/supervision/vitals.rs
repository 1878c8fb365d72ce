//! What is counted of a supervised actor from outside, across its restarts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::observe::{ActorKind, ActorReport, Observation};
use crate::clock::Timestamp;

/// Where a child stands, as its supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs, or is being (re)started.
    Kept,
    Stopping,
    /// Its thread is gone; nothing can be started there again.
    Failed,
}

#[derive(Debug)]
struct Seen {
    standing: Standing,
    started_at: Option<Timestamp>,
    last_exit: Option<String>,
    observation: Observation,
}

/// Written by askers and the supervisor, read by whoever inspects.
#[derive(Debug)]
pub(super) struct Vitals {
    pub(super) kind: ActorKind,
    pub(super) id: String,
    in_flight: AtomicUsize,
    processed: AtomicU64,
    restarts: AtomicU64,
    seen: Mutex<Seen>,
}

impl Vitals {
    pub(super) fn new(kind: ActorKind, id: String) -> Self {
        let seen = Seen {
            standing: Standing::Kept,
            started_at: None,
            last_exit: None,
            observation: Observation::default(),
        };
        Self {
            kind,
            id,
            in_flight: AtomicUsize::new(0),
            processed: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            seen: Mutex::new(seen),
        }
    }

    /// Counts an ask in flight until the answer is dropped; `None` if there are `limit` already.
    pub(super) fn enter(&self, limit: usize) -> Option<InFlight<'_>> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        // Made first, so that its drop takes the count back.
        let entered = InFlight(&self.in_flight);
        (before < limit).then_some(entered)
    }

    pub(super) fn asks_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) {
        self.processed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.seen.lock().standing = standing;
    }

    pub(super) fn launched(&self, now: Timestamp) {
        self.seen.lock().started_at = Some(now);
    }

    pub(super) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn exited(&self, how: String) {
        self.seen.lock().last_exit = Some(how);
    }

    /// One row of the report. `spoken` is the actor's own word, if it could speak in time, and
    /// `up` whether there is an actor at all.
    pub(super) fn report(&self, spoken: Option<Observation>, up: bool, now: Timestamp) -> ActorReport {
        let restarts = self.restarts.load(Ordering::Relaxed);
        let mut seen = self.seen.lock();
        let state = match (spoken, seen.standing) {
            (Some(observation), _) => {
                seen.observation = observation;
                seen.observation.state.clone()
            }
            (None, Standing::Failed) => "failed".to_owned(),
            (None, Standing::Stopping) => "stopping".to_owned(),
            (None, Standing::Kept) if up => "unresponsive".to_owned(),
            (None, Standing::Kept) if restarts > 0 => "restarting".to_owned(),
            (None, Standing::Kept) => "starting".to_owned(),
        };
        let started_at = seen.started_at.filter(|_| up);
        ActorReport {
            kind: self.kind,
            id: self.id.clone(),
            state,
            uptime_s: started_at.map_or(0, |at| now.since(at).as_secs()),
            restarts,
            mailbox: self.in_flight.load(Ordering::Relaxed),
            processed: self.processed.load(Ordering::Relaxed),
            last_error: seen.observation.last_error.clone().or_else(|| seen.last_exit.clone()),
            detail: seen.observation.detail.clone(),
        }
    }
}

/// Counts one ask while it lives.
pub(super) struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
