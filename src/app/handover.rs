//! Hands the listening sockets over to a new process, such as one of another version, so that no caller
//! is refused meanwhile: connections wait in the kernel until somebody accepts them.
//!
//! Two lines go over a socket pair, which is the new process's standard input:
//!
//! ```text
//! old                                   new
//! checks the configuration itself
//! starts the new one with the sockets   checks the configuration, takes the sockets
//!                         <- "ready"
//! drains, closes the store
//!                         "go" ->       opens the store, listens
//!                         <- "up"
//! ends
//! ```
//!
//! Whatever goes wrong before "go" leaves the old one as it was. If no "up" follows, the old one opens the
//! store again and serves on with the configuration that it has checked.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::CommandFdExt as _;
use thiserror::Error;

use super::sockets::{NAMES, Sockets};
use crate::config::environment::ProcessEnvironment;
use crate::config::{self, ConfigFile, GatewayConfig};

/// Tells the new process that it is one.
const MARK: &str = "CLAVIGER_HANDOVER";

const READY: &str = "ready";
const GO: &str = "go";
const UP: &str = "up";

/// Time that the new process has to check the configuration.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Time that it has to open the store and to listen.
const UP_DEADLINE: Duration = Duration::from_secs(60);

/// Why nothing is handed over. The old process serves on.
#[derive(Debug, Error)]
pub(super) enum HandoverError {
    /// The new process would refuse it, too.
    #[error("the configuration is refused:\n{0}")]
    Config(#[from] config::error::ConfigErrors),
    /// It cannot be started.
    #[error("the new process cannot be started: {0}")]
    Start(io::Error),
    /// It ended, or was silent for too long, before it said so.
    #[error("the new process did not say `{0}`: {1}; its log tells why")]
    Silent(&'static str, io::Error),
}

/// How this process was started, noted before the program's file can be exchanged.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    pub(super) fn of_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        // A path as it was given follows a link that is pointed to another version.
        let named = arguments.next().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let path = named.map_or_else(env::current_exe, Ok)?;
        Ok(Self { path, arguments: arguments.collect() })
    }
}

/// The new process, which waits for its turn. It ends if this is dropped.
#[derive(Debug)]
pub(super) struct Heir {
    child: Child,
    link: BufReader<UnixStream>,
    fallback: Option<Box<GatewayConfig>>,
}

impl Heir {
    /// Starts it and waits until it is ready to take over. Blocks.
    pub(super) fn start(
        program: &Program,
        file: &ConfigFile,
        sockets: &Sockets,
    ) -> Result<Self, HandoverError> {
        let fallback = config::load(&file.path, &ProcessEnvironment)?;
        let mut heir = Self::spawn(program, sockets, fallback).map_err(HandoverError::Start)?;
        heir.hear(READY, READY_DEADLINE)?;
        Ok(heir)
    }

    fn spawn(program: &Program, sockets: &Sockets, fallback: GatewayConfig) -> io::Result<Self> {
        let (link, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env(MARK, "1")
            .env("LISTEN_FDS", NAMES.len().to_string())
            .env("LISTEN_FDNAMES", NAMES.join(":"))
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS_FIRST_FD")
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        command.fd_mappings(sockets.passed_on()?).map_err(io::Error::other)?;
        let child = command.spawn()?;
        Ok(Self { child, link: BufReader::new(link), fallback: Some(Box::new(fallback)) })
    }

    fn hear(&mut self, word: &'static str, deadline: Duration) -> Result<(), HandoverError> {
        hear(&mut self.link, word, Some(deadline)).map_err(|error| HandoverError::Silent(word, error))
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it its turn, now that the store is closed, and waits until it serves. Otherwise it is ended,
    /// and what to serve on with is given back. Blocks.
    pub(super) fn take_over(mut self) -> Result<(), (HandoverError, Box<GatewayConfig>)> {
        let told = writeln!(self.link.get_mut(), "{GO}").map_err(HandoverError::Start);
        match told.and_then(|()| self.hear(UP, UP_DEADLINE)) {
            Ok(()) => {
                self.fallback = None;
                Ok(())
            }
            Err(error) => {
                // Whatever it holds must be free again.
                self.end();
                match self.fallback.take() {
                    Some(fallback) => Err((error, fallback)),
                    None => Ok(()),
                }
            }
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if self.fallback.is_some() {
            self.end();
        }
    }
}

/// The process that hands over to this one.
#[derive(Debug)]
pub(super) struct Predecessor {
    link: BufReader<UnixStream>,
}

impl Predecessor {
    /// The one that started this process, if that is so.
    pub(super) fn of_process() -> io::Result<Option<Self>> {
        if env::var_os(MARK).is_none() {
            return Ok(None);
        }
        let link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Nothing else may read from it.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Some(Self { link: BufReader::new(link) }))
    }

    /// Says that this process could serve, and waits until the store is closed. Blocks.
    pub(super) fn wait_for_turn(&mut self) -> io::Result<()> {
        writeln!(self.link.get_mut(), "{READY}")?;
        hear(&mut self.link, GO, None)
    }

    /// Says that this process serves.
    pub(super) fn relieve(mut self) {
        if let Err(error) = writeln!(self.link.get_mut(), "{UP}") {
            tracing::warn!(%error, "the process before this one could not be told that this one serves");
        }
    }
}

fn hear(link: &mut BufReader<UnixStream>, word: &str, deadline: Option<Duration>) -> io::Result<()> {
    link.get_ref().set_read_timeout(deadline)?;
    let mut line = String::new();
    link.read_line(&mut line)?;
    match line.trim_end() {
        heard if heard == word => Ok(()),
        "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process has ended")),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "another word came")),
    }
}
