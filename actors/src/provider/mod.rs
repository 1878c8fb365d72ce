//! One actor a profile: obtains, refreshes and revokes tokens.
//!
//! Reading order: `messages`, `actor` (who works on a connection), `flights` (one at a time),
//! `want` (what is asked for),
//! `exchange` (obtain or refresh), `save` (durable before used), `consent` (changes from outside).

pub mod actor;
pub mod breaker;
mod consent;
pub mod context;
pub mod error;
mod exchange;
mod expiry;
pub mod flights;
mod grant_request;
pub mod managed_keys;
pub mod messages;
mod records;
mod save;
mod want;
