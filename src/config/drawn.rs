//! What a configuration was drawn from beside its own text: files and variables, as they were when they
//! were read. With it a running gateway sees what has changed, and what a profile was made of.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aws_lc_rs::hmac;
use claviger_actors::clock::{Entropy as _, SystemEntropy};
use claviger_actors::profile::{Profile, ProfileDigest};
use figment::value::Value;

use super::source::Source;

/// A file as it was when it was looked at. Another file under the same name has another inode, also
/// behind a link whose target was exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn now(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

/// The files that a configuration was read from, or would have been had they been there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchedFiles(BTreeMap<PathBuf, Option<FileState>>);

impl WatchedFiles {
    /// The same files as they are now.
    #[must_use]
    pub fn now(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), FileState::now(path))).collect())
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none, so that nothing can be seen to change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A digest under a key of this process: it tells nothing of a secret to whoever sees it.
type Digest = [u8; 32];

fn digest(bytes: &[u8]) -> Digest {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = [0; 32];
        SystemEntropy.fill(&mut key);
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    });
    let mut digest = [0; 32];
    digest.copy_from_slice(hmac::sign(key, bytes).as_ref());
    digest
}

/// Notes what is drawn while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    files: RefCell<WatchedFiles>,
    /// What was read, by the name that the configuration has for it.
    contents: RefCell<BTreeMap<String, Digest>>,
}

impl Drawn {
    /// Notes that the file or directory at `path` is looked for. Before it is read: what is written to
    /// it meanwhile must be seen to be new.
    pub(super) fn look_at(&self, path: &Path) {
        self.files.borrow_mut().0.insert(path.to_owned(), FileState::now(path));
    }

    /// Notes what was found under `name`.
    pub(super) fn found(&self, name: impl Into<String>, content: &[u8]) {
        self.contents.borrow_mut().insert(name.into(), digest(content));
    }

    pub(super) fn into_files(self) -> WatchedFiles {
        self.files.into_inner()
    }

    /// A digest of `values` and of all that they name.
    fn digest<'a>(&self, values: impl IntoIterator<Item = &'a Value>) -> Digest {
        let contents = self.contents.borrow();
        let mut text = Vec::new();
        for value in values {
            // Parsed from TOML, so there is nothing that JSON has not.
            text.extend(serde_json::to_vec(value).unwrap_or_default());
            let mut named = BTreeSet::new();
            texts(value, &mut named);
            for name in named {
                if let Some(content) = contents.get(name) {
                    text.extend(content);
                }
            }
            text.push(0);
        }
        digest(&text)
    }

    fn everything(&self) -> Vec<u8> {
        self.contents.borrow().values().flatten().copied().collect()
    }
}

/// Every text in `value`: some of them name files and variables.
fn texts<'a>(value: &'a Value, into: &mut BTreeSet<&'a str>) {
    match value {
        Value::String(_, text) => {
            into.insert(text);
        }
        Value::Dict(_, table) => table.values().for_each(|inner| texts(inner, into)),
        Value::Array(_, items) => items.iter().for_each(|inner| texts(inner, into)),
        _ => {}
    }
}

fn at<'a>(root: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, key| value.as_dict()?.get(*key))
}

/// Notes in each profile what it was made of: rather too much than too little, for a profile that is
/// taken to be another only has to look at its records again.
pub(super) fn mark(profiles: &mut [Profile], source: &Source, drawn: &Drawn) {
    let root = &source.root;
    for profile in profiles {
        let id = profile.registration.profile.as_str();
        let own = at(root, &["profiles", id]);
        let provider = &profile.registration.provider.name;
        let inline = at(root, &["providers", provider]);
        let mut text = drawn.digest(own.into_iter().chain(inline)).to_vec();
        if inline.is_none() && at(root, &["server", "catalogue"]).is_some() {
            // It may be from the directory, whose files may name any other.
            text.extend(drawn.everything());
        }
        text.extend(profile.registration.redirect_uri.as_str().as_bytes());
        text.extend(profile.registration.signing_key_lifetime.as_millis().to_be_bytes());
        profile.made_of = Some(ProfileDigest(digest(&text)));
    }
}

/// Digests of the keys that count at the start alone, by their paths; nobody sees their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartKeys(BTreeMap<String, Digest>);

/// Tables whose keys are taken while the gateway runs.
const TAKEN_TABLES: &[&str] = &["providers", "profiles", "callers", "routes"];
/// Keys of other tables that are.
const TAKEN_KEYS: &[&str] = &["server.catalogue", "server.signing_key_lifetime"];

impl StartKeys {
    pub(super) fn of(source: &Source, drawn: &Drawn) -> Self {
        let mut keys = BTreeMap::new();
        for (table, value) in source.root.as_dict().into_iter().flatten() {
            if !TAKEN_TABLES.contains(&table.as_str()) {
                gather(table, value, drawn, &mut keys);
            }
        }
        Self(keys)
    }

    /// The keys of `other` that differ, in order.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let all: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        all.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }
}

fn gather(path: &str, value: &Value, drawn: &Drawn, keys: &mut BTreeMap<String, Digest>) {
    if TAKEN_KEYS.contains(&path) {
        return;
    }
    let names_a_secret =
        |table: &figment::value::Dict| table.contains_key("env") || table.contains_key("file");
    let is_read_again = path.starts_with("listeners.") && path.contains(".tls");
    match value.as_dict() {
        Some(table) if !names_a_secret(table) => {
            table.iter().for_each(|(key, inner)| gather(&format!("{path}.{key}"), inner, drawn, keys));
        }
        _ => {
            // Certificates are read again under the same names.
            let digest = if is_read_again { Drawn::default().digest([value]) } else { drawn.digest([value]) };
            keys.insert(path.to_owned(), digest);
        }
    }
}
