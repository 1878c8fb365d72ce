//! Faults made on purpose, for tests only.

use super::link::Order;
use super::observe::ActorKind;
use super::supervisor::SupervisorHandle;

impl SupervisorHandle {
    /// Makes the actor of this kind and id panic in its next turn, in its own context and thus
    /// among its messages. `false` if no such actor runs at the moment.
    pub async fn inject_panic(&self, kind: ActorKind, id: &str) -> bool {
        let children = self.children().await;
        let running = children
            .iter()
            .filter(|child| child.vitals().kind == kind && child.vitals().id == id)
            .find_map(|child| child.generation().map(|generation| (child, generation)));
        running.map(|(child, generation)| child.order(Order::Panic { generation })).is_some()
    }
}

#[expect(clippy::panic, reason = "to panic is its purpose")]
pub(super) fn panic_on_purpose() {
    panic!("injected by a test");
}
