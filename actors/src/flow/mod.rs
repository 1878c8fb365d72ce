//! Pending authorizations: from redirect to callback (RFC 6749 section 4.1).
//!
//! The [`registrar`] starts and finds flows; each is an [`actor`] of its own, whose [`record`] is
//! durable before the browser is sent away. Reading order: `messages`, `record`, `ports`, `request`,
//! `check`, `actor`, `registrar`; then `device` and `devices`, where no browser comes back.

pub mod actor;
mod check;
mod device;
mod devices;
pub mod error;
mod links;
pub mod messages;
pub mod ports;
pub mod record;
pub mod registrar;
mod request;
#[cfg(test)]
mod tests;
