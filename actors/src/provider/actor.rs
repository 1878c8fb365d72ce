//! The actor of one profile: it decides who works on a connection; the work itself runs in
//! detached tasks, so that its mailbox is always free and its crash stops no exchange.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{
    Actor, AsyncContext as _, Context, Handler, Message, MessageResult, ResponseFuture, SpawnHandle,
};

use super::authorization;
use super::capabilities;
use super::consent::{self, Revoked};
use super::context::CurrentContext;
use super::device;
use super::error::TokenError;
use super::exchange;
use super::flights::{Entry, Outcome};
use super::introspection;
use super::managed_keys;
use super::messages::{
    AuthorizationTarget, AuthorizeDevice, DevicePoll, GetAccessToken, GetConnection, GetUserInfo,
    ImportConnection, IntrospectConnection, PollDevice, PrepareAuthorization, RedeemAuthorizationCode,
    RefreshAhead, RefreshNow, RekeyConnection, Rekeyed, RevocationCounts, RevokeAll, RevokeConnection,
    UserInfo,
};
use super::rekey;
use super::revoke_all;
use super::scopes;
use super::userinfo;
use super::want::{Want, settled_error};
use crate::connection::Connection;
use crate::protocol::device_authorization::DeviceAuthorization;
use crate::protocol::identifiers::Subject;
use crate::protocol::introspection::IntrospectionResponse;
use crate::store::StoreError;
use crate::supervision::{ActorKind, ExitGuard, Observation, Observe, Supervised};

/// Messages that may wait.
const MAILBOX: usize = 4096;

/// Flights that a call joins before it gives up.
const JOINS: u32 = 4;

/// One per profile: obtains, refreshes and revokes.
#[derive(Debug)]
pub struct ProviderActor {
    current: CurrentContext,
    keeping_keys: Option<SpawnHandle>,
    _guard: ExitGuard,
}

impl ProviderActor {
    /// A new actor over what outlives it.
    pub fn new(current: CurrentContext, guard: ExitGuard) -> Self {
        Self { current, keeping_keys: None, _guard: guard }
    }

    fn keep_keys(&mut self, ctx: &mut Context<Self>) {
        if let Some(keeping) = self.keeping_keys.take() {
            ctx.cancel_future(keeping);
        }
        self.keeping_keys = managed_keys::interval(&self.current.get()).map(|interval| {
            ctx.run_interval(interval, |this, _| {
                actix::spawn(managed_keys::keep(this.current.get()));
            })
        });
    }
}

impl Actor for ProviderActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.keep_keys(ctx);
    }
}

impl Supervised for ProviderActor {
    const KIND: ActorKind = ActorKind::Provider;
}

/// The profile has another configuration.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Reconfigured;

impl Handler<Reconfigured> for ProviderActor {
    type Result = ();

    fn handle(&mut self, _: Reconfigured, ctx: &mut Self::Context) {
        self.keep_keys(ctx);
    }
}

impl Handler<GetAccessToken> for ProviderActor {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, message: GetAccessToken, _: &mut Self::Context) -> Self::Result {
        let GetAccessToken { subject, origin, rejected, call } = message;
        let (current, context) = (self.current.clone(), self.current.get());
        Box::pin(async move {
            let outcome = join(&current, subject, Want::Usable { origin, rejected, call }).await;
            if let Err(TokenError::AuthorizationRequired { .. }) = &outcome {
                capabilities::check_before_consent(&context).await?;
            }
            outcome
        })
    }
}

impl Handler<RefreshAhead> for ProviderActor {
    type Result = ();

    fn handle(&mut self, message: RefreshAhead, _: &mut Self::Context) {
        let current = self.current.clone();
        let RefreshAhead { subject, call } = message;
        // What comes of it is published; nobody waits for it.
        actix::spawn(async move { drop(join(&current, subject, Want::Ahead { call }).await) });
    }
}

impl Handler<RefreshNow> for ProviderActor {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, message: RefreshNow, _: &mut Self::Context) -> Self::Result {
        let (current, context) = (self.current.clone(), self.current.get());
        Box::pin(async move {
            let before = consent::read(&context, &message.subject).await?;
            let fingerprint = before.and_then(|connection| connection.fingerprint());
            join(&current, message.subject, Want::Other(fingerprint)).await
        })
    }
}

impl Handler<RedeemAuthorizationCode> for ProviderActor {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, message: RedeemAuthorizationCode, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move {
            consent::redeem(&context, &message.subject, &message.redemption, message.nonce.as_ref()).await
        })
    }
}

impl Handler<PrepareAuthorization> for ProviderActor {
    type Result = ResponseFuture<Result<AuthorizationTarget, TokenError>>;

    fn handle(&mut self, message: PrepareAuthorization, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { authorization::prepare(&context, &message.params).await })
    }
}

impl Handler<AuthorizeDevice> for ProviderActor {
    type Result = ResponseFuture<Result<DeviceAuthorization, TokenError>>;

    fn handle(&mut self, message: AuthorizeDevice, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { device::authorize(&context, &message.params).await })
    }
}

impl Handler<PollDevice> for ProviderActor {
    type Result = ResponseFuture<Result<DevicePoll, TokenError>>;

    fn handle(&mut self, message: PollDevice, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { device::poll(&context, &message.subject, &message.redemption).await })
    }
}

impl Handler<GetConnection> for ProviderActor {
    type Result = ResponseFuture<Result<Option<Arc<Connection>>, TokenError>>;

    fn handle(&mut self, message: GetConnection, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { consent::read(&context, &message.subject).await })
    }
}

impl Handler<RevokeConnection> for ProviderActor {
    type Result = ResponseFuture<Result<bool, TokenError>>;

    fn handle(&mut self, message: RevokeConnection, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move {
            consent::revoke(&context, &message.subject, None).await.map(|revoked| revoked != Revoked::Absent)
        })
    }
}

impl Handler<RevokeAll> for ProviderActor {
    type Result = ResponseFuture<Result<RevocationCounts, StoreError>>;

    fn handle(&mut self, _: RevokeAll, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { revoke_all::run(&context).await })
    }
}

impl Handler<IntrospectConnection> for ProviderActor {
    type Result = ResponseFuture<Result<Option<IntrospectionResponse>, TokenError>>;

    fn handle(&mut self, message: IntrospectConnection, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { introspection::introspect(&context, &message.subject).await })
    }
}

impl Handler<ImportConnection> for ProviderActor {
    type Result = ResponseFuture<Outcome>;

    fn handle(&mut self, message: ImportConnection, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move { consent::import(&context, &message.subject, message.tokens).await })
    }
}

impl Handler<GetUserInfo> for ProviderActor {
    type Result = ResponseFuture<Result<UserInfo, TokenError>>;

    fn handle(&mut self, message: GetUserInfo, _: &mut Self::Context) -> Self::Result {
        Box::pin(userinfo::fetch(self.current.clone(), message.subject))
    }
}

impl Handler<RekeyConnection> for ProviderActor {
    type Result = ResponseFuture<Result<Rekeyed, TokenError>>;

    fn handle(&mut self, message: RekeyConnection, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        Box::pin(async move {
            let RekeyConnection { subject, to, replace } = message;
            rekey::rekey(&context, &subject, &to, replace).await
        })
    }
}

impl Handler<Observe> for ProviderActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let context = self.current.get();
        let open_until = context.breaker.open_until(context.clock.now());
        let state = match (open_until, context.flights.is_empty()) {
            (Some(_), _) => "holding_back",
            (None, false) => "working",
            (None, true) => "idle",
        };
        let counters = &context.counters;
        MessageResult(Observation {
            state: state.to_owned(),
            last_error: context.last_error(),
            detail: serde_json::json!({
                "provider": context.profile.registration.provider.name,
                "grant": context.profile.grant_name,
                "client_auth": context.profile.client_auth_name,
                "flights": context.flights.len(),
                "breaker_open_until": open_until.map(|until| until.to_string()),
                "token_requests": counters.token_requests.load(Ordering::Relaxed),
                "token_requests_granted": counters.granted.load(Ordering::Relaxed),
                "token_request_failures": counters.failures.load(Ordering::Relaxed),
                "single_flight_joins": counters.joins.load(Ordering::Relaxed),
                "needing_attention": context.attention(),
            }),
        })
    }
}

/// Gets what is wanted: from the snapshot, from the flight that is under way, or from a new one.
/// Looks with the configuration of the moment each time.
pub(super) async fn join(current: &CurrentContext, subject: Subject, want: Want) -> Outcome {
    let mut joins = 0;
    while joins < JOINS {
        let context = current.get();
        let id = context.id(&subject);
        let now = context.now();
        if let Some(connection) = context.connections.get(&id) {
            if want.is_met(&connection, now) {
                return Ok(connection);
            }
            if let Some(error) = settled_error(&context, &connection, &want, now) {
                return Err(error);
            }
        }
        let aborted = context.aborted(&subject);
        let outcome =
            match context.flights.enter(&subject, aborted.clone()) {
                Entry::Started(flight) => {
                    let waiter = flight.waiter();
                    actix::spawn(exchange::run(context.clone(), subject.clone(), want.clone(), flight));
                    // A flight of our own has done what can be done.
                    let connection = waiter.outcome(aborted.clone()).await?;
                    let now = context.now();
                    return match want.is_met_by_work(&connection, now) {
                        true => Ok(connection),
                        false => Err(scopes::settled(&context, Some(&connection), &subject, &want, now)
                            .unwrap_or(aborted)),
                    };
                }
                Entry::Running(waiter) if waiter.is_of_today() => {
                    context.count(&context.counters.joins);
                    waiter.outcome(aborted).await
                }
                // With an earlier configuration: what came of it is looked at with today's.
                Entry::Running(waiter) => {
                    drop(waiter.outcome(aborted.clone()).await);
                    Err(aborted)
                }
            };
        match outcome {
            Ok(connection) if want.is_met(&connection, context.now()) => return Ok(connection),
            // It was about something else, such as an earlier token, or was cut off; see what is
            // there now.
            Ok(_) | Err(TokenError::Aborted { .. }) => joins += 1,
            // It was for somebody else who brought too little along, and will not come again.
            Err(TokenError::CallIncomplete { .. }) => {}
            Err(error) => {
                let published = context.connections.get(&id);
                return published.filter(|connection| want.is_met(connection, context.now())).ok_or(error);
            }
        }
    }
    Err(current.get().aborted(&subject))
}
