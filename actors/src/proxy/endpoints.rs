//! The upstreams of a route that are looked after: which one a call goes to, and which are left alone
//! for a while.
//!
//! A call goes to the less busy of two drawn at random, as drawing the least busy of all would send
//! every worker to the same one. Nothing here allocates or locks as long as all upstreams work.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::circuit::{Circuit, CircuitPolicy, Pass};
use super::error::UpstreamError;
use super::route::UpstreamOrigin;
use crate::clock::{Clock, Entropy, unit_interval};
use crate::protocol::token_error::retry_after;

/// Upstreams that one route may have: as many as a set of them has bits.
pub const MAX_UPSTREAMS: usize = 32;
/// An upstream's `Retry-After` is heeded for so long at most.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

/// One upstream of a route.
#[derive(Debug)]
pub struct Endpoint {
    origin: Arc<UpstreamOrigin>,
    path: String,
    in_flight: AtomicUsize,
    circuit: Option<Circuit>,
    hold: Option<Hold>,
}

/// Until when an upstream wants no calls, in milliseconds of [`Clock::uptime`]; 0 for no such wish.
#[derive(Debug, Default)]
struct Hold(AtomicU64);

impl Hold {
    fn set(&self, until: Duration) {
        self.0.fetch_max(millis(until), Ordering::Relaxed);
    }

    fn left(&self, clock: &dyn Clock) -> Option<Duration> {
        let until = self.0.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let left = Duration::from_millis(until).saturating_sub(clock.uptime());
        if left.is_zero() {
            // Unless another wish came meanwhile.
            let _ = self.0.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
            return None;
        }
        Some(left)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A few upstreams, by their places in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried(u32);

impl Tried {
    fn has(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// The `n`-th of them.
    fn nth(self, n: u32) -> usize {
        let mut rest = self.0;
        for _ in 0..n {
            rest &= rest.wrapping_sub(1);
        }
        rest.trailing_zeros() as usize
    }
}

/// Why no upstream of a route gets a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The one that can be asked again first.
    pub origin: Arc<str>,
    /// Time until then.
    pub retry_after: Duration,
    /// Whether it said so itself; otherwise it fails.
    pub asked_for: bool,
}

impl From<Unavailable> for UpstreamError {
    fn from(Unavailable { origin, retry_after, asked_for }: Unavailable) -> Self {
        if asked_for {
            Self::HeldBack { origin, retry_after }
        } else {
            Self::CircuitOpen { origin, retry_after }
        }
    }
}

/// An upstream as it stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Where it is.
    pub origin: Arc<str>,
    /// `closed`, `open` or `half_open`, of its circuit; `held_back` after its `Retry-After`.
    pub state: &'static str,
    /// Failures since the last success; while its circuit is open, probes that failed.
    pub failures: u32,
    /// Calls under way.
    pub in_flight: usize,
    /// Time until it gets calls again, if it gets none.
    pub retry_in: Option<Duration>,
}

/// All upstreams of a route, shared by all workers.
pub struct Endpoints {
    list: Box<[Endpoint]>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    dice: AtomicU64,
}

impl Endpoints {
    /// The upstreams with the path prefix that each has, at most [`MAX_UPSTREAMS`] and at least one.
    /// With a `circuit`, each is left alone while it fails; if `honors_retry_after`, also while it
    /// asks to be (RFC 9110 section 10.2.3).
    pub fn new(
        upstreams: impl IntoIterator<Item = (Arc<UpstreamOrigin>, String)>,
        circuit: Option<CircuitPolicy>,
        honors_retry_after: bool,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let list = upstreams.into_iter().take(MAX_UPSTREAMS).map(|(origin, path)| Endpoint {
            origin,
            path,
            in_flight: AtomicUsize::new(0),
            circuit: circuit.map(Circuit::new),
            hold: honors_retry_after.then(Hold::default),
        });
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        Self { list: list.collect(), clock, entropy, dice: AtomicU64::new(u64::from_le_bytes(seed)) }
    }

    /// Where they are.
    pub fn origins(&self) -> impl Iterator<Item = &Arc<UpstreamOrigin>> {
        self.list.iter().map(|endpoint| &endpoint.origin)
    }

    /// Whether both are the same upstreams, looked after in the same way.
    pub fn is_like(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Endpoint, &Endpoint)| {
            let policy = |endpoint: &Endpoint| endpoint.circuit.as_ref().map(Circuit::policy);
            one.origin == other.origin
                && one.path == other.path
                && one.hold.is_some() == other.hold.is_some()
                && policy(one) == policy(other)
        };
        self.list.len() == other.list.len() && self.list.iter().zip(&other.list).all(alike)
    }

    /// The upstream for a call that has `tried` some; if it has tried all, any of them. An upstream
    /// that might work again is only probed with a call that `may_probe` while there are others.
    ///
    /// # Errors
    /// [`Unavailable`], if none of those left may be asked now.
    pub fn choose(self: &Arc<Self>, tried: Tried, may_probe: bool) -> Result<Passage, Unavailable> {
        let tried = if tried.count() as usize >= self.list.len() { Tried::default() } else { tried };
        let (mut able, mut shut) = (Tried::default(), Tried::default());
        let mut refusal: Option<Unavailable> = None;
        let mut refused = |endpoint: &Endpoint, retry_after, asked_for| {
            if refusal.as_ref().is_none_or(|other| retry_after < other.retry_after) {
                let origin = endpoint.origin.serialized.clone();
                refusal = Some(Unavailable { origin, retry_after, asked_for });
            }
        };
        for (index, endpoint) in self.list.iter().enumerate().filter(|(index, _)| !tried.has(*index)) {
            if let Some(left) = endpoint.hold.as_ref().and_then(|hold| hold.left(&*self.clock)) {
                refused(endpoint, left, true);
            } else if endpoint.circuit.as_ref().is_none_or(Circuit::is_closed) {
                able.add(index);
            } else {
                shut.add(index);
            }
        }
        if may_probe || able == Tried::default() {
            for (index, endpoint) in self.list.iter().enumerate().filter(|(index, _)| shut.has(*index)) {
                let Some(circuit) = &endpoint.circuit else { continue };
                match circuit.probe(self.clock.uptime()) {
                    Ok(pass) => return Ok(Passage::new(self, index, pass, tried)),
                    Err(wait) => refused(endpoint, wait, false),
                }
            }
        }
        match able.count() {
            0 => Err(refusal.unwrap_or_else(|| self.nobody())),
            1 => Ok(Passage::new(self, able.nth(0), Pass::Ordinary, tried)),
            count => {
                let (one, other) = self.draw_two(count);
                let (one, other) = (able.nth(one), able.nth(other));
                let index = if self.load(other) < self.load(one) { other } else { one };
                Ok(Passage::new(self, index, Pass::Ordinary, tried))
            }
        }
    }

    /// All of them as they stand.
    pub fn views(&self) -> Vec<EndpointView> {
        let now = self.clock.uptime();
        let view = |endpoint: &Endpoint| {
            let circuit = endpoint.circuit.as_ref().map(|circuit| circuit.view(now));
            let held = endpoint.hold.as_ref().and_then(|hold| hold.left(&*self.clock));
            EndpointView {
                origin: endpoint.origin.serialized.clone(),
                state: if held.is_some() { "held_back" } else { circuit.map_or("closed", |view| view.state) },
                failures: circuit.map_or(0, |view| view.failures),
                in_flight: endpoint.in_flight.load(Ordering::Relaxed),
                retry_in: held.or(circuit.and_then(|view| view.probe_in)),
            }
        };
        self.list.iter().map(view).collect()
    }

    fn load(&self, index: usize) -> usize {
        self.list.get(index).map_or(usize::MAX, |endpoint| endpoint.in_flight.load(Ordering::Relaxed))
    }

    /// Two different numbers below `count`, which is two or more.
    fn draw_two(&self, count: u32) -> (u32, u32) {
        // splitmix64: even enough for this, and one atomic step for all workers.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.dice.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        let below = |bits: u64, count: u32| u32::try_from(((bits & 0xffff_ffff) * u64::from(count)) >> 32);
        let one = below(mixed, count).unwrap_or(0);
        let further = below(mixed >> 32, count - 1).unwrap_or(0) + 1;
        (one, (one + further) % count)
    }

    fn nobody(&self) -> Unavailable {
        let origin = self.list.first().map_or_else(|| Arc::from(""), |first| first.origin.serialized.clone());
        Unavailable { origin, retry_after: Duration::from_secs(1), asked_for: false }
    }
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoints").field("list", &self.list).finish_non_exhaustive()
    }
}

/// A call on its way to one upstream, counted there until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Passage {
    endpoints: Arc<Endpoints>,
    index: usize,
    /// What the call is to the circuit, until that was told what became of it.
    pass: Cell<Option<Pass>>,
    tried: Tried,
}

impl Passage {
    fn new(endpoints: &Arc<Endpoints>, index: usize, pass: Pass, mut tried: Tried) -> Self {
        tried.add(index);
        let passage = Self { endpoints: endpoints.clone(), index, pass: Cell::new(Some(pass)), tried };
        passage.endpoint().in_flight.fetch_add(1, Ordering::Relaxed);
        passage
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoints.list[self.index]
    }

    /// Where to.
    pub fn origin(&self) -> &Arc<UpstreamOrigin> {
        &self.endpoint().origin
    }

    /// Path prefix there, without a trailing slash.
    pub fn path(&self) -> &str {
        &self.endpoint().path
    }

    /// Whether the route has other upstreams.
    pub fn has_others(&self) -> bool {
        self.endpoints.list.len() > 1
    }

    /// All that the call has tried, this one with them.
    pub fn tried(&self) -> Tried {
        self.tried
    }

    /// The upstream has answered with this head. A gateway's complaint about what is behind it is a
    /// failure (RFC 9110 section 15.6); any other status comes from a server that works.
    pub fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        use StatusCode as S;
        if let Some(hold) = &self.endpoint().hold
            && matches!(status, S::TOO_MANY_REQUESTS | S::SERVICE_UNAVAILABLE)
            && let Some(wait) = retry_after(headers, self.endpoints.clock.now())
        {
            hold.set(self.endpoints.clock.uptime().saturating_add(wait.min(LONGEST_HOLD)));
        }
        if matches!(status, S::BAD_GATEWAY | S::SERVICE_UNAVAILABLE | S::GATEWAY_TIMEOUT) {
            self.failed();
        } else if let Some((circuit, pass)) = self.settle() {
            circuit.succeeded(pass, self.endpoints.clock.as_ref());
        }
    }

    /// The upstream gave no answer.
    pub fn failed(&self) {
        if let Some((circuit, pass)) = self.settle() {
            circuit.failed(pass, self.endpoints.clock.uptime(), unit_interval(&*self.endpoints.entropy));
        }
    }

    fn settle(&self) -> Option<(&Circuit, Pass)> {
        let circuit = self.endpoint().circuit.as_ref()?;
        Some((circuit, self.pass.take()?))
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.endpoint().in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some((circuit, pass)) = self.settle() {
            circuit.abandoned(pass, self.endpoints.clock.uptime());
        }
    }
}

#[cfg(test)]
mod tests;
