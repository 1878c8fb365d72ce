//! What the shell counts while it serves. Each worker counts in numbers of its own, which nobody else
//! writes, so that counting costs a load and a store; they are summed when metrics are asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claviger_actors::protocol::identifiers::RouteId;
use parking_lot::Mutex;

/// The classes of HTTP statuses, by their first digit (RFC 9110 section 15).
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// `N` numbers for each key.
#[derive(Debug)]
pub struct Tally<K, const N: usize>(Arc<Mutex<Rows<K, N>>>);

/// The rows of all workers.
type Rows<K, const N: usize> = Vec<(K, Arc<Row<N>>)>;

#[derive(Debug)]
struct Row<const N: usize>([AtomicU64; N]);

/// One worker's side of a [`Tally`].
#[derive(Debug)]
pub struct Counter<K, const N: usize> {
    all: Tally<K, N>,
    own: RefCell<BTreeMap<K, Arc<Row<N>>>>,
}

impl<K, const N: usize> Clone for Tally<K, N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, const N: usize> Default for Tally<K, N> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone, const N: usize> Tally<K, N> {
    /// A worker's own numbers.
    pub fn counter(&self) -> Counter<K, N> {
        Counter { all: self.clone(), own: RefCell::default() }
    }

    /// The sums over all workers so far.
    pub fn sums(&self) -> BTreeMap<K, [u64; N]> {
        let mut sums: BTreeMap<K, [u64; N]> = BTreeMap::new();
        for (key, row) in self.0.lock().iter() {
            let sum = sums.entry(key.clone()).or_insert([0; N]);
            for (sum, number) in sum.iter_mut().zip(&row.0) {
                *sum += number.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

impl<K: Ord + Clone, const N: usize> Counter<K, N> {
    /// Counts one more in the number at `index`, if there is one.
    pub fn count(&self, key: &K, index: usize) {
        if let Some(row) = self.own.borrow().get(key) {
            return row.count(index);
        }
        let row = Arc::new(Row(std::array::from_fn(|_| AtomicU64::new(0))));
        row.count(index);
        self.all.0.lock().push((key.clone(), row.clone()));
        self.own.borrow_mut().insert(key.clone(), row);
    }
}

impl<const N: usize> Row<N> {
    /// Only its worker writes, so nothing comes between reading and writing.
    fn count(&self, index: usize) {
        if let Some(number) = self.0.get(index) {
            number.store(number.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

/// The calls of the proxy listener. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CallCounts {
    /// Calls that took a route, by class of status.
    pub routed: Tally<RouteId, 5>,
    /// Those that were answered before one was found.
    pub unrouted: Tally<(), 5>,
    /// Answers of the gateway's own, by the code of their problem.
    pub problems: Tally<&'static str, 1>,
}

/// One worker's side of [`CallCounts`].
#[derive(Debug)]
pub struct CallCounter {
    routed: Counter<RouteId, 5>,
    unrouted: Counter<(), 5>,
    problems: Counter<&'static str, 1>,
}

impl CallCounts {
    /// A worker's own numbers.
    pub fn counter(&self) -> CallCounter {
        CallCounter {
            routed: self.routed.counter(),
            unrouted: self.unrouted.counter(),
            problems: self.problems.counter(),
        }
    }
}

impl CallCounter {
    /// Counts a call that was answered with `status`.
    pub fn answered(&self, route: Option<&RouteId>, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        match route {
            Some(route) => self.routed.count(route, class),
            None => self.unrouted.count(&(), class),
        }
    }

    /// Counts a problem that the gateway itself answered with.
    pub fn problem(&self, code: &'static str) {
        self.problems.count(&code, 0);
    }
}

/// The connections of one listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    opened: AtomicU64,
    ended: AtomicU64,
    failed_handshakes: AtomicU64,
}

impl ListenerCounts {
    /// Counts a connection as open until what this gives is dropped.
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        self.opened.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }

    /// Counts a TLS handshake that came to nothing.
    pub fn handshake_failed(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn now_open(&self) -> u64 {
        let ended = self.ended.load(Ordering::Relaxed);
        self.opened().saturating_sub(ended)
    }

    /// TLS handshakes that came to nothing, so far.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.load(Ordering::Relaxed)
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct OpenConnection(Arc<ListenerCounts>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn workers_count_apart_and_are_summed() {
        let counts = CallCounts::default();
        let route = RouteId::new("calendar").unwrap();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let (counts, route) = (counts.clone(), route.clone());
                std::thread::spawn(move || {
                    let counter = counts.counter();
                    for status in [200, 204, 301, 404, 503, 101, 999, 7] {
                        counter.answered(Some(&route), status);
                    }
                    counter.answered(None, 401);
                    counter.problem("rate_limited");
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        // What is no status is counted nowhere; what a worker counted stays when it has ended.
        assert_eq!(counts.routed.sums()[&route], [3, 6, 3, 3, 3]);
        assert_eq!(counts.unrouted.sums()[&()], [0, 0, 0, 3, 0]);
        assert_eq!(counts.problems.sums()["rate_limited"], [3]);
    }

    #[test]
    fn a_connection_is_open_until_it_is_dropped() {
        let counts = Arc::new(ListenerCounts::default());
        let (one, other) = (counts.open(), counts.open());
        drop(one);
        assert_eq!((counts.opened(), counts.now_open()), (2, 1));
        drop(other);
        assert_eq!((counts.opened(), counts.now_open()), (2, 0));
    }
}
