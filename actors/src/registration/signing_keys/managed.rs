//! Signing keys that the gateway makes itself: what is stored of them, and when one follows another.
//!
//! Everything is decided from the record and the time alone, so all replicas decide alike.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{KeySet, MANAGED_ALGORITHM};
use crate::clock::Timestamp;
use crate::protocol::secret::{Secret, sealed};
use crate::protocol::signing_key::{KeyError, SigningKey};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The record is looked at this often at least: so soon does a replica publish another's new key.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The keys of one profile, in the order in which they sign. Sealed before it leaves memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedKeyRecord {
    /// The keys.
    pub keys: Vec<ManagedKey>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedKey {
    /// The private key: PKCS#8 in base64.
    #[serde(with = "sealed")]
    pub pkcs8: Secret,
    /// From when it signs, until the next one does.
    pub signs_from: Timestamp,
}

impl ManagedKey {
    fn generate(signs_from: Timestamp) -> Result<Self, KeyError> {
        let pkcs8 = SigningKey::generate(MANAGED_ALGORITHM)?.to_pkcs8()?;
        Ok(Self { pkcs8: Secret::new(STANDARD.encode(pkcs8.expose())), signs_from })
    }

    fn load(&self) -> Result<SigningKey, KeyError> {
        SigningKey::load(self.pkcs8.expose().as_bytes(), None, None)
    }
}

/// When keys are made, sign and go.
#[derive(Clone, Copy, Debug)]
pub struct KeySchedule {
    lifetime: Duration,
}

impl KeySchedule {
    /// Each key signs for `lifetime`.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime }
    }

    /// How long a key is published before it signs and after it has signed: a tenth of its life, and
    /// at least a day, since providers keep what they fetched; never more than half of its life.
    pub fn overlap(&self) -> Duration {
        (self.lifetime / 10).max(DAY).min(self.lifetime / 2)
    }

    /// How often the record is looked at.
    pub fn interval(&self) -> Duration {
        (self.overlap() / 20).clamp(Duration::from_secs(1), LONGEST_INTERVAL)
    }

    /// The record that should be stored instead of `record`, or `None` if it is right for `now`. A
    /// first key signs at once, since nothing else can.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn advance(
        &self,
        record: Option<&ManagedKeyRecord>,
        now: Timestamp,
    ) -> Result<Option<ManagedKeyRecord>, KeyError> {
        let Some(newest) = record.and_then(|record| record.keys.last()) else {
            return Ok(Some(ManagedKeyRecord { keys: vec![ManagedKey::generate(now)?] }));
        };
        let before = record.map(|record| record.keys.clone()).unwrap_or_default();
        let mut keys = before.clone();
        let followed_at = newest.signs_from.after(self.lifetime);
        if followed_at <= now.after(self.overlap()) {
            // Late, after a long stop, it is still published in advance.
            keys.push(ManagedKey::generate(followed_at.max(now.after(self.overlap())))?);
        }
        // A key goes when the one after it has signed for long enough.
        let gone =
            keys.iter().skip(1).take_while(|next| next.signs_from.after(self.overlap()) <= now).count();
        keys.drain(..gone);
        Ok((keys != before).then_some(ManagedKeyRecord { keys }))
    }
}

impl ManagedKeyRecord {
    /// The keys at `now`: the last whose time has come signs. `None` for a record without keys.
    ///
    /// # Errors
    /// [`KeyError`] if a key cannot be read.
    pub fn at(&self, now: Timestamp) -> Result<Option<KeySet>, KeyError> {
        let mut keys = self.keys.iter().map(ManagedKey::load).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Ok(None);
        }
        let current = self.keys.iter().rposition(|key| key.signs_from <= now).unwrap_or(0);
        let current = keys.remove(current);
        Ok(Some(KeySet { current, others: keys }))
    }
}

#[cfg(test)]
mod tests;
