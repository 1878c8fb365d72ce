//! `claviger demo`: the gateway, a sandbox authorization server and a sample calendar API, all on
//! loopback, with a throw-away store. NOT FOR PRODUCTION, and reachable by no other command.
//!
//! The demo writes a configuration file and has the gateway load it, so that what is shown is what
//! runs. Reading order: `ports`, `settings` (the configuration), `sandbox`, `calendar`, `guide`.

pub mod calendar;
pub mod guide;
pub mod ports;
mod run;
pub mod sandbox;
mod settings;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use claviger_actors::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use tempfile::TempDir;
use thiserror::Error;

use crate::config::error::ConfigErrors;
use crate::config::{self, GatewayConfig};
use calendar::Calendars;
use ports::Ports;
pub use run::{RunError, run};
use sandbox::keys::SigningKey;
use sandbox::state::Sandbox;
use settings::Settings;

/// The one internal application.
pub const CALLER: &str = "demo";
/// Its password; the demo is on loopback and holds nothing of anybody's.
pub const PASSWORD: &str = "demo-password";
/// Who consents in the printed guide.
pub const PERSON: &str = "alice";

/// Why the demo did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A port is taken.
    #[error("cannot listen on 127.0.0.1:{port}: {cause}; choose other ports with --port-base")]
    Bind {
        /// The port.
        port: u16,
        /// The operating system's word.
        #[source]
        cause: std::io::Error,
    },
    /// There are not enough ports above the base.
    #[error("--port-base must leave room for 12 ports below 65536")]
    PortBase,
    /// A bound socket has no address.
    #[error("cannot tell the address of a socket: {0}")]
    Address(#[source] std::io::Error),
    /// The throw-away folder cannot be written.
    #[error("cannot write the demo's folder: {0}")]
    Folder(#[source] std::io::Error),
    /// A key or a password hash cannot be made.
    #[error("cannot make a {0} for the demo")]
    Key(&'static str),
    /// A server does not start.
    #[error("cannot start the demo's servers: {0}")]
    Serve(#[source] std::io::Error),
}

/// A running sandbox and calendar API, and the configuration of the gateway that goes with them.
/// The folder with configuration and store is removed when this is dropped.
pub struct Demo {
    config: PathBuf,
    environment: BTreeMap<String, String>,
    guide: String,
    servers: Vec<ServerHandle>,
    _folder: TempDir,
}

impl Demo {
    /// Starts the sandbox and the calendar API, and writes the gateway's configuration. Needs a
    /// running actix system. The gateway's ports are free again when this returns.
    pub async fn start(port_base: Option<u16>) -> Result<Self, DemoError> {
        let ports = Ports::bind(port_base)?;
        let at = ports.addresses()?;
        let settings = Settings::generate(at)?;
        let (folder, config) = Settings::write().map_err(DemoError::Folder)?;
        let environment = settings.environment(folder.path());

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let keys = SigningKey::generate().map_err(|_| DemoError::Key("signing key"))?;
        let sandbox = Sandbox::new(settings.issuer(), settings.clients(), keys, clock, entropy);
        let (sandbox, calendars) = (Arc::new(sandbox), Arc::new(Calendars::default()));
        let known = Arc::clone(&sandbox);
        let servers = vec![
            serve(ports.sandbox, move |cfg| sandbox::configure(cfg, Arc::clone(&sandbox)))?,
            serve(ports.calendar, move |cfg| {
                calendar::configure(cfg, Arc::clone(&known), Arc::clone(&calendars));
            })?,
        ];
        Ok(Self { config, environment, guide: guide::guide(&at), servers, _folder: folder })
    }

    /// The gateway's configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Loads that file as every other command would, but with an environment of the demo's own: a
    /// variable that is set for a real gateway must not reach it.
    pub fn load_config(&self) -> Result<GatewayConfig, ConfigErrors> {
        config::load(&self.config, &self.environment)
    }

    /// What to try, step by step.
    pub fn guide(&self) -> &str {
        &self.guide
    }

    /// Stops the servers.
    pub async fn stop(&self) {
        for server in &self.servers {
            server.stop(false).await;
        }
    }
}

fn serve<F>(listener: TcpListener, configure: F) -> Result<ServerHandle, DemoError>
where
    F: Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
{
    let server = HttpServer::new(move || App::new().configure(configure.clone()))
        .workers(1)
        .disable_signals()
        .listen(listener)
        .map_err(DemoError::Serve)?
        .run();
    let handle = server.handle();
    actix_rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "a server of the demo ended");
        }
    });
    Ok(handle)
}

#[cfg(test)]
mod tests;
