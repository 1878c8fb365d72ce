//! The RFCs' own types: parse, print, check. Pure: no actor, no I/O, no clock.
//!
//! Reading order: `secret`, `identifiers`, `scope`, `token`, then one request and its answer at a
//! time.

pub mod answer_format;
pub mod authorization_request;
pub mod authorization_response;
pub mod device_authorization;
pub mod dpop;
pub mod id_token;
pub mod identifiers;
pub mod json_template;
pub mod jwk;
pub mod jws;
pub mod metadata;
pub mod pkce;
pub mod printable;
pub mod pushed_request;
pub mod scope;
pub mod secret;
pub mod signing_key;
pub mod state;
pub mod strict_json;
pub mod template;
pub mod token;
pub mod token_error;
pub mod token_request;
pub mod token_response;
