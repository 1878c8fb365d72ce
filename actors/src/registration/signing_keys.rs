//! The keys that a profile signs with, read from its settings in one way for all that sign.

mod managed;

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::settings::{Settings, SettingsError};
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::{KeyError, SignatureAlgorithm, SigningKey};

pub use managed::{KeySchedule, ManagedKey, ManagedKeyRecord};

/// The value of `signing_key` that leaves the key to the gateway.
const MANAGED: &str = "managed";
/// What a key of the gateway's own signs with.
const MANAGED_ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Es256;

/// The keys of a profile: the first signs, the others are only published, so that one can be
/// exchanged for another while the provider still remembers either.
#[derive(Clone, Debug)]
pub struct SigningKeys(Source);

#[derive(Clone, Debug)]
enum Source {
    Given(KeySet),
    /// The gateway makes them and exchanges them.
    Managed(Arc<ArcSwap<KeySet>>),
}

/// Keys, of which one signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    /// The one that signs.
    pub current: SigningKey,
    /// Those that signed before, or will.
    pub others: Vec<SigningKey>,
}

impl From<SigningKey> for SigningKeys {
    fn from(current: SigningKey) -> Self {
        Self(Source::Given(KeySet { current, others: Vec::new() }))
    }
}

impl SigningKeys {
    /// Takes `signing_key` (one, or an array), `signing_alg`, `key_id`, `signing_key_password` and
    /// `certificate`; the last three may be arrays as well. They stay for whatever else signs in this
    /// profile. None are given without `signing_key`. With `signing_key = "managed"` the gateway makes
    /// the keys.
    ///
    /// # Errors
    /// What is wrong with one of these keys.
    pub fn take(settings: &mut Settings) -> Result<Option<Self>, SettingsError> {
        settings.share(Self::read)
    }

    fn read(settings: &mut Settings) -> Result<Option<Self>, SettingsError> {
        let material = settings.take_several_bytes("signing_key")?;
        let algorithm = settings.take_text("signing_alg")?;
        let names = settings.take_texts("key_id")?;
        let passwords = settings.take_secrets("signing_key_password")?;
        let certificates = settings.take_several_bytes("certificate")?;

        let algorithm = match algorithm {
            None => None,
            Some(name) => Some(name.parse::<SignatureAlgorithm>().map_err(|fault| SettingsError {
                key: "signing_alg".into(),
                problem: format!("{name:?} {fault}"),
            })?),
        };
        let count = material.len();
        let given = [
            ("key_id", !names.is_empty()),
            ("signing_key_password", !passwords.is_empty()),
            ("certificate", !certificates.is_empty()),
            ("signing_alg", algorithm.is_some()),
        ];
        let given = given.into_iter().find(|(_, given)| *given).map(|(key, _)| key);
        if count == 0 {
            return match given {
                Some(key) => Err(SettingsError::missing("signing_key", &format!("`{key}`"))),
                None => Ok(None),
            };
        }
        if let [only] = material.as_slice()
            && only.expose() == MANAGED.as_bytes()
        {
            return Self::managed(algorithm, given).map(Some);
        }
        if names.len() > count {
            return Err(error("key_id", "names more keys than `signing_key` has"));
        }
        let mut keys = Vec::with_capacity(count);
        for (index, bytes) in material.iter().enumerate() {
            let key = load(bytes.expose(), &passwords, (index == 0).then_some(algorithm).flatten())
                .map_err(|fault| refused(index, count, &fault))?;
            keys.push(match names.get(index) {
                Some(name) => key.with_kid(name.as_str()),
                None => key,
            });
        }
        for certificate in &certificates {
            attach(certificate.expose(), &mut keys)
                .map_err(|fault| error("certificate", fault.to_string()))?;
        }
        if let Some(twice) =
            keys.iter().find(|key| keys.iter().filter(|other| other.kid() == key.kid()).count() > 1)
        {
            let problem = format!("two keys have the name {:?}; give each its own", twice.kid());
            return Err(error(if names.is_empty() { "signing_key" } else { "key_id" }, problem));
        }
        let mut keys = keys.into_iter();
        let set = keys.next().map(|current| KeySet { current, others: keys.collect() });
        Ok(set.map(|set| Self(Source::Given(set))))
    }

    /// Keys that the gateway makes. The one made here never signs: before anything is served, the
    /// stored ones take its place.
    fn managed(
        algorithm: Option<SignatureAlgorithm>,
        given: Option<&'static str>,
    ) -> Result<Self, SettingsError> {
        match given {
            None => {}
            Some("signing_alg") if algorithm == Some(MANAGED_ALGORITHM) => {}
            Some("signing_alg") => {
                return Err(error(
                    "signing_alg",
                    "cannot be chosen for a managed key, which signs with ES256",
                ));
            }
            Some(key) => return Err(error(key, "cannot be given for a managed key; leave it out")),
        }
        let current = SigningKey::generate(MANAGED_ALGORITHM)
            .map_err(|fault| error("signing_key", format!("generating {fault}")))?;
        let set = KeySet { current, others: Vec::new() };
        Ok(Self(Source::Managed(Arc::new(ArcSwap::from_pointee(set)))))
    }

    /// As [`take`](Self::take), where `needed_by` cannot do without a key.
    ///
    /// # Errors
    /// That, and a missing `signing_key`.
    pub fn require(settings: &mut Settings, needed_by: &str) -> Result<Self, SettingsError> {
        Self::take(settings)?.ok_or_else(|| SettingsError::missing("signing_key", needed_by))
    }

    /// The key to sign with.
    pub fn current(&self) -> SigningKey {
        match &self.0 {
            Source::Given(set) => set.current.clone(),
            Source::Managed(set) => set.load().current.clone(),
        }
    }

    /// Every key whose signatures are, were or will be ours; the current one first.
    pub fn published(&self) -> Vec<SigningKey> {
        let all = |set: &KeySet| std::iter::once(&set.current).chain(&set.others).cloned().collect();
        match &self.0 {
            Source::Given(set) => all(set),
            Source::Managed(set) => all(&set.load()),
        }
    }

    /// Whether the gateway makes them.
    pub fn is_managed(&self) -> bool {
        matches!(self.0, Source::Managed(_))
    }

    /// Puts stored keys in the place of managed ones; of given ones, nothing changes.
    pub fn install(&self, keys: &KeySet) {
        if let Source::Managed(set) = &self.0
            && **set.load() != *keys
        {
            set.store(Arc::new(keys.clone()));
        }
    }
}

/// Loads a key; of several passwords, whichever opens it.
fn load(
    material: &[u8],
    passwords: &[Secret],
    algorithm: Option<SignatureAlgorithm>,
) -> Result<SigningKey, KeyError> {
    let mut outcome = SigningKey::load(material, passwords.first(), algorithm);
    for password in passwords.iter().skip(1) {
        if !matches!(outcome, Err(KeyError::WrongPassword)) {
            break;
        }
        outcome = SigningKey::load(material, Some(password), algorithm);
    }
    outcome
}

/// Gives a certificate to the key it was issued for.
fn attach(certificate: &[u8], keys: &mut [SigningKey]) -> Result<(), KeyError> {
    let mut outcome = Err(KeyError::OtherCertificate);
    for key in keys {
        match key.with_certificate(certificate) {
            Ok(with) => {
                *key = with;
                return Ok(());
            }
            Err(fault) => outcome = Err(fault),
        }
    }
    outcome
}

fn refused(index: usize, count: usize, fault: &KeyError) -> SettingsError {
    let which = if count > 1 { format!("key {} ", index + 1) } else { String::new() };
    match fault {
        KeyError::WrongType { .. } => error("signing_alg", format!("`signing_key` {which}{fault}")),
        _ => error("signing_key", format!("{which}{fault}")),
    }
}

fn error(key: &str, problem: impl Into<String>) -> SettingsError {
    SettingsError { key: key.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests;
