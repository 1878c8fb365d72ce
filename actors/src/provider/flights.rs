//! Single flight: one piece of work a connection at a time, shared by all who want it.
//!
//! The table belongs to no actor, so a flight and its waiters survive a crash of the
//! `ProviderActor` that started it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::error::TokenError;
use crate::connection::Connection;
use crate::protocol::identifiers::Subject;

/// What a flight ends with; shared by all who waited.
pub(super) type Outcome = Result<Arc<Connection>, TokenError>;

/// The flights of one profile, by subject.
#[derive(Clone, Debug, Default)]
pub struct FlightTable(Arc<Mutex<BTreeMap<Subject, watch::Receiver<Option<Outcome>>>>>);

/// What [`FlightTable::enter`] found.
pub(super) enum Entry {
    /// Nobody is at it: the asker must run the flight and land it.
    Started(Flight),
    /// Somebody is at it.
    Running(Waiter),
}

/// The right to work on one connection. Dropping it without landing wakes the waiters with
/// [`TokenError::Aborted`], so that a panic leaves nobody hanging.
pub(super) struct Flight {
    table: FlightTable,
    subject: Subject,
    outcome: watch::Sender<Option<Outcome>>,
    aborted: TokenError,
}

/// Waits for a running flight.
pub(super) struct Waiter(watch::Receiver<Option<Outcome>>);

impl FlightTable {
    /// Starts a flight for `subject`, or finds the one that is running. `aborted` is what waiters
    /// get if the flight is dropped.
    pub(super) fn enter(&self, subject: &Subject, aborted: TokenError) -> Entry {
        let mut table = self.0.lock();
        if let Some(running) = table.get(subject) {
            return Entry::Running(Waiter(running.clone()));
        }
        let (outcome, receiver) = watch::channel(None);
        table.insert(subject.clone(), receiver);
        Entry::Started(Flight { table: self.clone(), subject: subject.clone(), outcome, aborted })
    }

    /// How many flights are running.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether none is running.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Whether somebody is at work on this subject's connection.
    pub fn is_running(&self, subject: &Subject) -> bool {
        self.0.lock().contains_key(subject)
    }
}

impl Flight {
    /// Waits for this flight.
    pub(super) fn waiter(&self) -> Waiter {
        Waiter(self.outcome.subscribe())
    }

    /// Wakes the waiters, and keeps the connection taken: for a token set that is not durable yet.
    pub(super) fn announce(&self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Ends the flight and wakes the waiters, unless they were woken before.
    pub(super) fn land(self, outcome: Outcome) {
        self.outcome.send_if_modified(|seen| {
            let first = seen.is_none();
            if first {
                *seen = Some(outcome);
            }
            first
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.table.0.lock().remove(&self.subject);
        let aborted = self.aborted.clone();
        self.outcome.send_if_modified(|seen| {
            let unlanded = seen.is_none();
            if unlanded {
                *seen = Some(Err(aborted));
            }
            unlanded
        });
    }
}

impl Waiter {
    /// The outcome, once there is one.
    pub(super) async fn outcome(mut self, aborted: TokenError) -> Outcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(aborted)),
            Err(_) => Err(aborted),
        }
    }

    /// Waits until the connection is free again.
    pub(super) async fn ended(mut self) {
        // The sender is dropped with the flight.
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::protocol::identifiers::{ConnectionId, ProfileId};

    fn aborted() -> TokenError {
        let id = ConnectionId { profile: ProfileId::new("p").unwrap(), subject: Subject::new("s").unwrap() };
        TokenError::Aborted { id }
    }

    #[tokio::test]
    async fn a_dropped_flight_wakes_its_waiters_with_aborted() {
        let table = FlightTable::default();
        let subject = Subject::new("s").unwrap();
        let Entry::Started(flight) = table.enter(&subject, aborted()) else { panic!("free") };
        let Entry::Running(waiter) = table.enter(&subject, aborted()) else { panic!("taken") };
        drop(flight);
        assert!(matches!(waiter.outcome(aborted()).await, Err(TokenError::Aborted { .. })));
        assert!(table.is_empty());
    }

    #[tokio::test]
    async fn an_announced_flight_stays_taken_until_it_lands() {
        let table = FlightTable::default();
        let subject = Subject::new("s").unwrap();
        let Entry::Started(flight) = table.enter(&subject, aborted()) else { panic!("free") };
        flight.announce(Err(aborted()));
        let Entry::Running(waiter) = table.enter(&subject, aborted()) else { panic!("taken") };
        assert!(waiter.outcome(aborted()).await.is_err());
        assert!(table.is_running(&subject));
        let Entry::Running(last) = table.enter(&subject, aborted()) else { panic!("taken") };
        flight.land(Err(aborted()));
        last.ended().await;
        assert!(!table.is_running(&subject));
    }
}
