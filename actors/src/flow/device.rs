//! One pending authorization on another device (RFC 8628): asks the token endpoint until the person
//! has decided or the codes have ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, MessageResult};
use actix_rt::ArbiterHandle;
use parking_lot::Mutex;
use serde_json::json;

use super::actor::FlowParts;
use super::error::FlowError;
use super::messages::{DeviceView, FlowOutcome, ReadDevice};
use super::record::{FlowRecord, PendingDevice};
use crate::grants::Redemption;
use crate::provider::error::TokenError;
use crate::provider::messages::DevicePoll;
use crate::supervision::{ActorKind, ChildSpec, ExitGuard, Observation, Observe, RestartPolicy, Supervised};

/// What `slow_down` adds to the interval (RFC 8628 section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest pause while the provider fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a flow that has ended tells its page so.
const LINGER: Duration = Duration::from_secs(120);

/// What outlives a crash of the actor.
#[derive(Debug)]
struct Shared {
    record: FlowRecord,
    device: PendingDevice,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    interval: Duration,
    /// Failures of the provider in a row.
    failures: u32,
    last_error: Option<String>,
    ended: Option<Result<FlowOutcome, FlowError>>,
}

/// One pending authorization on another device.
pub(super) struct DeviceActor {
    parts: FlowParts,
    shared: Arc<Shared>,
    _guard: ExitGuard,
}

impl fmt::Debug for DeviceActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceActor({:?} {})", self.shared.record.state, self.shared.record.connection)
    }
}

impl DeviceActor {
    /// How the flow of `record`, whose device part is `device`, is started.
    pub(super) fn spec(
        parts: FlowParts,
        record: FlowRecord,
        device: PendingDevice,
        arbiter: ArbiterHandle,
    ) -> ChildSpec<Self> {
        let interval = Duration::from_secs(device.interval.max(1));
        let progress = Mutex::new(Progress { interval, failures: 0, last_error: None, ended: None });
        let id = record.state.short();
        let shared = Arc::new(Shared { record, device, progress });
        ChildSpec {
            id,
            policy: RestartPolicy::transient(),
            arbiter,
            factory: Box::new(move |guard| Self {
                parts: parts.clone(),
                shared: shared.clone(),
                _guard: guard,
            }),
        }
    }

    fn poll_later(&self, pause: Duration, ctx: &mut Context<Self>) {
        let left = self.shared.record.expires_at.since(self.parts.clock.now());
        ctx.run_later(pause.min(left), Self::poll);
    }

    fn poll(&mut self, ctx: &mut Context<Self>) {
        let record = &self.shared.record;
        if self.parts.clock.now() >= record.expires_at {
            self.refused("expired_token", ctx);
            return;
        }
        let redemption = Redemption {
            code: self.shared.device.device_code.clone(),
            code_verifier: None,
            redirect_uri: None,
            dpop_key: record.dpop_key.clone(),
            scopes: record.scopes.clone(),
            begun_at: record.created_at,
            kept: std::collections::BTreeMap::new(),
        };
        let Some(provider) = self.parts.providers.get(&record.connection.profile) else {
            self.back_off(None, "the flow's profile is no longer configured".to_owned(), ctx);
            return;
        };
        let polling = provider.poll_device(record.connection.subject.clone(), redemption);
        ctx.spawn(wrap_future(polling).map(|answer, this: &mut Self, ctx| this.polled(answer, ctx)));
    }

    fn polled(&mut self, answer: Result<DevicePoll, TokenError>, ctx: &mut Context<Self>) {
        let record = &self.shared.record;
        let (connection, return_to) = (record.connection.clone(), record.return_to.clone());
        match answer {
            Ok(DevicePoll::Connected) => self.end(Ok(FlowOutcome { connection, return_to }), ctx),
            Ok(DevicePoll::Pending) => self.go_on(Duration::ZERO, ctx),
            Ok(DevicePoll::SlowDown) => self.go_on(SLOWER, ctx),
            Ok(DevicePoll::Denied) => self.refused("access_denied", ctx),
            Ok(DevicePoll::Expired) => self.refused("expired_token", ctx),
            Ok(DevicePoll::Later { after, detail }) => self.back_off(after, detail, ctx),
            // The profile's actor was started anew, or something else has the connection.
            Err(error @ (TokenError::Ask { .. } | TokenError::Aborted { .. })) => {
                self.back_off(None, error.to_string(), ctx);
            }
            Err(source) => {
                tracing::error!(%connection, error = %source, "authorization on a device failed");
                self.end(Err(FlowError::Token { connection, source, return_to }), ctx);
            }
        }
    }

    fn go_on(&self, slower: Duration, ctx: &mut Context<Self>) {
        let interval = {
            let mut progress = self.shared.progress.lock();
            progress.failures = 0;
            progress.interval += slower;
            progress.interval
        };
        self.poll_later(interval, ctx);
    }

    /// RFC 8628 section 3.5: while there is no answer, the pause doubles.
    fn back_off(&self, after: Option<Duration>, detail: String, ctx: &mut Context<Self>) {
        let pause = {
            let mut progress = self.shared.progress.lock();
            progress.failures = progress.failures.saturating_add(1);
            progress.last_error = Some(detail);
            let doubled = progress.interval.saturating_mul(1 << progress.failures.min(6));
            doubled.min(LONGEST_PAUSE.max(progress.interval)).max(after.unwrap_or_default())
        };
        self.poll_later(pause, ctx);
    }

    fn refused(&self, code: &str, ctx: &mut Context<Self>) {
        let record = &self.shared.record;
        let (connection, return_to) = (record.connection.clone(), record.return_to.clone());
        tracing::info!(%connection, code, "consent was not given on the device");
        self.end(Err(FlowError::Refused { connection, code: code.to_owned(), return_to }), ctx);
    }

    fn end(&self, outcome: Result<FlowOutcome, FlowError>, ctx: &mut Context<Self>) {
        if let Ok(outcome) = &outcome {
            tracing::info!(connection = %outcome.connection, "connected by a device");
        }
        self.shared.progress.lock().ended = Some(outcome);
        let removing = self.parts.store.take(self.shared.record.state);
        ctx.spawn(wrap_future(removing).map(|removed, this: &mut Self, _| {
            if let Err(error) = removed {
                tracing::warn!(flow = ?this.shared.record.state, %error, "ended flow is left to the next purge");
            }
        }));
        ctx.run_later(LINGER, |_, ctx| ctx.stop());
    }
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (ended, interval) = {
            let progress = self.shared.progress.lock();
            (progress.ended.is_some(), progress.interval)
        };
        if ended {
            ctx.run_later(LINGER, |_, ctx| ctx.stop());
        } else {
            self.poll_later(interval, ctx);
        }
    }
}

impl Supervised for DeviceActor {
    const KIND: ActorKind = ActorKind::Flow;
}

impl Handler<ReadDevice> for DeviceActor {
    type Result = MessageResult<ReadDevice>;

    fn handle(&mut self, _: ReadDevice, _: &mut Self::Context) -> Self::Result {
        let Shared { record, device, progress } = &*self.shared;
        let progress = progress.lock();
        MessageResult(DeviceView {
            connection: record.connection.clone(),
            user_code: device.user_code.clone(),
            verification_uri: device.verification_uri.clone(),
            verification_uri_complete: device.verification_uri_complete.clone(),
            expires_in: record.expires_at.since(self.parts.clock.now()).as_secs(),
            interval: progress.interval.as_secs(),
            outcome: progress.ended.clone(),
        })
    }
}

impl Handler<Observe> for DeviceActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let Shared { record, progress, .. } = &*self.shared;
        let progress = progress.lock();
        MessageResult(Observation {
            state: if progress.ended.is_some() { "ended" } else { "polling" }.to_owned(),
            last_error: progress.last_error.clone(),
            detail: json!({
                "profile": record.connection.profile,
                "subject": record.connection.subject,
                "expires_in_s": record.expires_at.since(self.parts.clock.now()).as_secs(),
                "interval_s": progress.interval.as_secs(),
                "failures": progress.failures,
            }),
        })
    }
}
