//! The profiles that are served, each with its actor and what that works with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::ports::ProfilePort;
use crate::flow::ports::{AuthorizationProvider, Providers};
use crate::profile::Profile;
use crate::protocol::identifiers::ProfileId;
use crate::provider::actor::{ProviderActor, Reconfigured};
use crate::provider::context::{CurrentContext, ProviderContext, ProviderDeps};
use crate::provider::flights::FlightTable;
use crate::provider::managed_keys;
use crate::store::StoreError;
use crate::supervision::{ActorRef, ChildSpec, RestartPolicy, SupervisorHandle};

/// A profile that is gone answers calls for so long yet: they found their route before it went.
const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// How often it is asked whether the last of them is done.
const LEAVE_POLL: Duration = Duration::from_millis(250);

/// One profile that is served.
#[derive(Clone)]
pub(super) struct RunningProfile {
    pub(super) current: CurrentContext,
    pub(super) actor: ActorRef<ProviderActor>,
}

impl RunningProfile {
    pub(super) fn profile(&self) -> Arc<Profile> {
        self.current.get().profile.clone()
    }

    fn port(&self) -> Arc<dyn AuthorizationProvider> {
        Arc::new(ProfilePort { profile: self.profile(), actor: self.actor.clone() })
    }
}

type ByName = BTreeMap<ProfileId, RunningProfile>;

/// All of them, and what starts another.
pub(super) struct RunningProfiles {
    served: ArcSwap<ByName>,
    /// Gone from the configuration, and not idle yet.
    leaving: Mutex<ByName>,
    /// The flights of every profile that there ever was: one that comes back must not overtake its own.
    flights: Mutex<BTreeMap<ProfileId, FlightTable>>,
    for_flows: Providers,
    deps: ProviderDeps,
    supervisor: SupervisorHandle,
    arbiter: ArbiterHandle,
}

impl fmt::Debug for RunningProfiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.all().keys()).finish()
    }
}

/// What is about to be served, made from a configuration and not in use yet.
pub(super) struct NextProfiles(Vec<Next>);

enum Next {
    Unchanged(ProfileId),
    Changed(ProfileId, Arc<ProviderContext>),
    New(ProfileId, Arc<ProviderContext>),
}

/// What became of the profiles, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChanges {
    /// Made of something else than before.
    pub changed: Vec<ProfileId>,
    /// Not there before.
    pub added: Vec<ProfileId>,
    /// Not there any more.
    pub removed: Vec<ProfileId>,
}

impl RunningProfiles {
    /// Starts an actor for each profile.
    ///
    /// # Errors
    /// [`StoreError`], if managed signing keys cannot be had.
    pub(super) async fn start(
        profiles: Vec<Arc<Profile>>,
        deps: ProviderDeps,
        supervisor: SupervisorHandle,
        arbiter: ArbiterHandle,
    ) -> Result<Self, StoreError> {
        let this = Self {
            served: ArcSwap::default(),
            leaving: Mutex::default(),
            flights: Mutex::default(),
            for_flows: Providers::new(BTreeMap::new()),
            deps,
            supervisor,
            arbiter,
        };
        let next = this.prepare(profiles).await?;
        this.put_into_use(next);
        Ok(this)
    }

    pub(super) fn all(&self) -> Arc<ByName> {
        self.served.load_full()
    }

    pub(super) fn get(&self, id: &ProfileId) -> Option<RunningProfile> {
        self.served.load().get(id).cloned()
    }

    /// As [`RunningProfiles::get`], for a call that may have found its route a moment before the profile
    /// was gone.
    pub(super) fn get_or_leaving(&self, id: &ProfileId) -> Option<RunningProfile> {
        self.get(id).or_else(|| self.leaving.lock().get(id).cloned())
    }

    pub(super) fn for_flows(&self) -> Providers {
        self.for_flows.clone()
    }

    /// Whether any exchange is under way, with whatever configuration it began.
    pub(super) fn has_flights(&self) -> bool {
        self.flights.lock().values().any(|flights| !flights.is_empty())
    }

    /// Makes what is needed to serve `profiles`; nothing in use changes.
    ///
    /// # Errors
    /// [`StoreError`], if managed signing keys cannot be had.
    pub(super) async fn prepare(&self, profiles: Vec<Arc<Profile>>) -> Result<NextProfiles, StoreError> {
        let mut all = Vec::new();
        for profile in profiles {
            let id = profile.registration.profile.clone();
            let before = self.get(&id);
            if before.as_ref().is_some_and(|running| running.profile().is_same_as(&profile)) {
                all.push(Next::Unchanged(id));
                continue;
            }
            let earlier = self.flights.lock().get(&id).cloned();
            let context = match earlier {
                Some(flights) => ProviderContext::succeeding(profile, &self.deps, flights.succeeding()),
                None => ProviderContext::new(profile, &self.deps),
            };
            managed_keys::maintain(&context).await?;
            let context = Arc::new(context);
            all.push(if before.is_some() { Next::Changed(id, context) } else { Next::New(id, context) });
        }
        Ok(NextProfiles(all))
    }

    /// Serves `next` from now on, and nothing else: on the engine's thread, without a pause between
    /// the first and the last.
    pub(super) fn put_into_use(&self, NextProfiles(next): NextProfiles) -> ProfileChanges {
        let mut changes = ProfileChanges::default();
        let before = self.all();
        let mut served = ByName::new();
        for profile in next {
            let (id, running) = match profile {
                Next::Unchanged(id) => (id.clone(), before.get(&id).cloned()),
                Next::Changed(id, context) => {
                    changes.changed.push(id.clone());
                    (id.clone(), before.get(&id).map(|running| self.change(running, context)))
                }
                Next::New(id, context) => {
                    changes.added.push(id.clone());
                    (id.clone(), Some(self.add(&id, context)))
                }
            };
            served.extend(running.map(|running| (id, running)));
        }
        for (id, running) in before.iter().filter(|(id, _)| !served.contains_key(*id)) {
            changes.removed.push(id.clone());
            self.leaving.lock().insert(id.clone(), running.clone());
        }
        self.for_flows.replace(served.iter().map(|(id, running)| (id.clone(), running.port())).collect());
        self.served.store(Arc::new(served));
        changes
    }

    /// Ends what is left of the profiles that `changes` removed, once nobody needs it.
    pub(super) fn let_go(self: &Arc<Self>, changes: &ProfileChanges) {
        for id in &changes.removed {
            let leaving = self.leaving.lock().get(id).cloned();
            let Some(running) = leaving else { continue };
            running.current.get().retire();
            let (this, id) = (self.clone(), id.clone());
            actix::spawn(async move {
                tokio::time::sleep(LEAVE_AFTER).await;
                while !running.actor.is_idle() || !running.current.get().flights.is_empty() {
                    tokio::time::sleep(LEAVE_POLL).await;
                }
                {
                    let mut leaving = this.leaving.lock();
                    if leaving.get(&id).is_some_and(|left| left.actor == running.actor) {
                        leaving.remove(&id);
                    }
                }
                this.supervisor.stop_child(&running.actor);
            });
        }
    }

    fn change(&self, running: &RunningProfile, context: Arc<ProviderContext>) -> RunningProfile {
        let id = context.profile.registration.profile.clone();
        self.flights.lock().insert(id, context.flights.clone());
        running.current.replace(context);
        // One that is just being started anew sees it by itself.
        let _ = running.actor.tell(Reconfigured);
        running.clone()
    }

    fn add(&self, id: &ProfileId, context: Arc<ProviderContext>) -> RunningProfile {
        self.flights.lock().insert(id.clone(), context.flights.clone());
        let current = CurrentContext::new(context);
        let shared = current.clone();
        let actor = self.supervisor.start_child(ChildSpec {
            id: id.to_string(),
            policy: RestartPolicy::default(),
            arbiter: self.arbiter.clone(),
            factory: Box::new(move |guard| ProviderActor::new(shared.clone(), guard)),
        });
        RunningProfile { current, actor }
    }
}
