//! Checks `[limits]`: how much of anything the gateway takes or keeps.

use super::error::{Faults, Place};
use super::reader::{ByteSize, Located, Node, Read, Table};
use super::resilience::count;
use super::{LARGEST_HEAD, Limits};

const MOST: u64 = 100_000_000;
/// A head without cookies and the like.
const SMALLEST_HEAD: u64 = 1024;

table! {
    /// `[limits]`
    LimitsFile {
        /// Calls at once.
        max_in_flight: Located<u64>,
        /// Connections kept in memory.
        cached_connections: Located<u64>,
        /// Verified credentials kept in memory, of each kind.
        verified_credentials: Located<u64>,
        /// Idle connections to one upstream that a worker keeps.
        idle_connections: Located<u64>,
        /// Largest head of a request.
        max_request_head: Located<ByteSize>,
    }
}

/// Checks `[limits]`.
pub(super) fn limits(file: Option<&LimitsFile>, faults: &mut Faults) -> Option<Limits> {
    let usual = Limits::default();
    let Some(file) = file else { return Some(usual) };
    let mut number = |given: Option<&Located<u64>>, least: u64, usual: usize| match given {
        Some(given) => count(given, least..=MOST, faults).and_then(|count| usize::try_from(count).ok()),
        None => Some(usual),
    };
    let max_in_flight = number(file.max_in_flight.as_ref(), 1, usual.max_in_flight);
    let cached_connections = number(file.cached_connections.as_ref(), 1, usual.cached_connections);
    let verified_credentials = number(file.verified_credentials.as_ref(), 1, usual.verified_credentials);
    let idle_connections = number(file.idle_connections.as_ref(), 0, usual.idle_connections);
    let max_request_head = match &file.max_request_head {
        None => Some(usual.max_request_head),
        Some(size) if (SMALLEST_HEAD..=LARGEST_HEAD as u64).contains(&size.value.0) => {
            usize::try_from(size.value.0).ok()
        }
        Some(size) => {
            faults.push(&size.at, "must be from 1KiB to 128KiB");
            None
        }
    };
    Some(Limits {
        max_in_flight: max_in_flight?,
        cached_connections: cached_connections?,
        verified_credentials: verified_credentials?,
        idle_connections: idle_connections?,
        max_request_head: max_request_head?,
    })
}
