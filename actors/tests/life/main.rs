//! The life of a token set, sentence by sentence: a real engine against a scripted authorization
//! server and a store that fails on demand, on paused time.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_imports,
    missing_docs
)]

mod binding;
mod failures;
mod identity;
mod possession;
mod pushed;
mod rejection;
mod replicas;
mod saving;
mod scopes;
mod single_flight;
mod world;
