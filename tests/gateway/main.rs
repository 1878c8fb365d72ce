//! End-to-end tests: the real binary, real sockets, an authorization server that we did not write.

// A test fails by panicking, and helpers are not an interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod assertions;
mod authorize;
mod callback;
mod callers;
mod client_auth;
mod config;
mod consent;
mod device;
mod dpop;
mod failures;
mod full_store;
mod grpc;
mod handover;
mod keycloak;
mod kill;
mod lifecycle;
mod matrix;
mod metadata;
mod metrics;
mod mtls;
mod panics;
mod password;
mod peers;
mod people;
mod quirks;
mod real_servers;
mod refresh;
mod reload;
mod requests;
mod resilience;
mod restart;
mod shutdown;
mod templates;
mod tls;
mod upstreams;
