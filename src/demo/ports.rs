//! Where the demo listens: the usual ports if they are free, any others if not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::DemoError;

/// The proxy listener's port, unless told otherwise; the others follow from it.
const USUAL_BASE: u16 = 8080;

/// Bound sockets for everything in the demo.
#[derive(Debug)]
pub struct Ports {
    /// Proxy, public and admin listener: only held until the gateway binds them itself.
    pub gateway: [TcpListener; 3],
    /// The sandbox authorization server.
    pub sandbox: TcpListener,
    /// The calendar API.
    pub calendar: TcpListener,
}

impl Ports {
    /// Binds base, base + 1, base + 2 for the gateway and base + 10, base + 11 for the rest. A base
    /// that was asked for must be free; the usual one gives way.
    pub fn bind(base: Option<u16>) -> Result<Self, DemoError> {
        let bind = |offset: u16| {
            let wanted = base.unwrap_or(USUAL_BASE).checked_add(offset).ok_or(DemoError::PortBase)?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted));
            let listener = match base {
                Some(_) => listener,
                None => listener.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))),
            };
            listener.map_err(|cause| DemoError::Bind { port: wanted, cause })
        };
        Ok(Self { gateway: [bind(0)?, bind(1)?, bind(2)?], sandbox: bind(10)?, calendar: bind(11)? })
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> Result<Addresses, DemoError> {
        let of = |listener: &TcpListener| listener.local_addr().map_err(DemoError::Address);
        let [proxy, public, admin] = &self.gateway;
        Ok(Addresses {
            proxy: of(proxy)?,
            public: of(public)?,
            admin: of(admin)?,
            sandbox: of(&self.sandbox)?,
            calendar: of(&self.calendar)?,
        })
    }
}

/// Where everything of the demo is, all on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For internal applications.
    pub proxy: SocketAddr,
    /// For browsers.
    pub public: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
    /// The sandbox authorization server.
    pub sandbox: SocketAddr,
    /// The calendar API.
    pub calendar: SocketAddr,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_base_that_was_asked_for_must_be_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(matches!(Ports::bind(Some(port)), Err(DemoError::Bind { port: told, .. }) if told == port));
        assert!(matches!(Ports::bind(Some(65_530)), Err(DemoError::PortBase | DemoError::Bind { .. })));
    }

    #[test]
    fn two_demos_find_room_side_by_side() {
        let (one, two) = (Ports::bind(None).unwrap(), Ports::bind(None).unwrap());
        let (one, two) = (one.addresses().unwrap(), two.addresses().unwrap());
        assert_ne!(one.proxy, two.proxy);
        assert_ne!(one.sandbox, two.sandbox);
        assert!(two.admin.ip().is_loopback());
    }
}
