//! The engine of Claviger: supervised actors that obtain, keep and use OAuth 2.0 tokens on behalf
//! of internal applications. It knows no HTTP server and no file format of the gateway's.
//!
//! Layers, each importing only downward:
//!
//! ```text
//! gateway
//! proxy        flow        provider        token_store        (actors)
//! token_endpoint  jwk_set  discovery
//! profile  snapshot
//! grants  client_auth  store                                  (one file an extension)
//! registration  connection  transport  supervision
//! protocol  clock                                             (pure)
//! ```

pub mod authorization_server;
pub mod client_auth;
pub mod clock;
pub mod connection;
pub mod discovery;
pub mod flow;
pub mod gateway;
pub mod grants;
pub mod jwk_set;
pub mod profile;
pub mod protocol;
pub mod provider;
pub mod proxy;
pub mod registration;
pub mod snapshot;
pub mod store;
pub mod supervision;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod token_endpoint;
pub mod token_store;
pub mod transport;
