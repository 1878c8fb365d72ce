//! The keys that a profile signs with, read from its settings in one way for all that sign.

use crate::protocol::secret::Secret;
use crate::protocol::signing_key::{KeyError, SignatureAlgorithm, SigningKey};

use super::settings::{Settings, SettingsError};

/// The keys of a profile: the first signs, the others are only published, so that one can be
/// exchanged for another while the provider still remembers either.
#[derive(Clone, Debug)]
pub struct SigningKeys {
    current: SigningKey,
    others: Vec<SigningKey>,
}

impl From<SigningKey> for SigningKeys {
    fn from(current: SigningKey) -> Self {
        Self { current, others: Vec::new() }
    }
}

impl SigningKeys {
    /// Takes `signing_key` (one, or an array), `signing_alg`, `key_id`, `signing_key_password` and
    /// `certificate`; the last three may be arrays as well. They stay for whatever else signs in this
    /// profile. None are given without `signing_key`.
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
        if count == 0 {
            let given = [
                ("signing_alg", algorithm.is_some()),
                ("key_id", !names.is_empty()),
                ("signing_key_password", !passwords.is_empty()),
                ("certificate", !certificates.is_empty()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(SettingsError::missing("signing_key", &format!("`{key}`"))),
                None => Ok(None),
            };
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
        Ok(keys.next().map(|current| Self { current, others: keys.collect() }))
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
        self.current.clone()
    }

    /// Every key whose signatures are, were or will be ours.
    pub fn published(&self) -> Vec<SigningKey> {
        std::iter::once(&self.current).chain(&self.others).cloned().collect()
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
