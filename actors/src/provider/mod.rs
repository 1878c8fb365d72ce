//! One actor a profile: obtains, refreshes and revokes tokens.
//!
//! Reading order: `messages`, `actor` (who works on a connection), `flights` (one at a time),
//! `want` (what is asked for), `scopes` (what is asked for
//! beyond the profile's), `exchange` (obtain or refresh), `save` (durable before used),
//! `authorization` (where to send a browser), `device` (consent on
//! another device), `consent` (changes from outside).

pub mod actor;
mod authorization;
pub mod breaker;
mod consent;
pub mod context;
mod device;
pub mod error;
mod exchange;
mod expiry;
pub mod flights;
mod grant_request;
pub mod messages;
mod records;
mod save;
mod scopes;
mod want;
