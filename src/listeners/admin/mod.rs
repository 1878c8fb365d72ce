//! The listener for operators: health, debug and the admin API.

pub mod cursor;
pub mod guard;
