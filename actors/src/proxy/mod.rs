//! Routes, and the forwarding of calls to upstreams.
//!
//! Reading order: `path` and `route` (what is asked for), `headers` (what may pass), `upstream`
//! (the connection pool), `actor` (what lives per worker, and the slow path).

pub mod actor;
pub mod route;
