//! Where a secret comes from: its value, the environment, or a file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use claviger_actors::protocol::secret::{Secret, SecretBytes};
use claviger_actors::registration::settings::{Setting, Settings};
use figment::value::Value;
use zeroize::Zeroizing;

use super::drawn::Drawn;
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
    /// A table, in which there may be secrets.
    Table(BTreeMap<String, Located<RawSetting>>),
    /// An array, in which there may be secrets.
    List(Vec<Located<RawSetting>>),
    /// Anything else. May be a secret's value: an extension knows, we do not.
    Value(HiddenValue),
}

impl RawSetting {
    /// Whether it is this text.
    pub(super) fn is_text(&self, text: &str) -> bool {
        matches!(self, Self::Value(HiddenValue(value)) if value.as_str() == Some(text))
    }
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
        if node.table().is_some() {
            return BTreeMap::read(node, faults).map(Self::Table);
        }
        if node.value.as_array().is_some() {
            return Vec::read(node, faults).map(Self::List);
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
    /// Where it is noted what was drawn.
    pub(super) drawn: &'a Drawn,
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
            RawSetting::Secret(SecretSource::File(path)) => {
                let bytes = faults.note(&raw.at, self.read_bytes(path))?;
                faults.note(&raw.at, text_or_binary(bytes, &self.directory.join(path)))
            }
            RawSetting::Secret(source) => self.draw(source, &raw.at, faults).map(Setting::Secret),
            RawSetting::Table(entries) => {
                let mut table = Settings::default();
                for (key, entry) in entries {
                    table.insert(key.clone(), self.setting(entry, faults)?);
                }
                Some(Setting::Table(table))
            }
            RawSetting::List(items) => {
                items.iter().map(|item| self.setting(item, faults)).collect::<Option<_>>().map(Setting::List)
            }
            RawSetting::Value(value) => Some(Setting::Value(value.0.clone())),
        }
    }

    fn read_variable(&self, name: &str) -> Result<Secret, String> {
        match self.environment.get(name) {
            None => Err(format!("environment variable {name} is not set")),
            Some(text) if text.is_empty() => Err(format!("environment variable {name} is empty")),
            Some(text) => {
                self.drawn.found(name, text.as_bytes());
                Ok(Secret::new(text))
            }
        }
    }

    fn read_file(&self, path: &Path) -> Result<Secret, String> {
        let full = self.directory.join(path);
        match text_or_binary(self.read_bytes(path)?, &full)? {
            Setting::Secret(secret) => Ok(secret),
            _ => Err(format!("secret file {} is not UTF-8 text", full.display())),
        }
    }

    fn read_bytes(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        self.file(path, "secret file")
    }

    /// The bytes of the file at `path`, relative to the configuration; `kind` names it in faults.
    pub(super) fn file(&self, path: &Path, kind: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        use std::io::Read as _;
        let name = path.display().to_string();
        let path = self.directory.join(path);
        self.drawn.look_at(&path);
        let mut bytes = Zeroizing::new(Vec::new());
        std::fs::File::open(&path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("{kind} {} cannot be read: {error}", path.display()))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(format!("{kind} {} is larger than {MAX_FILE} bytes", path.display()));
        }
        self.drawn.found(name, &bytes);
        Ok(bytes)
    }
}

/// What a file holds: a text, without the newline that editors and `echo` end it with, or bytes.
fn text_or_binary(bytes: Zeroizing<Vec<u8>>, path: &Path) -> Result<Setting, String> {
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Ok(Setting::Binary(SecretBytes::new(bytes.to_vec())));
    };
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(format!("secret file {} is empty", path.display()));
    }
    Ok(Setting::Secret(Secret::new(line)))
}
