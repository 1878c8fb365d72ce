//! The data plane on real sockets: scripted callers on one side, scripted upstreams on the other, and
//! a scripted engine behind. What HTTP libraries hide from each other is said byte by byte here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod caller;
mod engine;
mod upstream;

mod access;
mod bodies;
mod consent;
mod framing;
mod heads;
mod hostile;
mod http2;
mod mixing;
mod resilience;
mod tokens;
mod websocket;
