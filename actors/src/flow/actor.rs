//! One pending authorization: answers one response, then ends.

use std::fmt;
use std::sync::Arc;

use actix::fut::{self, ActorFutureExt, LocalBoxActorFuture, wrap_future};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, MessageResult, ResponseActFuture};
use actix_rt::ArbiterHandle;
use parking_lot::Mutex;
use serde_json::json;
use url::Url;

use super::check;
use super::error::FlowError;
use super::messages::{CompleteAuthorization, FlowOutcome};
use super::ports::{FlowStore, Providers};
use super::record::{FlowRecord, StateHash};
use crate::clock::{Clock, Timestamp};
use crate::grants::Redemption;
use crate::protocol::authorization_response::FurtherParams;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::pkce::CodeVerifier;
use crate::protocol::secret::Secret;
use crate::supervision::{ActorKind, ChildSpec, ExitGuard, Observation, Observe, RestartPolicy, Supervised};

/// Where a flow stands.
enum Stage {
    /// The person is at the authorization server.
    Waiting(Box<FlowRecord>),
    /// As [`Stage::Waiting`], after a panic: the record is read again when the answer comes.
    Restarted,
    /// A response was accepted; any other is refused.
    Redeeming,
    /// Nothing can happen any more.
    Ended,
}

impl Stage {
    fn word(&self) -> &'static str {
        match self {
            Self::Waiting(_) | Self::Restarted => "waiting",
            Self::Redeeming => "redeeming",
            Self::Ended => "ended",
        }
    }
}

/// What a flow works with.
#[derive(Clone)]
pub(super) struct FlowParts {
    pub(super) providers: Providers,
    pub(super) store: Arc<dyn FlowStore>,
    pub(super) clock: Arc<dyn Clock>,
}

/// One pending authorization.
pub struct FlowActor {
    parts: FlowParts,
    state: StateHash,
    connection: ConnectionId,
    expires_at: Timestamp,
    stage: Stage,
    last_error: Option<String>,
    _guard: ExitGuard,
}

impl fmt::Debug for FlowActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowActor({:?} {} {})", self.state, self.connection, self.stage.word())
    }
}

type Completion = LocalBoxActorFuture<FlowActor, Result<FlowOutcome, FlowError>>;

/// What was taken out of the flow to be finished, once and for all.
struct Accepted {
    record: Box<FlowRecord>,
    result: Result<Secret, String>,
    further: FurtherParams,
}

impl FlowActor {
    /// How the flow of `record` is started. A restarted actor reads the record from the store.
    pub(super) fn spec(parts: FlowParts, record: FlowRecord, arbiter: ArbiterHandle) -> ChildSpec<Self> {
        let (state, connection, expires_at) = (record.state, record.connection.clone(), record.expires_at);
        let first = Mutex::new(Some(Box::new(record)));
        ChildSpec {
            id: state.short(),
            policy: RestartPolicy::transient(),
            arbiter,
            factory: Box::new(move |guard| Self {
                parts: parts.clone(),
                state,
                connection: connection.clone(),
                expires_at,
                stage: first.lock().take().map_or(Stage::Restarted, Stage::Waiting),
                last_error: None,
                _guard: guard,
            }),
        }
    }

    fn invalid(&self, why: &'static str) -> FlowError {
        FlowError::Invalid { why, connection: Some(self.connection.clone()) }
    }

    fn complete(&mut self, message: CompleteAuthorization) -> Completion {
        match &self.stage {
            Stage::Waiting(record) => {
                let CompleteAuthorization { response, browser } = message;
                let now = self.parts.clock.now();
                let checked = check::belongs(record, response.iss.as_deref(), browser.as_ref(), now);
                match checked {
                    Err(why) => self.refuse(why),
                    Ok(()) => self.take(response.result, response.further),
                }
            }
            Stage::Restarted => {
                let reading = self.parts.store.load(self.state);
                Box::pin(wrap_future::<_, Self>(reading).then(|read, this, ctx| {
                    match read {
                        Err(error) => return done(Err(error.into())),
                        Ok(None) => this.end(ctx),
                        Ok(Some(record)) if matches!(this.stage, Stage::Restarted) => {
                            this.stage = Stage::Waiting(Box::new(record));
                        }
                        // Another answer was faster.
                        Ok(Some(_)) => {}
                    }
                    this.complete(message)
                }))
            }
            Stage::Redeeming | Stage::Ended => self.refuse("the flow was used before"),
        }
    }

    fn refuse(&mut self, why: &'static str) -> Completion {
        self.last_error = Some(why.to_owned());
        done(Err(self.invalid(why)))
    }

    /// Uses the flow up, here and in the store, before anything is done with the answer.
    fn take(&mut self, result: Result<Secret, String>, further: FurtherParams) -> Completion {
        let Stage::Waiting(record) = std::mem::replace(&mut self.stage, Stage::Redeeming) else {
            return self.refuse("the flow was used before");
        };
        let taking = self.parts.store.take(self.state);
        Box::pin(wrap_future::<_, Self>(taking).then(move |taken, this, ctx| match taken {
            Ok(true) => this.finish(Accepted { record, result, further }),
            Ok(false) => {
                this.end(ctx);
                this.refuse("the flow was used before, elsewhere")
            }
            Err(error) => {
                // Perhaps it was taken nevertheless; then the next answer will find that out.
                this.stage = Stage::Waiting(record);
                this.last_error = Some(error.to_string());
                done(Err(error.into()))
            }
        }))
    }

    fn finish(&mut self, Accepted { record, result, further }: Accepted) -> Completion {
        let FlowRecord { connection, return_to, code_verifier, nonce, redirect_uri, scopes, .. } = *record;
        let (begun_at, dpop_key) = (record.created_at, record.dpop_key);
        let provider = self.parts.providers.get(&connection.profile);
        let finishing = async move {
            let Some(provider) = provider else {
                let why = "the flow's profile is no longer configured";
                return Err(FlowError::Invalid { why, connection: Some(connection) });
            };
            let kept = further.only(&provider.registration().provider.quirks.callback_params);
            let code = match result {
                Ok(code) => code,
                Err(code) => return Err(FlowError::Refused { connection, code, return_to }),
            };
            let Ok(redirect_uri) = Url::parse(&redirect_uri).map(Some) else {
                let why = "the stored redirection endpoint is no URL";
                return Err(FlowError::Invalid { why, connection: Some(connection) });
            };
            let code_verifier = code_verifier.map(CodeVerifier::from_secret);
            let redemption =
                Redemption { code, code_verifier, redirect_uri, dpop_key, scopes, begun_at, kept };
            match provider.redeem(connection.subject.clone(), redemption, nonce).await {
                Ok(()) => Ok(FlowOutcome { connection, return_to }),
                Err(source) => Err(FlowError::Token { connection, source, return_to }),
            }
        };
        Box::pin(wrap_future::<_, Self>(finishing).map(|outcome, this, ctx| {
            this.end(ctx);
            outcome
        }))
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        self.stage = Stage::Ended;
        // In a turn of its own, after the answer has been given.
        ctx.notify(Stop);
    }

    /// Ends a flow whose person never came back.
    fn expire(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.stage, Stage::Redeeming | Stage::Ended) {
            return;
        }
        self.stage = Stage::Ended;
        tracing::info!(flow = ?self.state, connection = %self.connection, "authorization expired");
        let removing = self.parts.store.take(self.state);
        ctx.spawn(wrap_future(removing).map(|removed, this: &mut Self, ctx| {
            if let Err(error) = removed {
                tracing::warn!(flow = ?this.state, %error, "expired flow is left to the next purge");
            }
            ctx.stop();
        }));
    }
}

fn done(outcome: Result<FlowOutcome, FlowError>) -> Completion {
    Box::pin(fut::ready(outcome))
}

impl Actor for FlowActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let left = self.expires_at.since(self.parts.clock.now());
        ctx.run_later(left, Self::expire);
    }
}

impl Supervised for FlowActor {
    const KIND: ActorKind = ActorKind::Flow;
}

impl Handler<CompleteAuthorization> for FlowActor {
    type Result = ResponseActFuture<Self, Result<FlowOutcome, FlowError>>;

    fn handle(&mut self, message: CompleteAuthorization, _: &mut Self::Context) -> Self::Result {
        self.complete(message)
    }
}

/// Ends the actor after the messages before it.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for FlowActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Observe> for FlowActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let expires_in = self.expires_at.since(self.parts.clock.now());
        MessageResult(Observation {
            state: self.stage.word().to_owned(),
            last_error: self.last_error.clone(),
            detail: json!({
                "profile": self.connection.profile,
                "subject": self.connection.subject,
                "expires_in_s": expires_in.as_secs(),
            }),
        })
    }
}
