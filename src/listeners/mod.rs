//! The HTTP listeners: `proxy` for internal applications, `public` for browsers, `admin` for
//! operators. They turn HTTP into calls on the engine's `GatewayHandle` and its answers into HTTP.

pub mod admin;
pub mod browser_cookie;
pub mod pages;
pub mod problem;
pub mod proxy;
pub mod public;
pub mod request_id;
pub mod return_to;
pub mod server;
pub mod tls;

#[cfg(test)]
mod test_support;
