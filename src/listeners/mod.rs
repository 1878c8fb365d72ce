//! The HTTP listeners: `proxy` for internal applications, `public` for browsers, `admin` for
//! operators. They turn HTTP into calls on the engine's `GatewayHandle` and its answers into HTTP.

pub mod browser_cookie;
pub mod problem;
pub mod proxy;
