//! What an [`ActorRef`](super::ActorRef) and its supervisor share: the current address.

use std::pin::pin;

use actix::{Actor, Addr};
use parking_lot::RwLock;
use tokio::sync::{Notify, futures::Notified, watch};

use super::supervisor::ChildKey;
use super::vitals::Vitals;

/// Where messages go at the moment.
enum Address<A: Actor> {
    /// Nowhere yet: an actor newer than generation `after` is being started.
    Pending { after: u64 },
    /// To this actor.
    Up { generation: u64, addr: Addr<A> },
    /// Nowhere ever again.
    Ended,
}

/// What the supervisor wants of the running actor; read by a future in the actor's own context,
/// since only from there can an actor be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing.
    Run,
    /// End cleanly.
    Stop,
    /// Panic, once.
    #[cfg(any(test, feature = "testing"))]
    Panic,
}

/// The outcome of an attempt to reach the actor; gives the message back if it was not sent.
pub(super) enum Attempt<T, M> {
    Made(T),
    NotUp(M),
    Ended,
}

/// The replaceable address and what is counted beside it.
pub(super) struct Link<A: Actor> {
    address: RwLock<Address<A>>,
    /// Wakes in the order of asking, so that a schedule can be replayed.
    moved: Notify,
    orders: watch::Sender<Order>,
    vitals: Vitals,
    /// `None` if nobody supervises the actor.
    key: Option<ChildKey>,
}

impl<A: Actor> Link<A> {
    pub(super) fn new(vitals: Vitals, key: ChildKey) -> Self {
        let address = RwLock::new(Address::Pending { after: 0 });
        Self { address, moved: Notify::new(), orders: watch::Sender::new(Order::Run), vitals, key: Some(key) }
    }

    pub(super) fn unsupervised(vitals: Vitals, addr: Addr<A>) -> Self {
        let address = RwLock::new(Address::Up { generation: 1, addr });
        Self { address, moved: Notify::new(), orders: watch::Sender::new(Order::Run), vitals, key: None }
    }

    pub(super) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    pub(super) fn key(&self) -> Option<ChildKey> {
        self.key
    }

    /// Publishes a new actor's address, unless that actor is gone already.
    pub(super) fn up(&self, generation: u64, addr: Addr<A>) {
        self.replace(|address| match address {
            Address::Pending { after } if *after < generation => Some(Address::Up { generation, addr }),
            _ => None,
        });
    }

    /// The actor of `generation` is gone; whoever asks now waits for the next.
    pub(super) fn down(&self, generation: u64) {
        self.replace(|address| match address {
            Address::Up { generation: current, .. } if *current > generation => None,
            Address::Pending { after } if *after > generation => None,
            Address::Up { .. } | Address::Pending { .. } => Some(Address::Pending { after: generation }),
            Address::Ended => None,
        });
    }

    /// There will be no further actor.
    pub(super) fn end(&self) {
        self.replace(|_| Some(Address::Ended));
    }

    /// The old address is dropped outside the lock: with it may go messages whose own drop asks
    /// for this very link.
    fn replace(&self, with: impl FnOnce(&Address<A>) -> Option<Address<A>>) {
        let old = {
            let mut address = self.address.write();
            with(&address).map(|new| std::mem::replace(&mut *address, new))
        };
        if old.is_some() {
            self.moved.notify_waiters();
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.address.read(), Address::Up { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        match &*self.address.read() {
            Address::Ended => true,
            Address::Up { addr, .. } => self.key.is_none() && !addr.connected(),
            Address::Pending { .. } => false,
        }
    }

    /// Completes at the next change of the address, once it was enabled or polled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Passes `message` to `send` with the current address, if an actor is up. The address is lent, not cloned: a clone allocates, and would keep messages alive that
    /// reached a mailbox just as it closed.
    pub(super) fn with_address<M, T>(
        &self,
        message: M,
        send: impl FnOnce(&Addr<A>, u64, M) -> T,
    ) -> Attempt<T, M> {
        match &*self.address.read() {
            Address::Up { generation, addr } if addr.connected() => {
                Attempt::Made(send(addr, *generation, message))
            }
            Address::Up { .. } if self.key.is_none() => Attempt::Ended,
            Address::Ended => Attempt::Ended,
            Address::Up { .. } | Address::Pending { .. } => Attempt::NotUp(message),
        }
    }

    /// Returns once the actor of `generation` is no longer the current one.
    pub(super) async fn replaced(&self, generation: u64) {
        loop {
            let mut changed = pin!(self.changed());
            // Enabled before looking, so that no change is missed.
            changed.as_mut().enable();
            if !matches!(&*self.address.read(), Address::Up { generation: g, .. } if *g == generation) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Waits for an order to the running actor.
    pub(super) async fn next_order(&self) -> Order {
        let mut orders = self.orders.subscribe();
        let order = match orders.wait_for(|order| *order != Order::Run).await {
            Ok(order) => *order,
            Err(_) => Order::Stop,
        };
        #[cfg(any(test, feature = "testing"))]
        if order == Order::Panic {
            // The next actor shall live.
            self.order(Order::Run);
        }
        order
    }
}
