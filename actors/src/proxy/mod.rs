//! Routes, and the forwarding of calls to upstreams.
//!
//! Reading order: `path`, `route` and `templated` (what is asked for), `headers` and `framing` (what may pass),
//! `body` (a request's body), `upstream` with `connect` and `response` (the connection pool), `actor`
//! (what lives per worker, and the slow path).

pub mod actor;
pub mod body;
pub mod connect;
pub mod error;
mod framing;
pub mod headers;
pub mod path;
pub mod response;
pub mod route;
pub mod templated;
pub mod upstream;
