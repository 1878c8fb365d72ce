//! The RFCs' own types: parse, print, check. Pure: no actor, no I/O, no clock.
//!
//! Reading order: `secret`, `identifiers`, `scope`, `token`, `template` (what is filled in from a call),
//! then one request and its answer at a time: `authorization_request` with `pushed_request` and
//! `device_authorization`, `token_request` with `answer_format`, `introspection`, `client_registration`;
//! then what is signed: `signing_key`, `jws` and `dpop` of ours, `jwk`, `jwt` and `id_token` of others,
//! `saml`.

pub mod answer_format;
pub mod authorization_request;
pub mod authorization_response;
pub mod client_registration;
pub mod device_authorization;
pub mod dpop;
pub mod id_token;
pub mod identifiers;
pub mod introspection;
pub mod json_template;
pub mod jwk;
pub mod jws;
pub mod jwt;
pub mod metadata;
pub mod pkce;
pub mod printable;
pub mod pushed_request;
pub mod saml;
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
