//! Where a secret comes from: its value, the environment, or a file.

use std::fmt;
use std::path::{Path, PathBuf};

use claviger_actors::protocol::secret::Secret;
use claviger_actors::registration::settings::Setting;
use figment::value::Value;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::error::{Faults, Place};
use super::reader::{Located, Node, Read, Table};

/// Largest secret file read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Where a secret comes from. Prints its source, never its value.
#[derive(Clone)]
pub(super) enum SecretSource {
    /// `"…"`: the value itself.
    Value(Secret),
    /// `{ env = "NAME" }`.
    Variable(String),
    /// `{ file = "path" }`, relative to the configuration file's directory.
    File(PathBuf),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(secret) => fmt::Debug::fmt(secret, f),
            Self::Variable(name) => write!(f, "Variable({name:?})"),
            Self::File(path) => write!(f, "File({path:?})"),
        }
    }
}

impl Read for SecretSource {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        if let Value::String(_, text) = node.value {
            return Some(Self::Value(Secret::new(text.as_str())));
        }
        if node.value.as_dict().is_none() {
            node.mismatch("a string, { env = \"NAME\" } or { file = \"path\" }", faults);
            return None;
        }
        let table = Table::open(node, &["env", "file"], faults)?;
        let variable: Option<String> = table.take("env", faults);
        let file: Option<String> = table.take("file", faults);
        table.finish(faults);
        match (variable, file) {
            (Some(name), None) => Some(Self::Variable(name)),
            (None, Some(path)) => Some(Self::File(PathBuf::from(path))),
            (Some(_), Some(_)) => {
                faults.push(&node.at, "must have either `env` or `file`, not both");
                None
            }
            (None, None) => {
                faults.unless_noted(&node.at, "must have either `env` or `file`");
                None
            }
        }
    }
}

/// A value that only an extension understands.
#[derive(Clone, Debug)]
pub(super) enum RawSetting {
    /// `{ env = … }` or `{ file = … }`.
    Secret(SecretSource),
    /// Anything else. May be a secret's value: an extension knows, we do not.
    Value(HiddenValue),
}

/// A value that is not printed.
#[derive(Clone)]
pub(super) struct HiddenValue(serde_json::Value);

impl fmt::Debug for HiddenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Read for RawSetting {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let source = |table: &figment::value::Dict| table.contains_key("env") || table.contains_key("file");
        if node.value.as_dict().is_some_and(source) {
            return SecretSource::read(node, faults).map(Self::Secret);
        }
        faults.note(&node.at, serde_json::to_value(node.value)).map(|value| Self::Value(HiddenValue(value)))
    }
}

/// Draws secrets from where they are.
pub(super) struct Secrets<'a> {
    /// For `{ env = … }`.
    pub(super) environment: &'a dyn Environment,
    /// What the path of `{ file = … }` is relative to.
    pub(super) directory: &'a Path,
}

impl Secrets<'_> {
    /// The secret that `source` names. An empty one is a fault.
    pub(super) fn resolve(&self, source: &Located<SecretSource>, faults: &mut Faults) -> Option<Secret> {
        self.draw(&source.value, &source.at, faults)
    }

    fn draw(&self, source: &SecretSource, at: &Place, faults: &mut Faults) -> Option<Secret> {
        let drawn = match source {
            SecretSource::Value(secret) if secret.expose().is_empty() => Err("is empty".to_owned()),
            SecretSource::Value(secret) => Ok(secret.clone()),
            SecretSource::Variable(name) => self.read_variable(name),
            SecretSource::File(path) => self.read_file(path),
        };
        faults.note(at, drawn)
    }

    /// An extension's value, with secrets drawn.
    pub(super) fn setting(&self, raw: &Located<RawSetting>, faults: &mut Faults) -> Option<Setting> {
        match &raw.value {
            RawSetting::Secret(source) => self.draw(source, &raw.at, faults).map(Setting::Secret),
            RawSetting::Value(value) => Some(Setting::Value(value.0.clone())),
        }
    }

    fn read_variable(&self, name: &str) -> Result<Secret, String> {
        match self.environment.get(name) {
            None => Err(format!("environment variable {name} is not set")),
            Some(text) if text.is_empty() => Err(format!("environment variable {name} is empty")),
            Some(text) => Ok(Secret::new(text)),
        }
    }

    fn read_file(&self, path: &Path) -> Result<Secret, String> {
        use std::io::Read as _;
        let path = self.directory.join(path);
        let mut text = Zeroizing::new(String::new());
        std::fs::File::open(&path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
            .map_err(|error| format!("secret file {} cannot be read: {error}", path.display()))?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("secret file {} is larger than {MAX_FILE} bytes", path.display()));
        }
        // Editors and `echo` end a file with a newline that is no part of the secret.
        let line =
            text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() {
            return Err(format!("secret file {} is empty", path.display()));
        }
        Ok(Secret::new(line))
    }
}
