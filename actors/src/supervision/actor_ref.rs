//! A stable handle over a replaceable address.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Handler, Message};
use thiserror::Error;

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

/// A handle that outlives restarts. Cheap to clone, usable from any thread.
#[derive(Debug)]
pub struct ActorRef<A: Actor> {
    _skeleton: std::marker::PhantomData<fn() -> A>,
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        Self { _skeleton: std::marker::PhantomData }
    }
}

impl<A: Actor> ActorRef<A> {
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
        let _ = (message, deadline);
        todo!()
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
        let _ = (message, deadline);
        todo!()
    }

    /// Leaves `message` in the mailbox if there is room; never waits. The answer is dropped.
    pub fn tell<M>(&self, message: M) -> Result<(), AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let _ = message;
        todo!()
    }
}
