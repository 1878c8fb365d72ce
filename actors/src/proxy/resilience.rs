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
    /// Time of the whole exchange, from the first attempt to the end of the answer's body.
    pub total_timeout: Option<Duration>,
    /// How often requests may be sent again.
    pub retries: Arc<RetryBudget>,
    /// Calls per time.
    pub rate: Option<Arc<RateLimit>>,
    /// Calls at once.
    pub in_flight: Option<Arc<InFlightLimit>>,
}
