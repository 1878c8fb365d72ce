//! The RFCs' own types: parse, print, check. Pure: no actor, no I/O, no clock.
//!
//! Reading order: `secret`, `identifiers`, `scope`, `token`, then one request and its answer at a
//! time.

pub mod authorization_response;
pub mod identifiers;
pub mod pkce;
pub mod scope;
pub mod secret;
pub mod token;
pub mod token_request;
