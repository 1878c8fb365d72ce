//! Pending authorizations: from redirect to callback (RFC 6749 section 4.1).

pub mod actor;
pub mod error;
pub mod messages;
pub mod record;
pub mod registrar;
