//! What a route asks for beyond the sending of calls. A route that asks for none of it pays for a look
//! at an `Option` each, and for the counting of its requests.

use std::sync::Arc;
use std::time::Duration;

use super::endpoints::Endpoints;
use super::in_flight::InFlightLimit;
use super::rate_limit::RateLimit;
use super::retry_budget::RetryBudget;

/// Limits of a route, and how it copes with upstreams that fail. What is shared by the workers is
/// behind an `Arc`, so that a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Resilience {
    /// Its upstreams, if it has several or looks after the one.
    pub endpoints: Option<Arc<Endpoints>>,
    /// Time to open a connection, if not as with all upstreams.
    pub connect_timeout: Option<Duration>,
    /// How long a body may make no progress, if not as with all routes.
    pub idle_timeout: Option<Duration>,
    /// Time of the whole exchange, from the first attempt to the end of the answer's body.
    pub total_timeout: Option<Duration>,
    /// How often requests may be sent again.
    pub retries: Arc<RetryBudget>,
    /// Calls per time.
    pub rate: Option<Arc<RateLimit>>,
    /// Calls at once.
    pub in_flight: Option<Arc<InFlightLimit>>,
}

impl Resilience {
    /// The same, going on with what it was `before` wherever that was configured alike: another
    /// configuration must not fill buckets, close circuits or forget calls under way.
    #[must_use]
    pub fn continuing(self, before: &Self) -> Self {
        fn kept<T>(new: Arc<T>, before: &Arc<T>, alike: impl Fn(&T, &T) -> bool) -> Arc<T> {
            if alike(&new, before) { before.clone() } else { new }
        }
        fn optional<T>(
            new: Option<Arc<T>>,
            before: Option<&Arc<T>>,
            alike: impl Fn(&T, &T) -> bool,
        ) -> Option<Arc<T>> {
            new.map(|new| before.map_or_else(|| new.clone(), |before| kept(new.clone(), before, alike)))
        }
        Self {
            endpoints: optional(self.endpoints, before.endpoints.as_ref(), Endpoints::is_like),
            retries: kept(self.retries, &before.retries, |new, old| new.policy() == old.policy()),
            rate: optional(self.rate, before.rate.as_ref(), |new, old| new.rate() == old.rate()),
            in_flight: optional(self.in_flight, before.in_flight.as_ref(), |new, old| new.max() == old.max()),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::num::NonZeroU32;

    use super::super::circuit::CircuitPolicy;
    use super::super::endpoints::Tried;
    use super::super::rate_limit::Rate;
    use super::super::route::UpstreamOrigin;
    use super::*;
    use crate::clock::Timestamp;
    use crate::testing::{ManualClock, SeededEntropy};

    /// As a configuration makes it, with these values.
    fn configured(host: &str, requests: u32, max: usize) -> Resilience {
        let clock = ManualClock::new(Timestamp::from_secs(1000));
        let requests = NonZeroU32::new(requests).unwrap();
        let rate = Rate { requests, per: Duration::from_secs(3600), burst: requests };
        let origin = UpstreamOrigin {
            tls: true,
            host: host.to_owned(),
            port: 443,
            serialized: format!("https://{host}").into(),
        };
        let list = [(Arc::new(origin), String::new())];
        let policy = CircuitPolicy { failures: 1, ..CircuitPolicy::default() };
        Resilience {
            endpoints: Some(Arc::new(Endpoints::new(
                list,
                Some(policy),
                false,
                clock.clone(),
                SeededEntropy::new(1),
            ))),
            rate: Some(Arc::new(RateLimit::new(rate, clock))),
            in_flight: Some(InFlightLimit::new(max)),
            ..Resilience::default()
        }
    }

    #[test]
    fn what_is_configured_alike_goes_on_and_what_is_not_begins_anew() {
        let before = configured("a.example", 1, 1);
        before.rate.as_ref().unwrap().take().unwrap();
        before.endpoints.as_ref().unwrap().choose(Tried::default(), true).unwrap().failed();
        let _under_way = before.in_flight.as_ref().unwrap().enter().unwrap();

        let same = configured("a.example", 1, 1).continuing(&before);
        assert!(same.rate.unwrap().take().is_err());
        assert_eq!(same.endpoints.unwrap().views()[0].state, "open");
        assert!(same.in_flight.unwrap().enter().is_none());
        assert!(Arc::ptr_eq(&same.retries, &before.retries));

        let other = configured("b.example", 2, 2).continuing(&before);
        assert!(other.rate.unwrap().take().is_ok());
        assert_eq!(other.endpoints.unwrap().views()[0].state, "closed");
        assert!(other.in_flight.unwrap().enter().is_some());
        let none = Resilience::default().continuing(&before);
        assert!(none.endpoints.is_none() && none.rate.is_none() && none.in_flight.is_none());
    }
}
