//! One-for-one supervision from factories.

use actix::{Actor, Context, Handler};
use actix_rt::ArbiterHandle;

use super::actor_ref::ActorRef;
use super::exit_guard::ExitGuard;
use super::observe::{ActorKind, ActorReport, Observe};
use super::restart_policy::RestartPolicy;

/// An actor that can be supervised: it holds its [`ExitGuard`] and can be observed.
pub trait Supervised: Actor<Context = Context<Self>> + Handler<Observe> {
    /// Its kind.
    const KIND: ActorKind;
}

/// How a child is made, and made again.
pub struct ChildSpec<A: Supervised> {
    /// Which of its kind.
    pub id: String,
    /// When it is started again.
    pub policy: RestartPolicy,
    /// The thread it lives on.
    pub arbiter: ArbiterHandle,
    /// Makes a new actor, with no state of the one before. Runs on `arbiter`.
    pub factory: Box<dyn Fn(ExitGuard) -> A + Send + Sync>,
}

/// The supervising actor. Lives on the engine's thread.
#[derive(Debug)]
pub struct Supervisor {}

/// A handle on the [`Supervisor`], usable from any thread.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {}

impl SupervisorHandle {
    /// Starts a supervised actor; asks sent before it is up wait for it.
    pub fn start_child<A: Supervised>(&self, spec: ChildSpec<A>) -> ActorRef<A> {
        let _ = spec;
        todo!()
    }

    /// Ends a child for good, cleanly.
    pub fn stop_child<A: Supervised>(&self, child: &ActorRef<A>) {
        let _ = child;
        todo!()
    }

    /// Observes every child at the same time, each within a short deadline.
    pub async fn inspect(&self) -> Vec<ActorReport> {
        todo!()
    }
}
