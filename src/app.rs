//! The only wiring: store, engine, listeners, signals.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use arc_swap::ArcSwap;
use claviger_actors::clock::{SystemClock, SystemEntropy};
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
use crate::config::{GatewayConfig, Listeners};
use crate::listeners::admin::{self, AdminState};
use crate::listeners::proxy::ProxyState;
use crate::listeners::proxy::load::Load;
use crate::listeners::public::{self, PublicState};
use crate::listeners::server::{Handlers, ListenerSettings, TlsSource, application, listen};
use crate::listeners::tls::{ListenerTls, ListenerTlsError, ListenersTls};
use crate::provider_client::ProviderClient;
use crate::signals::StopSignals;

/// Time that requests under way have to end once we are told to.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Time that all of it may take, exchanges with providers and saves included: less than the half
/// minute after which supervisors of processes lose patience.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// Time that the admin listener's last answers have.
const FAREWELL: Duration = Duration::from_secs(1);

/// Connections that may wait to be accepted; the kernel's `somaxconn` is the limit above it.
const BACKLOG: i32 = 4096;

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
}

/// Listening sockets, bound before anything else is touched.
struct Sockets {
    proxy: TcpListener,
    public: TcpListener,
    admin: TcpListener,
}

impl Sockets {
    fn bind(listeners: &Listeners) -> Result<Self, AppError> {
        Ok(Self {
            proxy: bind("proxy", listeners.proxy)?,
            public: bind("public", listeners.public)?,
            admin: bind("admin", listeners.admin)?,
        })
    }
}

fn bind(listener: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    let failed = |source| AppError::Bind { listener, address, source };
    let socket = TcpListener::bind(address).map_err(failed)?;
    // The standard library's backlog of 128 makes a burst of callers wait a second for their second SYN.
    rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
    Ok(socket)
}

impl RunningApp {
    /// Starts everything. Must be called within an actix `System`, whose thread becomes the engine's.
    ///
    /// # Errors
    /// [`AppError`]; nothing was served then, and nothing stored was changed.
    pub async fn start(config: GatewayConfig) -> Result<Self, AppError> {
        for warning in config.warnings.iter().chain(&config.invalid_certificates) {
            tracing::warn!("{warning}");
        }
        let sockets = Sockets::bind(&config.listeners)?;
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
        let callers = Arc::new(ArcSwap::from_pointee(CallerDirectory::new(config.callers, &transport)));
        let mut upstream = UpstreamSettings::new(tls);
        upstream.max_idle_per_origin = config.limits.idle_connections;
        let proxy_state =
            ProxyState::new(gateway.clone(), callers, public_url.clone(), Arc::new(upstream), digest)
                .with_load(Load::new(&config.limits));
        let public_state = PublicState { gateway: gateway.clone(), public_url: public_url.clone() };
        let admin_state = AdminState {
            gateway: gateway.clone(),
            public_url,
            token: addresses.admin_token.clone(),
            bind: addresses.admin,
            certificates: addresses
                .admin_tls
                .as_ref()
                .is_some_and(ListenerTlsSettings::takes_client_certificates),
        };

        let settings = |name, workers, tls: &Option<Arc<ListenerTls>>| ListenerSettings {
            name,
            workers,
            tls: tls.clone().map(|tls| TlsSource::new(move || tls.current())),
            h2c: name == "proxy" && addresses.http2.in_clear,
            drain: DRAIN_DEADLINE,
        };
        let workers = config.server.workers;
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
        Ok(Self { gateway, addresses, listeners_tls, traffic, admin })
    }

    /// The engine.
    pub fn gateway(&self) -> &GatewayHandle {
        &self.gateway
    }

    /// Where the listeners are bound.
    pub fn addresses(&self) -> &Listeners {
        &self.addresses
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
        tracing::info!("draining");
        tokio::select! {
            biased;
            () = self.stop() => ended,
            () = signals.received() => Err(AppError::CutOff),
        }
    }

    /// Ends cleanly: no new requests, those under way finish, every token set is durable.
    pub async fn stop(self) {
        let end = Instant::now() + STOP_DEADLINE;
        self.gateway.begin_draining();
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

/// Runs the gateway until it is told to end (SIGTERM or SIGINT).
///
/// # Errors
/// [`AppError`].
pub fn run(config: GatewayConfig) -> Result<(), AppError> {
    actix_web::rt::System::new().block_on(async {
        // First of all, so that a signal during the start is a clean end, too.
        let mut signals = StopSignals::listen()?;
        RunningApp::start(config).await?.serve(&mut signals).await
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::TcpStream;

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
