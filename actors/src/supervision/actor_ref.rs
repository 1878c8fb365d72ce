//! A stable handle over a replaceable address.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::{SendError, ToEnvelope};
use actix::{Actor, Addr, Handler, Message};
use thiserror::Error;

use super::link::{Attempt, Link};
use super::observe::ActorKind;
use super::supervisor::Supervised;
use super::vitals::Vitals;

/// Why an ask was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AskError {
    /// Its mailbox is full: shed load or try later.
    #[error("the actor's mailbox is full")]
    Full,
    /// It did not answer within the deadline.
    #[error("the actor did not answer in time")]
    TimedOut,
    /// It ended while the message waited or was handled; a new one is being started.
    #[error("the actor ended while it handled the message, and is being restarted")]
    Restarting,
    /// It ended for good.
    #[error("the actor has ended")]
    Stopped,
}

/// Asks of one actor that may wait at the same time; more get [`AskError::Full`]. It bounds what
/// the mailbox does not: actix grants every waiting sender a slot beyond the mailbox's capacity.
pub const MAX_ASKS_IN_FLIGHT: usize = 4096;

/// How long a repeated ask waits for the actor to be replaced. Only the future that would have
/// answered may have panicked; then the actor lives on and is asked again after this.
const REPLACEMENT_GRACE: Duration = Duration::from_millis(50);

/// A handle that outlives restarts. Cheap to clone, usable from any thread. Two are equal when
/// they lead to the same supervised actor.
pub struct ActorRef<A: Actor> {
    link: Arc<Link<A>>,
}

impl<A: Actor> ActorRef<A> {
    pub(super) fn new(link: Arc<Link<A>>) -> Self {
        Self { link }
    }

    pub(super) fn link(&self) -> &Link<A> {
        &self.link
    }

    /// Which of its kind.
    pub fn id(&self) -> &str {
        &self.vitals().id
    }

    /// Its kind.
    pub fn kind(&self) -> ActorKind {
        self.vitals().kind
    }

    /// Whether nobody waits for an answer of it.
    pub fn is_idle(&self) -> bool {
        self.vitals().asks_in_flight() == 0
    }

    /// Whether it ended for good, so that no ask will ever be answered.
    pub fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    fn vitals(&self) -> &Vitals {
        self.link.vitals()
    }

    /// Sends `message` and waits for the answer, at most `deadline`, including any time the actor
    /// needs to (re)start before the message can be sent. Sent once only: for what must not be
    /// repeated, such as redeeming a code.
    pub async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Result, AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.within(deadline, async { self.deliver(message).await.map_err(|lost| self.why(lost)) }).await
    }

    /// As [`ActorRef::ask`], and repeated once if the actor ended meanwhile: for messages that
    /// may be handled twice without harm.
    pub async fn ask_idempotent<M>(&self, message: M, deadline: Duration) -> Result<M::Result, AskError>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.within(deadline, async {
            match self.deliver(message.clone()).await {
                Err(Lost::WithActor { generation }) => {
                    let replaced = self.link.replaced(generation);
                    // A timeout only means that the actor lives on.
                    let _ = tokio::time::timeout(REPLACEMENT_GRACE, replaced).await;
                    self.deliver(message).await.map_err(|lost| self.why(lost))
                }
                other => other.map_err(|lost| self.why(lost)),
            }
        })
        .await
    }

    /// Leaves `message` in the mailbox if there is room; never waits. The answer is dropped.
    pub fn tell<M>(&self, message: M) -> Result<(), AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let sent = self.link.with_address(message, |addr, _, message| addr.try_send(message));
        match sent {
            Attempt::Made(Ok(())) => Ok(()),
            Attempt::Made(Err(SendError::Full(_))) => Err(AskError::Full),
            Attempt::Made(Err(SendError::Closed(_))) | Attempt::NotUp(_) => Err(AskError::Restarting),
            Attempt::Ended => Err(AskError::Stopped),
        }
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        asking: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, AskError> {
        let _in_flight = self.vitals().enter(MAX_ASKS_IN_FLIGHT).ok_or(AskError::Full)?;
        match tokio::time::timeout(deadline, asking).await {
            Ok(Ok(answer)) => {
                self.vitals().answered();
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) if self.link.is_up() => Err(AskError::TimedOut),
            Err(_) => Err(AskError::Restarting),
        }
    }

    async fn deliver<M>(&self, mut message: M) -> Result<M::Result, Lost>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        loop {
            let mut changed = pin!(self.link.changed());
            // Enabled before looking, so that no change is missed.
            changed.as_mut().enable();
            let sent =
                self.link.with_address(message, |addr, generation, message| (addr.send(message), generation));
            match sent {
                Attempt::Made((request, generation)) => {
                    return request.await.map_err(|_| Lost::WithActor { generation });
                }
                Attempt::NotUp(unsent) => message = unsent,
                Attempt::Ended => return Err(Lost::Ended),
            }
            changed.await;
        }
    }

    fn why(&self, lost: Lost) -> AskError {
        match lost {
            Lost::Ended => AskError::Stopped,
            Lost::WithActor { .. } if self.link.has_ended() => AskError::Stopped,
            Lost::WithActor { .. } => AskError::Restarting,
        }
    }
}

impl<A: Supervised> ActorRef<A> {
    /// A handle on an actor that nobody supervises, for tests of single actors.
    pub fn detached(id: impl Into<String>, addr: Addr<A>) -> Self {
        Self::new(Arc::new(Link::unsupervised(Vitals::new(A::KIND, id.into()), addr)))
    }
}

/// A message was sent and its answer will never come.
enum Lost {
    WithActor { generation: u64 },
    Ended,
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { link: self.link.clone() }
    }
}

impl<A: Actor> PartialEq for ActorRef<A> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }
}

impl<A: Actor> Eq for ActorRef<A> {}

impl<A: Actor> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRef({:?} {})", self.kind(), self.id())
    }
}
