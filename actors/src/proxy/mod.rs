//! Routes, and the forwarding of calls to upstreams.
//!
//! Reading order: `path`, `route` and `templated` (what is asked for), `headers` and `framing` (what may pass),
//! `body` (a request's body), `upstream` with `connect` and `response` (the connection pool), `actor`
//! (what lives per worker, and the slow path). What keeps calls within bounds and away from upstreams
//! that fail: `resilience`, which gathers `endpoints` with `circuit`, `retry_budget`, `rate_limit` and
//! `in_flight`.

pub mod actor;
pub mod body;
pub mod circuit;
pub mod connect;
pub mod endpoints;
pub mod error;
mod framing;
pub mod headers;
pub mod in_flight;
pub mod path;
pub mod rate_limit;
pub mod resilience;
pub mod response;
pub mod retry_budget;
pub mod route;
pub mod templated;
pub mod upstream;
