//! The gateway's shell around the engine: configuration, listeners, caller authentication, demo
//! and wiring. No protocol logic.

pub mod caller_auth;
pub mod listeners;
