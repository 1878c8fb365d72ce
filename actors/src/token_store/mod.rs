//! The one owner of what is durable: an answer means flushed.

pub mod actor;
pub mod messages;
