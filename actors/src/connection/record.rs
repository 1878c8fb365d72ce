//! A connection as the store keeps it.

use serde::{Deserialize, Serialize};

use super::{OriginSet, Reason};
use crate::clock::Timestamp;
use crate::protocol::identifiers::Subject;
use crate::protocol::secret::{self, Secret};
use crate::protocol::token::{TokenFingerprint, TokenSet};
use crate::store::Revision;

/// What is kept in the store for one connection, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// When the record was first made.
    pub created_at: Timestamp,
    /// Where its token may be sent; also in the clear header, as associated data.
    pub origins: OriginSet,
    /// The authorization server that the token set is from: the only one that its refresh token is
    /// sent to, whatever the configuration says by now.
    #[serde(default)]
    pub issued_by: String,
    /// Names the credential that the token set was obtained with, if no person was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub obtained_with: String,
    /// What is held.
    pub held: Held,
    /// A token request that was journalled before it was sent, and has not been answered.
    pub in_flight: Option<InFlight>,
    /// The age in milliseconds at which an upstream refused a token of unknown expiry.
    pub learned_lifetime: Option<u64>,
    /// The ID token that a refresh brought. It is kept with the token set, so that whoever reads
    /// the record first, after a crash too, sees whether it still names the same person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked_id_token: Option<UncheckedIdToken>,
    /// The record is on its way to another subject: nothing is done with it before it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<MovingTo>,
    /// The revision of the record, under another subject, that this one was moved from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_by: Option<Revision>,
}

/// Where a record is to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovingTo {
    /// Its new subject.
    pub subject: Subject,
    /// The revision of the record there that it takes the place of; none if there was none.
    pub replaces: Option<Revision>,
}

/// An ID token (OpenID Connect Core section 2) as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UncheckedIdToken(#[serde(with = "secret::sealed")] pub Secret);

/// The lasting part of a [`ConnectionState`]; trouble is worked out anew after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// A token set.
    Tokens(Box<TokenSet>),
    /// Nothing: the first token request is in flight.
    Nothing,
    /// Nothing: only the person can mend it.
    NeedsConsent {
        /// Why.
        reason: Reason,
        /// Since when.
        since: Timestamp,
    },
}

/// The journal of a token request: written before it is sent, gone once it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The process that sends it.
    pub owner: String,
    /// When it was written.
    pub since: Timestamp,
    /// After this it counts for nothing.
    pub expires_at: Timestamp,
    /// The refresh token that is being used, if it is a refresh.
    pub refresh_token: Option<TokenFingerprint>,
    /// An earlier request with this refresh token was sent, and its answer never came: it may have
    /// been used up.
    #[serde(default)]
    pub cut_off: bool,
}
