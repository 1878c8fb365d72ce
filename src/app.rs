//! The only wiring: store, engine, listeners, signals.

mod handover;
mod notify;
mod reload;
mod sockets;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use arc_swap::ArcSwap;
use claviger_actors::clock::{Clock as _, SystemClock, SystemEntropy};
use claviger_actors::gateway::{GatewayHandle, GatewayParts};
use claviger_actors::protocol::template::CallDigest;
use claviger_actors::proxy::upstream::UpstreamSettings;
use claviger_actors::store::StoreError;
use claviger_actors::store::sealed::Vault;
use claviger_actors::transport::Transport;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::time::Instant;

use crate::caller_auth::CallerDirectory;
use crate::client_tls::{self, TlsSetupError};
use crate::config::listener_tls::ListenerTlsSettings;
use crate::config::{ConfigFile, GatewayConfig, Listeners};
use crate::counts::ListenerCounts;
use crate::listeners::admin::configuration::ConfigurationStatus;
use crate::listeners::admin::metrics::Sources;
use crate::listeners::admin::{self, AdminState};
use crate::listeners::proxy::ProxyState;
use crate::listeners::proxy::load::Load;
use crate::listeners::public::{self, PublicState};
use crate::listeners::server::{Handlers, ListenerSettings, TlsSource, application, listen};
use crate::listeners::tls::{ListenerTls, ListenerTlsError, ListenersTls};
use crate::provider_client::ProviderClient;
use crate::signals::{self, StopSignals};
use handover::{HandoverError, Heir, Predecessor, Program};
use reload::{Reloadable, Reloader};
use sockets::Sockets;

/// Time that exchanges with providers and saves have beyond `server.drain_timeout`.
const SAVE_GRACE: Duration = Duration::from_secs(5);

/// Without a request for so long, idle connections are closed.
const QUIET: Duration = Duration::from_millis(500);

/// They are closed after this anyway.
const LONGEST_QUIETING: Duration = Duration::from_secs(5);

/// Time that the admin listener's last answers have.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the gateway did not start, or ended. Start-up only: nothing was served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppError {
    /// The store cannot be opened, or its keys do not fit.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener's address cannot be had.
    #[error("listeners.{listener}: cannot listen on {address}: {source}; free the port or change `bind`")]
    Bind {
        /// Which listener.
        listener: &'static str,
        /// Where it should listen.
        address: SocketAddr,
        /// The operating system's word.
        source: io::Error,
    },
    /// A socket that was passed to this process cannot be used.
    #[error("listeners.{listener}: the socket that was passed for it cannot be listened on: {source}")]
    Passed {
        /// Which listener.
        listener: &'static str,
        /// The operating system's word.
        source: io::Error,
    },
    /// The process that started this one to hand over to it did not.
    #[error("the process that was to hand over did not: {0}")]
    NoTurn(io::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// TLS of a listener cannot be set up.
    #[error(transparent)]
    ListenerTls(#[from] ListenerTlsError),
    /// Threads or signals cannot be had.
    #[error("the gateway could not start: {0}")]
    Io(#[from] io::Error),
    /// Told to end a second time, before all was done.
    #[error("told to end again while draining: what was still under way is cut off")]
    CutOff,
    /// The engine ended by itself.
    #[error("the engine's supervisor has ended; restart the gateway")]
    EngineEnded,
}

/// A gateway that serves.
#[derive(Debug)]
pub struct RunningApp {
    gateway: GatewayHandle,
    addresses: Listeners,
    listeners_tls: ListenersTls,
    /// Where calls and browsers come in: stopped first.
    traffic: [ServerHandle; 2],
    /// Answers until the end, so that whoever asks can see that we drain.
    admin: ServerHandle,
    reloadable: Reloadable,
    drain_timeout: Duration,
}

impl RunningApp {
    /// Starts everything. Must be called within an actix `System`, whose thread becomes the engine's.
    ///
    /// # Errors
    /// [`AppError`]; nothing was served then, and nothing stored was changed.
    pub async fn start(config: GatewayConfig) -> Result<Self, AppError> {
        let sockets = Sockets::open(&config.listeners)?;
        Self::start_on(sockets, config).await
    }

    async fn start_on(sockets: Sockets, config: GatewayConfig) -> Result<Self, AppError> {
        for warning in config.warnings.iter().chain(&config.invalid_certificates) {
            tracing::warn!("{warning}");
        }
        let addresses = Listeners {
            proxy: sockets.proxy.local_addr()?,
            public: sockets.public.local_addr()?,
            admin: sockets.admin.local_addr()?,
            ..config.listeners.clone()
        };
        let listeners_tls = ListenersTls::open(&addresses, &config.server.public_url, &SystemClock)?;
        let opener = config.store.opener;
        let store = actix_web::rt::task::spawn_blocking(opener).await.map_err(io::Error::other)??;
        let tls = client_tls::trusting_the_system()?;
        let entropy = Arc::new(SystemEntropy);
        let transport: Arc<dyn Transport> = Arc::new(ProviderClient::new(tls.clone()));
        let digest = CallDigest::new(&config.keyring.derive("calls of a connection"));
        let gateway = GatewayHandle::start(GatewayParts {
            profiles: config.profiles.into_iter().map(Arc::new).collect(),
            routing: config.routing,
            store,
            vault: Vault::new(config.keyring, entropy.clone()),
            transport: transport.clone(),
            clock: Arc::new(SystemClock),
            entropy,
            cached_connections: config.limits.cached_connections,
        })
        .await?;

        let public_url = config.server.public_url;
        let callers =
            CallerDirectory::remembering(config.limits.verified_credentials, config.callers, &transport)
                .with_routes(gateway.routes());
        let callers = Arc::new(ArcSwap::from_pointee(callers));
        let mut upstream = UpstreamSettings::new(tls);
        upstream.max_idle_per_origin = config.limits.idle_connections;
        let proxy_state =
            ProxyState::new(gateway.clone(), callers.clone(), public_url.clone(), Arc::new(upstream), digest)
                .with_load(Load::new(&config.limits));
        let public_state = PublicState { gateway: gateway.clone(), public_url: public_url.clone() };
        let listener_counts: BTreeMap<&'static str, Arc<ListenerCounts>> =
            ["proxy", "public", "admin"].into_iter().map(|name| (name, Arc::default())).collect();
        let metrics = Sources {
            calls: proxy_state.counts(),
            listeners: listener_counts.clone(),
            callers: callers.clone(),
        };
        let configuration = ConfigurationStatus::new(SystemClock.now());
        let reloadable = Reloadable {
            listeners_tls: listeners_tls.clone(),
            callers,
            transport,
            start_keys: config.start_keys,
            public_url: public_url.clone(),
            status: configuration.clone(),
        };
        let admin_state = AdminState {
            metrics,
            gateway: gateway.clone(),
            public_url,
            configuration,
            token: addresses.admin_token.clone(),
            bind: addresses.admin,
            certificates: addresses
                .admin_tls
                .as_ref()
                .is_some_and(ListenerTlsSettings::takes_client_certificates),
        };

        let (workers, drain) = (config.server.workers, config.server.drain_timeout);
        let settings = |name, workers, tls: &Option<Arc<ListenerTls>>| ListenerSettings {
            name,
            workers,
            tls: tls.clone().map(|tls| TlsSource::new(move || tls.current())),
            h2c: name == "proxy" && addresses.http2.in_clear,
            drain,
            counts: listener_counts.get(name).cloned().unwrap_or_default(),
        };
        let proxy = listen(sockets.proxy, settings("proxy", workers, &listeners_tls.proxy), move || {
            proxy_state.handlers()
        })?;
        let public = listen(sockets.public, settings("public", 1, &listeners_tls.public), move || {
            let state = public_state.clone();
            Handlers { http1: application(|paths| public::configure(paths, state)), http2: None }
        })?;
        let admin = listen(sockets.admin, settings("admin", 1, &listeners_tls.admin), move || {
            let state = admin_state.clone();
            Handlers { http1: application(|paths| admin::configure(paths, state)), http2: None }
        })?;

        let traffic = [proxy, public].map(spawn);
        let admin = spawn(admin);
        tracing::info!(
            proxy = %addresses.proxy,
            public = %addresses.public,
            admin = %addresses.admin,
            "claviger is listening"
        );
        Ok(Self { gateway, addresses, listeners_tls, traffic, admin, reloadable, drain_timeout: drain })
    }

    /// The engine.
    pub fn gateway(&self) -> &GatewayHandle {
        &self.gateway
    }

    /// Where the listeners are bound.
    pub fn addresses(&self) -> &Listeners {
        &self.addresses
    }

    fn reloader(&self, file: ConfigFile) -> Reloader {
        Reloader { gateway: self.gateway.clone(), file, reloadable: self.reloadable.clone() }
    }

    /// TLS of the listeners, whose files can be read again.
    pub fn listeners_tls(&self) -> &ListenersTls {
        &self.listeners_tls
    }

    /// Serves until a signal, then ends cleanly, or at once upon a second signal.
    ///
    /// # Errors
    /// [`AppError::EngineEnded`], [`AppError::CutOff`].
    pub(crate) async fn serve(self, signals: &mut StopSignals) -> Result<(), AppError> {
        let supervisor = self.gateway.supervisor().clone();
        let ended = tokio::select! {
            biased;
            () = signals.received() => Ok(()),
            () = supervisor.ended() => Err(AppError::EngineEnded),
        };
        self.end(signals).await?;
        ended
    }

    /// Ends cleanly, or at once upon a signal.
    async fn end(self, signals: &mut StopSignals) -> Result<(), AppError> {
        tracing::info!("draining");
        tokio::select! {
            biased;
            () = self.stop() => Ok(()),
            () = signals.received() => Err(AppError::CutOff),
        }
    }

    /// Callers are told with every answer that their connection ends. Waits until nobody seems to be left
    /// who has not been told: a connection that is closed while a request is on its way fails it.
    async fn until_quiet(&self) {
        let end = Instant::now() + LONGEST_QUIETING;
        let mut before = self.gateway.late_requests();
        while Instant::now() < end {
            tokio::time::sleep(QUIET).await;
            let late = self.gateway.late_requests();
            if late == before {
                return;
            }
            before = late;
        }
    }

    /// Ends cleanly: no new requests, those under way finish, every token set is durable.
    pub async fn stop(self) {
        let end = Instant::now() + self.drain_timeout + SAVE_GRACE;
        self.gateway.begin_draining();
        // What was accepted is still dealt out to the workers; a listener that stops would drop it.
        join_all(self.traffic.iter().map(ServerHandle::pause)).await;
        self.until_quiet().await;
        join_all(self.traffic.iter().map(|server| server.stop(true))).await;
        if !self.gateway.drain(end.saturating_duration_since(Instant::now())).await {
            tracing::error!("token requests were still under way when the time to drain was over");
        }
        // In time or not: nothing depends on these answers any more.
        let _ = tokio::time::timeout(FAREWELL, self.admin.stop(true)).await;
    }
}

fn spawn(server: Server) -> ServerHandle {
    let handle = server.handle();
    actix_web::rt::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "a listener ended");
        }
    });
    handle
}

/// How a gateway's serving ended.
enum Ending {
    /// It was told to end.
    Told,
    /// Another process is to go on, or else this one, with the same sockets.
    HandOver(Heir, Sockets),
}

/// Runs the gateway until it is told to end (SIGTERM or SIGINT). SIGHUP, or a change of `file` or of
/// what it names, has it take the configuration anew; SIGUSR2 has it start its program anew and hand the
/// listening sockets over.
///
/// # Errors
/// [`AppError`].
pub fn run(config: GatewayConfig, file: ConfigFile) -> Result<(), AppError> {
    let program = Program::of_process()?;
    let mut predecessor = Predecessor::of_process()?;
    let mut sockets = Sockets::open(&config.listeners)?;
    if let Some(predecessor) = &mut predecessor {
        predecessor.wait_for_turn().map_err(AppError::NoTurn)?;
    }
    let mut config = config;
    loop {
        let system = actix_web::rt::System::new();
        let life = Life { program: &program, file: file.clone(), sockets, predecessor: predecessor.take() };
        let ended = system.block_on(life.live(config));
        // The store closes with the engine: only then may another process open it.
        drop(system);
        let Ending::HandOver(heir, kept) = ended? else { return Ok(()) };
        let pid = heir.pid();
        match heir.take_over() {
            Ok(()) => {
                notify::succeeded_by(pid);
                tracing::info!(pid, "the new process serves");
                return Ok(());
            }
            Err((error, fallback)) => {
                tracing::error!(%error, "nothing was handed over; this process serves on");
                (config, sockets) = (*fallback, kept);
            }
        }
    }
}

/// Off the engine's thread, for it waits.
async fn start_heir(program: &Program, file: &ConfigFile, sockets: &Sockets) -> Result<Heir, HandoverError> {
    let (program, file) = (program.clone(), file.clone());
    let sockets = sockets.try_clone().map_err(HandoverError::Start)?;
    let starting = actix_web::rt::task::spawn_blocking(move || Heir::start(&program, &file, &sockets));
    starting.await.map_err(|error| HandoverError::Start(io::Error::other(error)))?
}

/// One time of serving, with an engine of its own.
struct Life<'a> {
    program: &'a Program,
    file: ConfigFile,
    sockets: Sockets,
    predecessor: Option<Predecessor>,
}

impl Life<'_> {
    async fn live(self, config: GatewayConfig) -> Result<Ending, AppError> {
        let Self { program, file, sockets, predecessor } = self;
        // First of all, so that a signal during the start is a clean end, too.
        let mut signals = StopSignals::listen()?;
        let (hangups, mut handovers) = (signals::hangups()?, signals::handovers()?);
        let app = RunningApp::start_on(sockets.try_clone()?, config).await?;
        if let Some(predecessor) = predecessor {
            predecessor.relieve();
        }
        notify::ready();
        let reloading = actix_web::rt::spawn(app.reloader(file.clone()).run(hangups));
        let heir = async {
            loop {
                handovers.recv().await;
                match start_heir(program, &file, &sockets).await {
                    Ok(heir) => return heir,
                    Err(error) => tracing::error!(%error, "nothing is handed over; this process serves on"),
                }
            }
        };
        let supervisor = app.gateway.supervisor().clone();
        let ending = tokio::select! {
            biased;
            () = signals.received() => Ok(None),
            () = supervisor.ended() => Err(AppError::EngineEnded),
            heir = heir => Ok(Some(heir)),
        };
        reloading.abort();
        let ending = match ending {
            Ok(Some(heir)) => Ok(Ending::HandOver(heir, sockets)),
            // Nobody else will accept what waits: callers are refused, and know at once.
            Ok(None) => {
                drop(sockets);
                notify::stopping();
                Ok(Ending::Told)
            }
            Err(error) => Err(error),
        };
        app.end(&mut signals).await?;
        ending
    }
}
