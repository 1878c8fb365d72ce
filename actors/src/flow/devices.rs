//! The registrar's side of authorizations on other devices: starts, finds, caps and revives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{self, ActorFutureExt, wrap_future};
use actix::{AsyncContext, Context, Handler, ResponseActFuture};
use parking_lot::Mutex;

use super::device::DeviceActor;
use super::error::FlowError;
use super::messages::{BeginDeviceAuthorization, DeviceView, FindDevice, ReadDevice};
use super::ports::AuthorizationProvider;
use super::record::{FlowRecord, PendingDevice, StateHash};
use super::registrar::{FlowRegistrar, FlowServices};
use super::request::{own_params, scopes};
use crate::clock::Timestamp;
use crate::protocol::dpop::DpopKey;
use crate::protocol::identifiers::ConnectionId;
use crate::supervision::{ActorRef, AskError};

/// Pending ones of one connection; its oldest ends when there are more.
const PER_CONNECTION: usize = 5;
/// How long a page waits for its flow.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// When what could not be read from the store is tried again.
const REVIVE_AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Device {
    actor: ActorRef<DeviceActor>,
    connection: ConnectionId,
    begun_at: Timestamp,
}

/// The pending ones of this process. They outlive a crash of the registrar: a second actor for one
/// of them would ask the provider twice as often as allowed.
#[derive(Clone, Debug, Default)]
pub(super) struct Devices(Arc<Mutex<BTreeMap<StateHash, Device>>>);

impl Devices {
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn forget_ended(&self) {
        self.0.lock().retain(|_, device| !device.actor.has_ended());
    }

    fn find(&self, page: StateHash) -> Option<ActorRef<DeviceActor>> {
        self.0.lock().get(&page).map(|device| device.actor.clone()).filter(|actor| !actor.has_ended())
    }

    /// Those of `connection` that are too many, the oldest first.
    fn surplus(&self, connection: &ConnectionId) -> Vec<(StateHash, ActorRef<DeviceActor>)> {
        let mut devices = self.0.lock();
        let mut theirs: Vec<_> =
            devices.iter().filter(|(_, device)| device.connection == *connection).collect();
        theirs.sort_by_key(|(_, device)| device.begun_at);
        let surplus = theirs.len().saturating_sub(PER_CONNECTION);
        let gone: Vec<_> = theirs.into_iter().take(surplus).map(|(page, _)| *page).collect();
        gone.into_iter().filter_map(|page| Some((page, devices.remove(&page)?.actor))).collect()
    }
}

impl FlowRegistrar {
    /// Goes on with what an earlier process began.
    pub(super) fn revive_devices(&mut self, ctx: &mut Context<Self>) {
        let loading = self.services.store.load_all(self.services.limits.pending);
        ctx.spawn(wrap_future(loading).map(|loaded, this: &mut Self, ctx| match loaded {
            Ok(records) => records.into_iter().for_each(|record| this.revive(record)),
            Err(error) => {
                this.last_error = Some(error.to_string());
                ctx.run_later(REVIVE_AGAIN, Self::revive_devices);
            }
        }));
    }

    fn revive(&self, record: FlowRecord) {
        let Some(device) = record.device.clone() else { return };
        let live = self.services.clock.now() < record.expires_at;
        let provider = self.services.providers.get(&record.connection.profile);
        if provider.is_some_and(|provider| live && provider.uses_device())
            && self.devices.find(record.state).is_none()
        {
            self.start_device(record, device);
        }
    }

    fn start_device(&self, record: FlowRecord, device: PendingDevice) -> ActorRef<DeviceActor> {
        let services = &self.services;
        let (page, connection, begun_at) = (record.state, record.connection.clone(), record.created_at);
        let spec = DeviceActor::spec(services.parts(), record, device, services.arbiter.clone());
        let actor = services.supervisor.start_child(spec);
        self.devices.0.lock().insert(page, Device { actor: actor.clone(), connection, begun_at });
        actor
    }

    fn cap_connection(&self, connection: &ConnectionId, ctx: &mut Context<Self>) {
        for (page, actor) in self.devices.surplus(connection) {
            self.services.supervisor.stop_child(&actor);
            let removing = self.services.store.take(page);
            // One that stays behind ends by itself.
            ctx.spawn(wrap_future(removing).map(|_, _: &mut Self, _| ()));
        }
    }
}

/// Asks the provider for the codes and makes the flow's record, which is not saved yet.
async fn new_device(
    begin: BeginDeviceAuthorization,
    provider: &dyn AuthorizationProvider,
    services: &FlowServices,
) -> Result<(FlowRecord, PendingDevice), FlowError> {
    let BeginDeviceAuthorization { page, connection, return_to, call } = begin;
    let registration = provider.registration();
    let quirks = &registration.provider.quirks;
    let scopes = scopes(provider, &connection, &call.scopes).await?;
    let mut params = vec![(quirks.parameter("scope").to_owned(), quirks.scope_text(&scopes))];
    let own = own_params(&connection, provider, &call)?;
    params.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    let taken: Vec<_> = params.iter().map(|(name, _)| name.clone()).collect();
    let extra = registration.authorize_params_for(&connection.subject).into_iter();
    params.extend(extra.filter(|(name, _)| !taken.contains(name)));
    let codes = provider.authorize_device(params).await.map_err(FlowError::Provider)?;
    let created_at = services.clock.now();
    let device = PendingDevice {
        device_code: codes.device_code,
        user_code: codes.user_code,
        verification_uri: codes.verification_uri.to_string(),
        verification_uri_complete: codes.verification_uri_complete.map(String::from),
        interval: codes.interval.as_secs(),
    };
    let state = StateHash::of(page.expose());
    let record = FlowRecord {
        state,
        connection,
        code_verifier: None,
        nonce: None,
        scopes,
        issuer: None,
        iss_required: false,
        redirect_uri: String::new(),
        // No browser comes back: its page is found by its own secret address.
        browser: state,
        return_to,
        device: Some(device.clone()),
        dpop_key: registration.dpop.and_then(|algorithm| DpopKey::generate(algorithm).ok()),
        created_at,
        expires_at: created_at.after(codes.expires_in),
    };
    Ok((record, device))
}

impl Handler<BeginDeviceAuthorization> for FlowRegistrar {
    type Result = ResponseActFuture<Self, Result<DeviceView, FlowError>>;

    fn handle(&mut self, begin: BeginDeviceAuthorization, _: &mut Self::Context) -> Self::Result {
        let profile = &begin.connection.profile;
        let provider = match self.provider(profile) {
            Ok(provider) if provider.uses_device() => provider,
            Ok(_) => return Box::pin(fut::ready(Err(FlowError::OtherConsent(profile.to_string())))),
            Err(error) => return Box::pin(fut::ready(Err(error))),
        };
        if let Err(error) = self.reserve() {
            return Box::pin(fut::ready(Err(error)));
        }
        let services = self.services.clone();
        let beginning = async move {
            let (record, device) = new_device(begin, &*provider, &services).await?;
            services.store.save(record.clone()).await?;
            Ok::<_, FlowError>((record, device))
        };
        let begun = wrap_future::<_, Self>(beginning).map(|begun, this, ctx| {
            this.beginning -= 1;
            let (record, device) = begun?;
            let connection = record.connection.clone();
            let actor = this.start_device(record, device);
            this.cap_connection(&connection, ctx);
            Ok(actor)
        });
        Box::pin(begun.then(|begun: Result<ActorRef<DeviceActor>, FlowError>, _, _| {
            wrap_future(async move { Ok(begun?.ask_idempotent(ReadDevice, READ_DEADLINE).await?) })
        }))
    }
}

impl Handler<FindDevice> for FlowRegistrar {
    type Result = ResponseActFuture<Self, Result<Option<DeviceView>, FlowError>>;

    fn handle(&mut self, FindDevice { page }: FindDevice, _: &mut Self::Context) -> Self::Result {
        let page = StateHash::of(page.expose());
        let (known, store) = (self.devices.find(page).is_some(), self.services.store.clone());
        // What an earlier process began, or another replica, may not be revived here yet.
        let stored = async move { if known { Ok(None) } else { store.load(page).await } };
        Box::pin(wrap_future::<_, Self>(stored).then(move |stored, this, _| {
            let found = stored.map(|record| {
                if let Some(record) = record {
                    this.revive(record);
                }
                this.devices.find(page)
            });
            wrap_future(async move {
                let Some(actor) = found? else { return Ok(None) };
                match actor.ask_idempotent(ReadDevice, READ_DEADLINE).await {
                    Ok(view) => Ok(Some(view)),
                    Err(AskError::Stopped) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })
        }))
    }
}
