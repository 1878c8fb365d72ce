//! The gateway's shell around the engine: configuration, listeners, caller authentication, demo
//! and wiring. No protocol logic.

pub mod app;
pub mod caller_auth;
pub mod cli;
pub mod client_tls;
pub mod config;
pub mod counts;
pub mod demo;
pub mod listeners;
pub mod provider_client;
mod signals;
pub mod telemetry;
