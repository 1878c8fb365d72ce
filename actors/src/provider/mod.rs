//! One actor a profile: obtains, refreshes and revokes tokens.

pub mod error;
pub mod messages;
