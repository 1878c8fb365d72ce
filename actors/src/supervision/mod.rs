//! Real supervision of actix actors; knows nothing of OAuth.
//!
//! A panic in a handler drops the actor while unwinding, and actix's own `Supervisor` dies with
//! it. So every supervised actor holds an [`ExitGuard`]; its `Drop` tells the [`Supervisor`], which
//! builds a new actor from its factory and swaps the new address into the [`ActorRef`] that
//! everybody holds. Reading order: `actor_ref`, `link`, `exit_guard`, `restart_policy`,
//! `supervisor`, `child`, `observe`, `vitals`.

pub mod actor_ref;
mod child;
pub mod exit_guard;
#[cfg(any(test, feature = "testing"))]
mod fault;
mod link;
pub mod observe;
pub mod restart_policy;
pub mod supervisor;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
mod vitals;

pub use actor_ref::{ActorRef, AskError};
pub use exit_guard::{ExitGuard, ExitReason};
pub use observe::{ActorKind, ActorReport, Observation, Observe};
pub use restart_policy::{RestartDecision, RestartPolicy};
pub use supervisor::{ChildSpec, Supervised, Supervisor, SupervisorHandle};
