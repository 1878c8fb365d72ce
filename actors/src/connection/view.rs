//! A connection in words: what the admin API and the debug endpoint show of it.

use serde::Serialize;

use super::{Actor, Connection, ConnectionState, Freshness, Reason};
use crate::clock::Timestamp;
use crate::protocol::token::Expiry;

/// A connection in words fit for the admin API: no token, only fingerprints.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionView {
    /// The profile.
    pub profile: String,
    /// The subject.
    pub subject: String,
    /// `active`, `refreshing`, `retrying`, `misconfigured`, `unsaved` or `needs_consent`.
    pub state: &'static str,
    /// Why.
    pub reason: Reason,
    /// What was wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Since when (RFC 3339).
    pub since: String,
    /// When something is next tried, if by itself (RFC 3339).
    pub next_attempt: Option<String>,
    /// Who must act.
    pub who_must_act: Actor,
    /// Failures in a row.
    pub failures: u32,
    /// When it was first connected (RFC 3339).
    pub created_at: String,
    /// `Bearer`, or `DPoP` for a token that is bound to a key (RFC 9449).
    pub token_type: Option<&'static str>,
    /// When the token set came (RFC 3339).
    pub obtained_at: Option<String>,
    /// When the access token ends, or is taken to (RFC 3339).
    pub expires_at: Option<String>,
    /// `stated` by the provider or `presumed` by us.
    pub expiry: Option<&'static str>,
    /// Whether the access token may no longer be used.
    pub expired: bool,
    /// Scope granted: as the provider said, otherwise as asked for.
    pub scope: Option<String>,
    /// Whether it can be refreshed without the person.
    pub has_refresh_token: bool,
    /// Names the access token without giving it away.
    pub access_token_fingerprint: Option<String>,
    /// Where the token may be sent.
    pub upstreams: Vec<String>,
    /// The stored record's revision.
    pub revision: u64,
}

impl Connection {
    /// What the admin API and the debug endpoint say of it.
    pub fn view(&self, now: Timestamp, refreshing: bool) -> ConnectionView {
        let freshness = self.freshness(now);
        let lapsed = self.renewal.err().filter(|_| {
            freshness == Freshness::Ended
                && matches!(self.state, ConnectionState::Active { .. } | ConnectionState::Retrying { .. })
        });
        let (state, reason, since) = match (&self.state, lapsed) {
            (
                ConnectionState::Active { tokens } | ConnectionState::Retrying { tokens: Some(tokens), .. },
                Some(reason),
            ) => ("needs_consent", reason, tokens.expiry.at()),
            (ConnectionState::Active { tokens }, _) => ("active", Reason::Granted, tokens.obtained_at),
            (ConnectionState::Retrying { trouble, .. }, _) => ("retrying", trouble.reason, trouble.since),
            (ConnectionState::Misconfigured { trouble, .. }, _) => {
                ("misconfigured", trouble.reason, trouble.since)
            }
            (ConnectionState::Unsaved { since, .. }, _) => ("unsaved", Reason::StoreUnavailable, *since),
            (ConnectionState::NeedsConsent { reason, since }, _) => ("needs_consent", *reason, *since),
        };
        let tokens = self.state.tokens();
        let next_attempt = match &self.state {
            ConnectionState::Active { .. } if self.renewal.is_ok() => {
                self.ready.as_ref().map(|ready| ready.refresh_from)
            }
            other => other.trouble().map(|trouble| trouble.next_attempt),
        };
        ConnectionView {
            profile: self.id.profile.to_string(),
            subject: self.id.subject.to_string(),
            // A token set that waits to be saved has a flight of its own all the while.
            state: if refreshing && state != "unsaved" { "refreshing" } else { state },
            reason,
            detail: self.state.trouble().map(|trouble| trouble.detail.clone()),
            since: since.to_string(),
            next_attempt: next_attempt.map(|at| at.to_string()),
            who_must_act: if lapsed.is_some() { Actor::Person } else { self.state.who_must_act() },
            failures: self.state.trouble().map_or(0, |trouble| trouble.attempts),
            created_at: self.created_at.to_string(),
            token_type: tokens.map(|tokens| tokens.token_type.scheme()),
            obtained_at: tokens.map(|tokens| tokens.obtained_at.to_string()),
            expires_at: tokens.map(|tokens| tokens.expiry.at().to_string()),
            expiry: tokens.map(|tokens| match tokens.expiry {
                Expiry::Stated { .. } => "stated",
                Expiry::Presumed { .. } => "presumed",
            }),
            expired: freshness == Freshness::Ended,
            scope: tokens.and_then(|tokens| tokens.scope.as_ref()).map(ToString::to_string),
            has_refresh_token: tokens.is_some_and(|tokens| tokens.refresh_token.is_some()),
            access_token_fingerprint: self.fingerprint().map(|print| print.to_string()),
            upstreams: self.origins.iter().map(str::to_owned).collect(),
            revision: self.revision.as_u64(),
        }
    }
}
