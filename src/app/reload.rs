//! Takes another configuration while the gateway serves: upon SIGHUP, or when one of its files changes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_actors::clock::{Clock as _, SystemClock};
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::transport::Transport;
use tokio::signal::unix::Signal;
use url::Url;

use crate::caller_auth::CallerDirectory;
use crate::config::environment::ProcessEnvironment;
use crate::config::error::ConfigErrors;
use crate::config::{self, ConfigFile, GatewayConfig, StartKeys, WatchedFiles};
use crate::listeners::admin::configuration::ConfigurationStatus;
use crate::listeners::tls::ListenersTls;

/// How often the files are looked at. Looking at them finds what notifications miss: files that are
/// renamed into place, links that are pointed elsewhere, file systems of other machines.
const POLL: Duration = Duration::from_secs(1);
/// Files that still change are given so long to be finished, time and again.
const SETTLE: Duration = Duration::from_millis(200);
/// So often at most: somebody who writes all the time must not hold a reload up for ever.
const SETTLE_TIMES: u32 = 25;
/// A fault that is met right after a change is looked at again after this: files that belong together
/// change one after the other.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Takes other configurations, one after the other.
pub(super) struct Reloader {
    pub(super) gateway: GatewayHandle,
    pub(super) file: ConfigFile,
    pub(super) reloadable: Reloadable,
}

/// What of the wiring another configuration changes, or must not change.
#[derive(Clone)]
pub(super) struct Reloadable {
    pub(super) listeners_tls: ListenersTls,
    pub(super) callers: Arc<ArcSwap<CallerDirectory>>,
    pub(super) transport: Arc<dyn Transport>,
    /// What the process was started with.
    pub(super) start_keys: StartKeys,
    pub(super) public_url: Url,
    pub(super) status: ConfigurationStatus,
}

impl fmt::Debug for Reloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloadable").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Reloader {
    /// Reloads whenever there is reason to. Never returns.
    pub(super) async fn run(mut self, mut hangups: Signal) {
        loop {
            let asked = tokio::select! {
                biased;
                Some(()) = hangups.recv() => true,
                () = self.changed() => false,
            };
            super::notify::reloading();
            self.reload(asked).await;
            super::notify::ready();
        }
    }

    /// Waits until a file has changed and is left alone again.
    async fn changed(&self) {
        loop {
            tokio::time::sleep(POLL).await;
            let mut seen = look(&self.file.files).await;
            if seen == self.file.files {
                continue;
            }
            for _ in 0..SETTLE_TIMES {
                tokio::time::sleep(SETTLE).await;
                let again = look(&self.file.files).await;
                if again == seen {
                    break;
                }
                seen = again;
            }
            return;
        }
    }

    async fn reload(&mut self, asked: bool) {
        let mut loaded = self.load().await;
        if loaded.is_err() && !asked {
            tokio::time::sleep(SECOND_LOOK).await;
            loaded = self.load().await;
        }
        let refusal = match loaded {
            Ok(config) => self.take(config).await,
            Err(errors) => Err(errors.to_string()),
        };
        if let Err(why) = refusal {
            tracing::error!("the new configuration is refused, and the old one serves on:\n{why}");
            self.reloadable.status.refused(why);
        }
    }

    /// Off the engine's thread: keys and certificates take their time.
    async fn load(&mut self) -> Result<GatewayConfig, ConfigErrors> {
        let (path, public_url) = (self.file.path.clone(), self.reloadable.public_url.clone());
        let loading = actix_web::rt::task::spawn_blocking(move || {
            config::load_watched(&path, &ProcessEnvironment, Some(&public_url))
        });
        let (config, files) = match loading.await {
            Ok(loaded) => loaded,
            Err(_) => {
                return Err(ConfigErrors::of_file(&self.file.path, "loading it was cut off; try again"));
            }
        };
        self.file.files = files;
        config
    }

    async fn take(&self, config: GatewayConfig) -> Result<(), String> {
        let reloadable = &self.reloadable;
        for warning in config.warnings.iter().chain(&config.invalid_certificates) {
            tracing::warn!("{warning}");
        }
        let profiles = config.profiles.into_iter().map(Arc::new).collect();
        let changes = self
            .gateway
            .reload(profiles, config.routing.continuing(&self.gateway.routes()))
            .await
            .map_err(|error| format!("{}: {error}", self.file.path.display()))?;
        let callers = reloadable.callers.load().succeeded_by(config.callers, &reloadable.transport);
        // Only now do calls take the new routes, and these callers with them.
        let callers = callers.with_routes(self.gateway.routes());
        reloadable.callers.store(Arc::new(callers));
        let waiting = reloadable.start_keys.differing(&config.start_keys);
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            tracing::warn!(keys, "these keys have changed and count only after a restart");
        }
        let names = |ids: &[claviger_actors::protocol::identifiers::ProfileId]| {
            ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        tracing::info!(
            changed = names(&changes.changed),
            added = names(&changes.added),
            removed = names(&changes.removed),
            "the configuration was reloaded"
        );
        reloadable.status.taken(SystemClock.now(), waiting);
        let tls = reloadable.listeners_tls.clone();
        // What is wrong with it was found when the configuration was checked, unless it changed since.
        let kept = actix_web::rt::task::spawn_blocking(move || tls.reload()).await.unwrap_or_default();
        if !kept.is_empty() {
            let faults = kept.iter().map(|(listener, error)| format!("listeners.{listener}.tls: {error}"));
            reloadable.status.note(faults.collect::<Vec<_>>().join("\n"));
        }
        Ok(())
    }
}

/// The files as they are now. A thread of its own, for a file system may be slow to answer.
async fn look(files: &WatchedFiles) -> WatchedFiles {
    let files = files.clone();
    let unchanged = files.clone();
    actix_web::rt::task::spawn_blocking(move || files.now()).await.unwrap_or(unchanged)
}
