//! The gateway on a thread of this process, so that a test can reach into it. Callers come over
//! sockets all the same.

use std::thread::JoinHandle;

use claviger::app::RunningApp;
use claviger::listeners::tls::ListenersTls;
use claviger_actors::gateway::GatewayHandle;
use tokio::sync::oneshot;

use super::gateway_config::GatewayConfig;

/// A running gateway.
pub struct InProcess {
    engine: GatewayHandle,
    tls: ListenersTls,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl InProcess {
    /// Starts it and waits until it listens.
    pub async fn start(config: &GatewayConfig) -> Self {
        let file = config.folder().join("gateway.toml");
        std::fs::write(&file, config.toml()).expect("writable");
        let checked = claviger::config::load(&file, &config.env).unwrap_or_else(|faults| panic!("{faults}"));
        let (started, starting) = oneshot::channel();
        let (stop, stopping) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let app = RunningApp::start(checked).await.unwrap_or_else(|error| panic!("{error}"));
                let _ = started.send((app.gateway().clone(), app.listeners_tls().clone()));
                let _ = stopping.await;
                app.stop().await;
            });
        });
        let (engine, tls) = starting.await.expect("it starts");
        Self { engine, tls, stop, thread }
    }

    /// The engine within.
    pub fn engine(&self) -> &GatewayHandle {
        &self.engine
    }

    /// TLS of its listeners.
    pub fn tls(&self) -> &ListenersTls {
        &self.tls
    }

    /// Ends it cleanly; its store is closed then.
    pub async fn stop(self) {
        let Self { engine, stop, thread, .. } = self;
        drop(engine);
        stop.send(()).expect("it runs");
        tokio::task::spawn_blocking(|| thread.join()).await.expect("joined").expect("it did not panic");
    }
}
