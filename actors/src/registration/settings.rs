//! The part of a profile that only its grant or client authentication understands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

use crate::protocol::secret::{Secret, SecretBytes};

const NOT_A_SECRET: &str = "must be a secret: a string, { env = \"NAME\" } or { file = \"path\" }";

/// One value of an extension's settings, secrets already resolved.
#[derive(Clone, Debug)]
pub enum Setting {
    /// From a key that holds a secret (value, environment or file).
    Secret(Secret),
    /// From a file that is no text, such as a PKCS#12 key store.
    Binary(SecretBytes),
    /// A table, in which there may be secrets.
    Table(Settings),
    /// An array, in which there may be secrets.
    List(Vec<Setting>),
    /// Anything else, as TOML has it.
    Value(serde_json::Value),
}

impl Setting {
    /// The value without secrets, or nothing if there is one in it.
    fn into_value(self) -> Option<serde_json::Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::List(items) => items.into_iter().map(Self::into_value).collect::<Option<_>>(),
            Self::Table(table) => {
                let members =
                    table.given.into_iter().map(|(key, setting)| Some((key, setting.into_value()?)));
                members.collect::<Option<_>>().map(serde_json::Value::Object)
            }
            Self::Secret(_) | Self::Binary(_) => None,
        }
    }

    fn into_bytes(self) -> Option<SecretBytes> {
        match self {
            Self::Binary(bytes) => Some(bytes),
            other => other.into_secret().map(|secret| SecretBytes::new(secret.expose().as_bytes().to_vec())),
        }
    }

    fn into_secret(self) -> Option<Secret> {
        match self {
            Self::Secret(secret) => Some(secret),
            Self::Value(serde_json::Value::String(text)) => Some(Secret::new(text)),
            _ => None,
        }
    }
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
    /// Keys of several extensions: read by one at least, and left for the others.
    shared: BTreeSet<String>,
}

impl Settings {
    /// Adds a setting.
    pub fn insert(&mut self, key: impl Into<String>, setting: Setting) {
        self.given.insert(key.into(), setting);
    }

    /// Takes the secret at `key`, if given.
    pub fn take_secret(&mut self, key: &str) -> Result<Option<Secret>, SettingsError> {
        let Some(setting) = self.take(key) else { return Ok(None) };
        let secret = setting.into_secret().ok_or_else(|| self.error(key, NOT_A_SECRET))?;
        Ok(Some(secret))
    }

    /// Takes the secrets at `key`: one, or an array of them. None are given if it is not there.
    pub fn take_secrets(&mut self, key: &str) -> Result<Vec<Secret>, SettingsError> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Setting::List(items)) => {
                let secrets = items.into_iter().map(Setting::into_secret).collect::<Option<Vec<_>>>();
                secrets.ok_or_else(|| self.error(key, "must be a secret, or an array of secrets"))
            }
            Some(one) => Ok(vec![one.into_secret().ok_or_else(|| self.error(key, NOT_A_SECRET))?]),
        }
    }

    /// Takes the bytes at `key`, if given: a text, or what a file holds.
    pub fn take_bytes(&mut self, key: &str) -> Result<Option<SecretBytes>, SettingsError> {
        let Some(setting) = self.take(key) else { return Ok(None) };
        setting.into_bytes().map(Some).ok_or_else(|| self.error(key, NOT_A_SECRET))
    }

    /// Takes the bytes at `key`: one text or file, or an array of them. None are given if it is not
    /// there.
    pub fn take_several_bytes(&mut self, key: &str) -> Result<Vec<SecretBytes>, SettingsError> {
        let bytes = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Setting::List(items)) => items.into_iter().map(Setting::into_bytes).collect(),
            Some(one) => one.into_bytes().map(|one| vec![one]),
        };
        bytes.ok_or_else(|| self.error(key, "must be a secret, or an array of secrets"))
    }

    /// Takes the texts at `key`: one, or an array of them. None are given if it is not there.
    pub fn take_texts(&mut self, key: &str) -> Result<Vec<String>, SettingsError> {
        let texts = match self.take_value(key)? {
            None => return Ok(Vec::new()),
            Some(serde_json::Value::String(text)) => Some(vec![text]),
            Some(serde_json::Value::Array(items)) => {
                items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        texts.ok_or_else(|| self.error(key, "must be a string, or an array of strings"))
    }

    /// Lets `read` take keys that other extensions may read as well: they stay, and are no longer
    /// left over.
    pub fn share<T>(&mut self, read: impl FnOnce(&mut Settings) -> T) -> T {
        let mut copy = Self { given: self.given.clone(), ..Self::default() };
        let outcome = read(&mut copy);
        self.shared.extend(copy.asked.iter().cloned());
        self.asked.append(&mut copy.asked);
        outcome
    }

    /// Takes the value at `key`, if given.
    pub fn take_value(&mut self, key: &str) -> Result<Option<serde_json::Value>, SettingsError> {
        let Some(setting) = self.take(key) else { return Ok(None) };
        let value = setting.into_value().ok_or_else(|| self.error(key, "must not be a secret"))?;
        Ok(Some(value))
    }

    /// Takes the text at `key`, if given.
    pub fn take_text(&mut self, key: &str) -> Result<Option<String>, SettingsError> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Value(serde_json::Value::String(text))) => Ok(Some(text)),
            Some(_) => Err(self.error(key, "must be a string")),
        }
    }

    /// Takes the flag at `key`, if given.
    pub fn take_flag(&mut self, key: &str) -> Result<Option<bool>, SettingsError> {
        match self.take(key) {
            None => Ok(None),
            Some(Setting::Value(serde_json::Value::Bool(flag))) => Ok(Some(flag)),
            Some(Setting::Value(serde_json::Value::String(text))) if text == "true" => Ok(Some(true)),
            Some(Setting::Value(serde_json::Value::String(text))) if text == "false" => Ok(Some(false)),
            Some(_) => Err(self.error(key, "must be true or false")),
        }
    }

    /// Takes the duration at `key`, if given: a number with its unit, longer than nothing.
    pub fn take_duration(&mut self, key: &str) -> Result<Option<Duration>, SettingsError> {
        let Some(text) = self.take_text(key)? else { return Ok(None) };
        match humantime::parse_duration(text.trim()) {
            Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => Err(self.error(key, "must be a duration with its unit, such as \"30s\" or \"5m\"")),
        }
    }

    /// Lets `read` take what is its own from the table at `key`, if given. What it leaves there is
    /// an unknown key, and its errors name the whole path.
    pub fn take_table<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Settings) -> Result<T, SettingsError>,
    ) -> Result<Option<T>, SettingsError> {
        let mut table = match self.take(key) {
            None => return Ok(None),
            Some(Setting::Table(table)) => table,
            Some(_) => return Err(self.error(key, "must be a table")),
        };
        let within = |error: SettingsError| SettingsError { key: format!("{key}.{}", error.key), ..error };
        let read = read(&mut table).map_err(within)?;
        match table.leftovers().next() {
            None => Ok(Some(read)),
            Some(unknown) => {
                let known: Vec<&str> = table.asked().collect();
                let problem = format!("is not known here; known: {}", known.join(", "));
                Err(SettingsError { key: format!("{key}.{unknown}"), problem })
            }
        }
    }

    /// Keys that nobody took.
    pub fn leftovers(&self) -> impl Iterator<Item = &str> {
        self.given.keys().filter(|key| !self.shared.contains(*key)).map(String::as_str)
    }

    /// Keys that some extension asked for, given or not: what a leftover may have meant to be.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        self.asked.iter().map(String::as_str)
    }

    fn error(&self, key: &str, problem: &str) -> SettingsError {
        SettingsError { key: key.to_owned(), problem: problem.to_owned() }
    }

    fn take(&mut self, key: &str) -> Option<Setting> {
        self.asked.insert(key.to_owned());
        self.given.remove(key)
    }
}
