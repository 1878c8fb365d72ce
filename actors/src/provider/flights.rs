//! Single flight: one piece of work a connection at a time, shared by all who want it.
//!
//! The table belongs to no actor, so a flight and its waiters survive a crash of the
//! `ProviderActor` that started it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::error::TokenError;
use crate::connection::Connection;
use crate::protocol::identifiers::Subject;

/// What a flight ends with; shared by all who waited.
pub(super) type Outcome = Result<Arc<Connection>, TokenError>;

/// The flights of one profile, by subject. It outlives the profile's configuration: whoever works
/// with a later one meets the flights of an earlier one here.
#[derive(Clone, Debug, Default)]
pub struct FlightTable {
    slots: Arc<Mutex<BTreeMap<Subject, Slot>>>,
    /// Counts the configurations of the profile.
    generation: u64,
}

/// One flight's waiters, woken in the order in which they came.
#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    announced: Option<Outcome>,
    for_outcome: Vec<oneshot::Sender<Outcome>>,
    for_end: Vec<oneshot::Sender<()>>,
}

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
    aborted: TokenError,
}

/// Waits for a flight.
pub(super) struct Waiter {
    is_of_today: bool,
    outcome: oneshot::Receiver<Outcome>,
    end: oneshot::Receiver<()>,
}

impl FlightTable {
    /// Starts a flight for `subject`, or finds the one that is running. `aborted` is what waiters
    /// get if the flight is dropped.
    pub(super) fn enter(&self, subject: &Subject, aborted: TokenError) -> Entry {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(subject) {
            return Entry::Running(slot.waiter(self.generation));
        }
        slots.insert(subject.clone(), Slot { generation: self.generation, ..Slot::default() });
        Entry::Started(Flight { table: self.clone(), subject: subject.clone(), aborted })
    }

    /// The same flights, for the next configuration of the profile.
    pub(crate) fn succeeding(&self) -> Self {
        Self { slots: self.slots.clone(), generation: self.generation + 1 }
    }

    /// How many flights are running.
    pub fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// Whether none is running.
    pub fn is_empty(&self) -> bool {
        self.slots.lock().is_empty()
    }

    /// Whether somebody is at work on this subject's connection.
    pub fn is_running(&self, subject: &Subject) -> bool {
        self.slots.lock().contains_key(subject)
    }
}

impl Slot {
    fn waiter(&mut self, generation: u64) -> Waiter {
        let (for_outcome, outcome) = oneshot::channel();
        let (for_end, end) = oneshot::channel();
        match &self.announced {
            // The receiver is at hand, so this cannot fail.
            Some(announced) => drop(for_outcome.send(announced.clone())),
            None => self.for_outcome.push(for_outcome),
        }
        self.for_end.push(for_end);
        Waiter { is_of_today: self.generation >= generation, outcome, end }
    }

    /// Whoever does not wait any more is passed over.
    fn wake(&mut self, outcome: &Outcome) {
        for waiter in self.for_outcome.drain(..) {
            let _ = waiter.send(outcome.clone());
        }
    }
}

impl Flight {
    /// Waits for this flight.
    pub(super) fn waiter(&self) -> Waiter {
        let generation = self.table.generation;
        let empty = || Slot { generation, ..Slot::default() };
        self.table.slots.lock().entry(self.subject.clone()).or_insert_with(empty).waiter(generation)
    }

    /// Wakes the waiters, and keeps the connection taken: for a token set that is not durable yet.
    pub(super) fn announce(&self, outcome: Outcome) {
        if let Some(slot) = self.table.slots.lock().get_mut(&self.subject) {
            slot.wake(&outcome);
            slot.announced = Some(outcome);
        }
    }

    /// Ends the flight and wakes the waiters, unless they were woken before.
    pub(super) fn land(mut self, outcome: Outcome) {
        self.end(&outcome);
    }

    fn end(&mut self, outcome: &Outcome) {
        let ended = self.table.slots.lock().remove(&self.subject);
        let Some(mut slot) = ended else { return };
        slot.wake(outcome);
        for waiter in slot.for_end {
            let _ = waiter.send(());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let aborted = Err(self.aborted.clone());
        self.end(&aborted);
    }
}

impl Waiter {
    /// Whether the flight works with the configuration of whoever waits, or a later one: its outcome counts.
    pub(super) fn is_of_today(&self) -> bool {
        self.is_of_today
    }

    /// The outcome, once there is one.
    pub(super) async fn outcome(self, aborted: TokenError) -> Outcome {
        self.outcome.await.unwrap_or(Err(aborted))
    }

    /// Waits until the connection is free again.
    pub(super) async fn ended(self) {
        // An error means that nobody is left who could say so: it is free.
        let _ = self.end.await;
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
