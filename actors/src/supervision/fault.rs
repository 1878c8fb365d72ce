//! Faults made on purpose, for tests only.

use super::link::Order;
use super::observe::ActorKind;
use super::supervisor::SupervisorHandle;
use super::vitals::Vitals;

impl SupervisorHandle {
    /// Makes the actor of this kind and id panic in its next turn, in a future of its own context:
    /// actix unwinds it just as from a handler. `false` if no such actor runs at the moment.
    pub async fn inject_panic(&self, kind: ActorKind, id: &str) -> bool {
        let children = self.children().await;
        let named = |vitals: &Vitals| vitals.kind == kind && vitals.id == id;
        let running = children.iter().find(|child| named(child.vitals()) && child.is_up());
        running.map(|child| child.order(Order::Panic)).is_some()
    }
}

#[expect(clippy::panic, reason = "to panic is its purpose")]
pub(super) fn panic_on_purpose() {
    panic!("injected by a test");
}
