//! A child as its supervisor holds it: any actor, known only by what can be done with it.

use std::sync::Arc;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, Addr, AsyncContext, Context};
use actix_rt::ArbiterHandle;
use futures_util::future::{BoxFuture, FutureExt};

use super::exit_guard::ExitGuard;
use super::link::{Attempt, Link, Order};
use super::observe::{Observation, Observe};
use super::supervisor::{ChildExited, ChildKey, Supervised, Supervisor};
use super::vitals::Vitals;

/// What a supervisor does with a child, whatever its type.
pub(super) trait Child: Send + Sync {
    fn vitals(&self) -> &Vitals;

    /// Has a new actor made on its arbiter; `false` if the arbiter is gone.
    fn launch(&self, key: ChildKey, generation: u64, supervisor: Addr<Supervisor>) -> bool;

    fn order(&self, order: Order);

    /// Whether an actor is up at the moment.
    fn is_up(&self) -> bool;

    /// No further actor will be made; whoever still asks is told so.
    fn end(&self);

    /// The actor's own word; `None` if there is no actor at the moment.
    fn observe(&self) -> BoxFuture<'_, Option<Observation>>;
}

type Factory<A> = Arc<dyn Fn(ExitGuard) -> A + Send + Sync>;

pub(super) struct Managed<A: Supervised> {
    link: Arc<Link<A>>,
    arbiter: ArbiterHandle,
    factory: Factory<A>,
}

impl<A: Supervised> Managed<A> {
    pub(super) fn new(
        link: Arc<Link<A>>,
        arbiter: ArbiterHandle,
        factory: Box<dyn Fn(ExitGuard) -> A + Send + Sync>,
    ) -> Self {
        Self { link, arbiter, factory: Arc::from(factory) }
    }

    fn guard(&self, key: ChildKey, generation: u64, supervisor: Addr<Supervisor>) -> ExitGuard {
        let link = self.link.clone();
        ExitGuard::new(move |reason| {
            // First, so that an ask lost with the actor does not meet the dead address again.
            link.down(generation);
            #[expect(clippy::disallowed_methods, reason = "an exit must be told even to a full mailbox")]
            supervisor.do_send(ChildExited { key, generation, reason });
        })
    }
}

impl<A: Supervised> Child for Managed<A> {
    fn vitals(&self) -> &Vitals {
        self.link.vitals()
    }

    fn launch(&self, key: ChildKey, generation: u64, supervisor: Addr<Supervisor>) -> bool {
        let guard = self.guard(key, generation, supervisor);
        let (link, factory) = (self.link.clone(), self.factory.clone());
        self.arbiter.spawn_fn(move || {
            let actor = factory(guard);
            let mut ctx = Context::new();
            let ordered = link.clone();
            let order = wrap_future::<_, A>(async move { ordered.next_order().await });
            ctx.spawn(order.map(|order, _, ctx| obey(order, ctx)));
            link.up(generation, ctx.run(actor));
        })
    }

    fn order(&self, order: Order) {
        self.link.order(order);
    }

    fn is_up(&self) -> bool {
        self.link.is_up()
    }

    fn end(&self) {
        self.link.end();
    }

    fn observe(&self) -> BoxFuture<'_, Option<Observation>> {
        async {
            let sent = self.link.with_address(Observe, |addr, _, observe| addr.send(observe));
            match sent {
                Attempt::Made(request) => request.await.ok(),
                Attempt::NotUp(_) | Attempt::Ended => None,
            }
        }
        .boxed()
    }
}

fn obey<A: Supervised>(order: Order, ctx: &mut Context<A>) {
    match order {
        Order::Run => {}
        Order::Stop => ctx.stop(),
        #[cfg(any(test, feature = "testing"))]
        Order::Panic => super::fault::panic_on_purpose(),
    }
}
