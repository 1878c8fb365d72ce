//! The part of a profile that only its grant or client authentication understands.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::protocol::secret::Secret;

/// One value of an extension's settings, secrets already resolved.
#[derive(Clone, Debug)]
pub enum Setting {
    /// From a key that holds a secret (value, environment or file).
    Secret(Secret),
    /// Anything else, as TOML has it.
    Value(serde_json::Value),
}

/// Why an extension refuses its settings. `key` is relative to the profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {problem}")]
pub struct SettingsError {
    /// The key at fault.
    pub key: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
}

impl SettingsError {
    /// `key` is needed and absent.
    pub fn missing(key: &str, needed_by: &str) -> Self {
        Self { key: key.to_owned(), problem: format!("is missing; {needed_by} needs it") }
    }
}

/// A profile's settings; extensions take what is theirs, and what is left over is an error.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    given: BTreeMap<String, Setting>,
    asked: BTreeSet<String>,
}

impl Settings {
    /// Adds a setting.
    pub fn insert(&mut self, key: impl Into<String>, setting: Setting) {
        self.given.insert(key.into(), setting);
    }

    /// Takes the secret at `key`, if given.
    pub fn take_secret(&mut self, key: &str) -> Result<Option<Secret>, SettingsError> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Secret(secret)) => Ok(Some(secret)),
            Some(Setting::Value(serde_json::Value::String(text))) => Ok(Some(Secret::new(text))),
            Some(Setting::Value(_)) => {
                let problem = "must be a secret: a string, { env = \"NAME\" } or { file = \"path\" }".into();
                Err(SettingsError { key: key.to_owned(), problem })
            }
        }
    }

    /// Takes the value at `key`, if given.
    pub fn take_value(&mut self, key: &str) -> Result<Option<serde_json::Value>, SettingsError> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Value(value)) => Ok(Some(value)),
            Some(Setting::Secret(_)) => {
                Err(SettingsError { key: key.to_owned(), problem: "must not be a secret".into() })
            }
        }
    }

    /// Keys that nobody took.
    pub fn leftovers(&self) -> impl Iterator<Item = &str> {
        self.given.keys().map(String::as_str)
    }

    /// Keys that some extension asked for, given or not: what a leftover may have meant to be.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(String::as_str)
    }

    fn take(&mut self, key: &str) -> Option<Setting> {
        self.asked.insert(key.to_owned());
        self.given.remove(key)
    }
}
