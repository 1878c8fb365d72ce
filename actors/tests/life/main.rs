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
mod calls;
mod failures;
mod identity;
mod introspection;
mod managed_keys;
mod possession;
mod pushed;
mod refresh_lifetime;
mod registration;
mod rejection;
mod rekey;
mod reload;
mod replicas;
mod revoke_all;
mod saving;
mod scopes;
mod single_flight;
mod userinfo;
mod world;
