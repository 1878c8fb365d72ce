//! Checks what a route asks for beyond the sending of calls, and the rate of a caller.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::clock::{SystemClock, SystemEntropy};
use claviger_actors::proxy::circuit::CircuitPolicy;
use claviger_actors::proxy::endpoints::Endpoints;
use claviger_actors::proxy::in_flight::InFlightLimit;
use claviger_actors::proxy::rate_limit::{Rate, RateLimit};
use claviger_actors::proxy::resilience::Resilience;
use claviger_actors::proxy::retry_budget::{RetryBudget, RetryPolicy};
use claviger_actors::proxy::route::UpstreamOrigin;

use super::error::{Faults, Place};
use super::file::RouteFile;
use super::reader::{Located, Node, Read, Table};

/// More retries would outlast whoever waits for the answer.
const MOST_RETRIES: u64 = 10;
/// More calls a time cannot be served.
const MOST_CALLS: u64 = 1_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A burst that takes longer to gather is no limit.
const LONGEST_BURST: Duration = Duration::from_secs(366 * 24 * 3600);

table! {
    /// `rate` of a caller or a route.
    RateFile {
        /// So many calls.
        requests: Located<u64>,
        /// In so much time.
        per: Located<Duration>,
        /// Calls that may come at once after a pause.
        burst: Located<u64>,
    }
}

table! {
    /// `retry_budget` of a route.
    RetryBudgetFile {
        /// Retries per hundred requests.
        percent: Located<u64>,
        /// Retries a second on top.
        per_second: Located<u64>,
    }
}

table! {
    /// `breaker` of a route, as a table.
    BreakerFile {
        /// Failures in a row that open it.
        failures: Located<u64>,
        /// Share of failures within a window that opens it.
        failure_percent: Located<u64>,
        /// Calls that a window must have had for its share to count.
        least_calls: Located<u64>,
        /// How long a window is.
        window: Located<Duration>,
        /// How long it stays open at first.
        open: Located<Duration>,
        /// How long it stays open at most.
        longest_open: Located<Duration>,
    }
}

/// `breaker` of a route: `true`, `false`, or a table.
#[derive(Debug)]
pub(super) enum Breaker {
    /// Whether there is one, with the usual values.
    Switch(bool),
    /// There is one, with these.
    Table(Box<BreakerFile>),
}

impl Read for Breaker {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        if node.table().is_some() {
            return BreakerFile::read(node, faults).map(|file| Self::Table(Box::new(file)));
        }
        bool::read(node, faults).map(Self::Switch)
    }
}

/// Checks all of it but the upstreams, which are given as they were checked. `fixed` says that they are
/// always the same, not named by the token answer.
pub(super) fn resilience(
    file: &RouteFile,
    upstreams: Vec<(Arc<UpstreamOrigin>, String)>,
    fixed: bool,
    faults: &mut Faults,
) -> Option<Resilience> {
    let connect_timeout = duration(file.connect_timeout.as_ref(), faults);
    let idle_timeout = duration(file.idle_timeout.as_ref(), faults);
    let total_timeout = duration(file.total_timeout.as_ref(), faults);
    let endpoints = endpoints(file, upstreams, fixed, faults);
    let retries = retries(file, faults);
    let rate = file.rate.as_ref().map(|file| rate(file, faults));
    let in_flight = file.max_in_flight.as_ref().map(|max| count(max, 1..=MOST_CALLS, faults));
    let in_flight = match in_flight {
        Some(max) => Some(InFlightLimit::new(usize::try_from(max?).ok()?)),
        None => None,
    };
    Some(Resilience {
        endpoints: endpoints?,
        connect_timeout: connect_timeout?,
        idle_timeout: idle_timeout?,
        total_timeout: total_timeout?,
        retries: Arc::new(RetryBudget::new(retries?, Arc::new(SystemClock))),
        rate: rate.map_or(Some(None), |rate| rate.map(Some))?,
        in_flight,
    })
}

/// Checks a rate.
pub(super) fn rate(file: &RateFile, faults: &mut Faults) -> Option<Arc<RateLimit>> {
    let requests = match &file.requests {
        Some(requests) => count(requests, 1..=MOST_CALLS, faults),
        None => {
            faults.missing(&file.at.join("requests"), "it is the number of calls, such as 100");
            None
        }
    };
    let per = match &file.per {
        None => Some(Duration::from_secs(1)),
        Some(per) if per.value.subsec_nanos() == 0 && !per.value.is_zero() && per.value <= DAY => {
            Some(per.value)
        }
        Some(per) => {
            faults.push(&per.at, "must be of whole seconds, from 1s to 1day");
            None
        }
    };
    let burst = match &file.burst {
        Some(burst) => count(burst, 1..=MOST_CALLS, faults),
        None => requests,
    };
    let (requests, per, burst) = (NonZeroU32::new(requests?)?, per?, NonZeroU32::new(burst?)?);
    if (per / requests.get()).saturating_mul(burst.get()) > LONGEST_BURST {
        faults.push(&file.at.join("burst"), "would take more than a year to gather; it is no limit");
        return None;
    }
    Some(Arc::new(RateLimit::new(Rate { requests, per, burst }, Arc::new(SystemClock))))
}

fn endpoints(
    file: &RouteFile,
    upstreams: Vec<(Arc<UpstreamOrigin>, String)>,
    fixed: bool,
    faults: &mut Faults,
) -> Option<Option<Arc<Endpoints>>> {
    let several = upstreams.len() > 1;
    let circuit = match file.breaker.as_ref().map(|breaker| &breaker.value) {
        None => Some(several.then(CircuitPolicy::default)),
        Some(Breaker::Switch(on)) => Some(on.then(CircuitPolicy::default)),
        Some(Breaker::Table(file)) => circuit(file, faults).map(Some),
    };
    let honors = file.honor_retry_after.as_ref().is_some_and(|flag| flag.value);
    if !fixed {
        let places = [
            file.breaker.as_ref().map(|breaker| &breaker.at),
            file.honor_retry_after.as_ref().map(|flag| &flag.at),
        ];
        for place in places.into_iter().flatten() {
            faults.push(place, "is for upstreams that are always the same; remove it, or {token.NAME}");
        }
        return Some(None);
    }
    let circuit = circuit?;
    let looked_after = several || circuit.is_some() || honors;
    Some(looked_after.then(|| {
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        Arc::new(Endpoints::new(upstreams, circuit, honors, clock, entropy))
    }))
}

fn circuit(file: &BreakerFile, faults: &mut Faults) -> Option<CircuitPolicy> {
    let usual = CircuitPolicy::default();
    let mut number = |given: Option<&Located<u64>>, most: u64, usual: u32| match given {
        Some(given) => count(given, 1..=most, faults),
        None => Some(usual),
    };
    let failures = number(file.failures.as_ref(), 10_000, usual.failures);
    let failure_percent = number(file.failure_percent.as_ref(), 100, usual.failure_percent);
    let least_calls = number(file.least_calls.as_ref(), 1_000_000, usual.least_calls);
    let mut time = |given: Option<&Located<Duration>>, usual: Duration| {
        duration(given, faults).map(|given| given.unwrap_or(usual))
    };
    let window = time(file.window.as_ref(), usual.window);
    let open = time(file.open.as_ref(), usual.open);
    let longest_open = time(file.longest_open.as_ref(), usual.longest_open.max(open.unwrap_or_default()));
    if let (Some(open), Some(longest), Some(given)) = (open, longest_open, &file.longest_open)
        && longest < open
    {
        faults.push(&given.at, "must not be shorter than `open`, which is doubled up to it");
        return None;
    }
    Some(CircuitPolicy {
        failures: failures?,
        failure_percent: failure_percent?,
        least_calls: least_calls?,
        window: window?,
        open: open?,
        longest_open: longest_open?,
    })
}

fn retries(file: &RouteFile, faults: &mut Faults) -> Option<RetryPolicy> {
    let usual = RetryPolicy::default();
    let retries = match &file.retries {
        Some(retries) => count(retries, 0..=MOST_RETRIES, faults),
        None => Some(usual.retries),
    };
    let Some(budget) = &file.retry_budget else { return Some(RetryPolicy { retries: retries?, ..usual }) };
    if retries == Some(0) {
        faults.push(&budget.at, "is of no use: `retries` is 0");
    }
    let mut part = |given: Option<&Located<u64>>, most: u64, usual: u32| match given {
        Some(given) => count(given, 0..=most, faults),
        None => Some(usual),
    };
    let percent = part(budget.percent.as_ref(), 100, usual.percent);
    let per_second = part(budget.per_second.as_ref(), 10_000, usual.per_second);
    Some(RetryPolicy { retries: retries?, percent: percent?, per_second: per_second? })
}

/// A number within bounds.
pub(super) fn count(given: &Located<u64>, bounds: RangeInclusive<u64>, faults: &mut Faults) -> Option<u32> {
    let number = u32::try_from(given.value).ok().filter(|_| bounds.contains(&given.value));
    if number.is_none() {
        faults.push(&given.at, format!("must be from {} to {}", bounds.start(), bounds.end()));
    }
    number
}

/// A duration of a day at most; `Some(None)` if none is given.
fn duration(given: Option<&Located<Duration>>, faults: &mut Faults) -> Option<Option<Duration>> {
    let Some(given) = given else { return Some(None) };
    if !given.value.is_zero() && given.value <= DAY {
        return Some(Some(given.value));
    }
    faults.push(&given.at, "must be longer than nothing, and at most a day");
    None
}

/// Two upstreams of one route must not be the same: it would only seem to be several.
pub(super) fn tell_apart(upstreams: &[(Arc<UpstreamOrigin>, String)], at: &Place, faults: &mut Faults) {
    for (index, (origin, path)) in upstreams.iter().enumerate() {
        if upstreams[..index].iter().any(|(other, beside)| other == origin && beside == path) {
            faults.push(&at.join(&index.to_string()), "stands there twice; name each upstream once");
        }
    }
}
