//! What an [`ActorRef`](super::ActorRef) and its supervisor share: the current address.

use actix::{Actor, Addr};
use tokio::sync::watch;

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
    address: watch::Sender<Address<A>>,
    orders: watch::Sender<Order>,
    vitals: Vitals,
    /// `None` if nobody supervises the actor.
    key: Option<ChildKey>,
}

impl<A: Actor> Link<A> {
    pub(super) fn new(vitals: Vitals, key: ChildKey) -> Self {
        let address = watch::Sender::new(Address::Pending { after: 0 });
        Self { address, orders: watch::Sender::new(Order::Run), vitals, key: Some(key) }
    }

    pub(super) fn unsupervised(vitals: Vitals, addr: Addr<A>) -> Self {
        let address = watch::Sender::new(Address::Up { generation: 1, addr });
        Self { address, orders: watch::Sender::new(Order::Run), vitals, key: None }
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
        let mut old = None;
        self.address.send_if_modified(|address| {
            old = with(address).map(|new| std::mem::replace(address, new));
            old.is_some()
        });
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.address.borrow(), Address::Up { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        match &*self.address.borrow() {
            Address::Ended => true,
            Address::Up { addr, .. } => self.key.is_none() && !addr.connected(),
            Address::Pending { .. } => false,
        }
    }

    /// Follows changes of the address from now on.
    pub(super) fn changes(&self) -> watch::Receiver<impl Sized + use<A>> {
        self.address.subscribe()
    }

    /// Passes `message` to `send` with the current address, if an actor is up. The address is lent, not cloned: a clone allocates, and would keep messages alive that
    /// reached a mailbox just as it closed.
    pub(super) fn with_address<M, T>(
        &self,
        message: M,
        send: impl FnOnce(&Addr<A>, u64, M) -> T,
    ) -> Attempt<T, M> {
        match &*self.address.borrow() {
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
        let mut changes = self.address.subscribe();
        let is_current =
            |address: &Address<A>| matches!(address, Address::Up { generation: g, .. } if *g == generation);
        // An error means that the link is gone, hence the actor too.
        let _ = changes.wait_for(|address| !is_current(address)).await;
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
