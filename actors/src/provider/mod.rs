//! One actor a profile: obtains, refreshes and revokes tokens.
//!
//! Reading order: `messages`, `actor` (who works on a connection), `flights` (one at a time),
//! `want` (what is asked for),
//! `exchange` (obtain or refresh), `save` (durable before used), `consent` (changes from outside),
//! `client` (who we are), `introspection`, `revoke_all`.

pub mod actor;
pub mod breaker;
mod client;
mod consent;
pub mod context;
pub mod error;
mod exchange;
mod expiry;
pub mod flights;
mod grant_request;
mod introspection;
pub mod messages;
mod records;
mod registration;
mod revoke_all;
mod save;
mod want;
