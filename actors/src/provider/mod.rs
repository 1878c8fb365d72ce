//! One actor a profile: obtains, refreshes and revokes tokens.
//!
//! Reading order: `messages`, `actor` (who works on a connection), `context` (what all of it shares),
//! `flights` (one at a time), `want` (what is asked for), `scopes` (what is asked for beyond the
//! profile's), `client` and `registration` (who we are), `capabilities`
//! (whether the server has what is wanted), `exchange` (obtain or refresh), `grant_request`
//! and `expiry` (one request, and how long its token lives), `records` and `save` (durable before used),
//! `authorization` (where to send a browser), `device` (consent on another device), `consent` (changes
//! from outside), `rekey` (under another subject), `introspection`, `userinfo` (who the person is),
//! `revoke_all`; `managed_keys` beside them.

pub mod actor;
mod authorization;
pub mod breaker;
mod capabilities;
mod client;
mod consent;
pub mod context;
mod device;
pub mod error;
mod exchange;
mod expiry;
pub mod flights;
mod grant_request;
mod introspection;
pub mod managed_keys;
pub mod messages;
mod records;
mod registration;
mod rekey;
mod revoke_all;
mod save;
mod scopes;
mod userinfo;
mod want;
