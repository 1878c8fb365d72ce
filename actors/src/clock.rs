//! Time and randomness, as ports: the only places where the engine reads either.
//!
//! Both are injected so that a simulation can run the engine on a seeded schedule and replay it.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment on the wall clock, in milliseconds since the Unix epoch.
///
/// Arithmetic saturates: a hostile `expires_in` must never panic an actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The moment `secs` seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This moment moved later by `delay`, saturating.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This moment moved earlier by `lead`, saturating at the epoch.
    #[must_use]
    pub fn before(self, lead: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(lead.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Time passed since `earlier`; zero if `earlier` is later (a clock may be set back).
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Year 9999 is the last one RFC 3339 can write.
        let time = UNIX_EPOCH + Duration::from_secs(self.as_secs().min(253_402_300_799));
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

/// Source of wall-clock time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current moment.
    fn now(&self) -> Timestamp;

    /// Time that never runs back, since a moment that stays the same while the process runs: for
    /// durations. What is set by hand has no other time than [`Clock::now`].
    fn uptime(&self) -> Duration {
        Duration::from_millis(self.now().as_millis())
    }
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one reader of wall time")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn uptime(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// Source of unpredictable bytes: states, verifiers, nonces, jitter.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `out` wholly.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's random number generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        #[expect(
            clippy::expect_used,
            reason = "without randomness no secret can be made; aws-lc aborts likewise"
        )]
        aws_lc_rs::rand::fill(out).expect("the operating system gives random bytes");
    }
}

/// A number drawn uniformly from `0.0..1.0`, for jitter. Not for secrets.
pub fn unit_interval(entropy: &dyn Entropy) -> f64 {
    let mut bytes = [0u8; 4];
    entropy.fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
