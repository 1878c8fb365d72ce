//! The listening sockets: inherited, from systemd or from the process before this one, or bound.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};

use command_fds::FdMapping;
use listenfd::ListenFd;

use super::AppError;
use crate::config::Listeners;

/// Connections that may wait to be accepted; the kernel's `somaxconn` is the limit above it.
const BACKLOG: i32 = 4096;

/// Their names, in the order in which they are passed on.
pub(super) const NAMES: [&str; 3] = ["proxy", "public", "admin"];

/// The first descriptor that is passed on (`sd_listen_fds`).
const FIRST_FD: i32 = 3;

/// Listening sockets, there before anything else is touched.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) proxy: TcpListener,
    pub(super) public: TcpListener,
    pub(super) admin: TcpListener,
}

impl Sockets {
    /// Takes those that were passed to this process, and binds the others.
    pub(super) fn open(listeners: &Listeners) -> Result<Self, AppError> {
        let mut passed = Passed::to_this_process();
        let mut open = |index: usize, address| {
            let listener = NAMES[index];
            match passed.take(index).map_err(|source| AppError::Passed { listener, source })? {
                Some(socket) => Ok(socket),
                None => bind(listener, address),
            }
        };
        Ok(Self {
            proxy: open(0, listeners.proxy)?,
            public: open(1, listeners.public)?,
            admin: open(2, listeners.admin)?,
        })
    }

    /// The same sockets once more: they stay open as long as either is.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let Self { proxy, public, admin } = self;
        Ok(Self { proxy: proxy.try_clone()?, public: public.try_clone()?, admin: admin.try_clone()? })
    }

    /// As another process is to get them.
    pub(super) fn passed_on(&self) -> io::Result<Vec<FdMapping>> {
        let Self { proxy, public, admin } = self.try_clone()?;
        let numbered = [proxy, public, admin].into_iter().zip(FIRST_FD..);
        Ok(numbered.map(|(socket, child_fd)| FdMapping { parent_fd: socket.into(), child_fd }).collect())
    }
}

/// Sockets that were passed to this process by systemd's protocol.
struct Passed {
    sockets: ListenFd,
    names: Vec<String>,
}

impl Passed {
    fn to_this_process() -> Self {
        let sockets = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<_> = names.split(':').map(str::to_owned).collect();
        // Without `FileDescriptorName=` they all have the unit's name, and only their order counts.
        let known = names.len() == sockets.len() && names.iter().any(|name| NAMES.contains(&name.as_str()));
        Self { sockets, names: if known { names } else { Vec::new() } }
    }

    fn take(&mut self, listener: usize) -> io::Result<Option<TcpListener>> {
        let place = match self.names.is_empty() {
            true => Some(listener),
            false => self.names.iter().position(|name| name == NAMES[listener]),
        };
        let place = place.filter(|place| *place < self.sockets.len());
        place.map_or(Ok(None), |place| self.sockets.take_tcp_listener(place))
    }
}

fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    let failed = |source| AppError::Bind { listener, address, source };
    let socket = TcpListener::bind(address).map_err(failed)?;
    // The standard library's backlog of 128 makes a burst of callers wait a second for their second SYN.
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_of_callers_is_let_in_at_once() {
        let socket = bind("proxy", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        // Nobody accepts: all of them wait in the backlog.
        let burst: Result<Vec<_>, _> =
            (0..400).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(900))).collect();
        assert_eq!(burst.unwrap().len(), 400);
    }
}
