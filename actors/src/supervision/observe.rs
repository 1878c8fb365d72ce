//! What an actor shows of itself.

use actix::Message;
use serde::Serialize;

/// Which kind of actor it is, as `/debug/actors` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// One per profile.
    Provider,
    /// Owner of the store.
    TokenStore,
    /// One per pending authorization.
    Flow,
    /// One per worker thread.
    Proxy,
}

/// Asks any actor what it is doing.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Observation")]
pub struct Observe;

/// An actor's own word on its state: nothing secret in it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Observation {
    /// One word, such as `idle` or `refreshing`.
    pub state: String,
    /// The last error it met, in words.
    pub last_error: Option<String>,
    /// Whatever else helps an operator.
    pub detail: serde_json::Value,
}

/// One row of `/debug/actors`.
#[derive(Clone, Debug, Serialize)]
pub struct ActorReport {
    /// Kind of actor.
    pub kind: ActorKind,
    /// Which of its kind.
    pub id: String,
    /// Its own word; `restarting`, `failed` or `unresponsive` when it cannot speak.
    pub state: String,
    /// Seconds since its last (re)start.
    pub uptime_s: u64,
    /// Restarts so far.
    pub restarts: u64,
    /// Asks sent to it and not answered yet.
    pub mailbox: usize,
    /// Asks answered since the process began.
    pub processed: u64,
    /// Its last error, or where it last panicked.
    pub last_error: Option<String>,
    /// Whatever else it shows.
    pub detail: serde_json::Value,
}

impl ActorReport {
    /// Whether it is down, or was restarted.
    pub fn is_troubled(&self) -> bool {
        self.is_down() || self.restarts > 0
    }

    /// Whether it cannot work now.
    pub fn is_down(&self) -> bool {
        matches!(self.state.as_str(), "failed" | "restarting" | "unresponsive")
    }
}
