//! Counts what is under way, and refuses what would be too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound on calls at once, shared by all workers.
#[derive(Debug)]
pub struct InFlightLimit {
    max: usize,
    current: AtomicUsize,
}

impl InFlightLimit {
    /// Lets `max` in at once.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, current: AtomicUsize::new(0) })
    }

    /// Lets one more in, if there is room; it is out when the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> Option<Occupied> {
        // Counted first: between looking and counting, others could pass as well.
        let occupied = Occupied(self.clone());
        (self.current.fetch_add(1, Ordering::Relaxed) < self.max).then_some(occupied)
    }

    /// How many are in.
    pub fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed).min(self.max)
    }

    /// How many may be in.
    pub fn max(&self) -> usize {
        self.max
    }
}

/// One that was let in.
#[derive(Debug)]
#[must_use]
pub struct Occupied(Arc<InFlightLimit>);

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::thread;

    use super::*;

    #[test]
    fn as_many_as_there_is_room_for() {
        let limit = InFlightLimit::new(2);
        let (first, _second) = (limit.enter().unwrap(), limit.enter().unwrap());
        assert!(limit.enter().is_none());
        assert_eq!(limit.current(), 2);
        drop(first);
        assert_eq!(limit.current(), 1);
        assert!(limit.enter().is_some());
        assert_eq!(limit.current(), 1, "what is dropped at once is out");
    }

    #[test]
    fn never_more_across_threads_and_nothing_is_lost() {
        let limit = InFlightLimit::new(3);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let Some(_guard) = limit.enter() else { continue };
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(limit.current(), 0);
    }
}
