//! Checks `[store]`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::store::BACKENDS;
use zeroize::Zeroizing;

use super::error::{Faults, Place, suggestion};
use super::extension::Extension;
use super::file::{EncryptionFile, StoreFile};
use super::secret_source::Secrets;
use super::{KeyringConfig, StoreConfig};

const DEFAULT_BACKEND: &str = "sled";
const KEY_BYTES: usize = 32;
const MAKE_ONE: &str = "make one with `claviger keys generate`";

/// Checks `[store]` without its encryption.
pub(super) fn store(
    file: Option<&StoreFile>,
    whole: &Place,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<StoreConfig> {
    let Some(file) = file else {
        faults.push(&whole.join("store"), "is missing; it says where token sets are kept");
        return None;
    };
    let name = file.backend.as_ref().map_or(DEFAULT_BACKEND, |name| name.value.as_str());
    let row = BACKENDS.iter().find(|row| row.name == name);
    if let (None, Some(given)) = (row, &file.backend) {
        let hint = suggestion(name, BACKENDS.iter().map(|row| row.name));
        faults.push(&given.at, format!("there is no store backend `{name}`{hint}"));
    }
    let mut extension = Extension::new(&file.at, &file.settings, secrets, faults);
    let opener = extension.build(row.map(|row| row.build));
    extension.finish(StoreFile::KEYS, faults);
    Some(StoreConfig { backend: row?.name, opener: opener? })
}

/// Checks `[store.encryption]`.
pub(super) fn keyring(
    file: Option<&StoreFile>,
    whole: &Place,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<KeyringConfig> {
    let Some(file) = file.and_then(|file| file.encryption.as_ref()) else {
        let place = whole.join("store").join("encryption");
        faults.push(&place, format!("is missing; token sets are always stored encrypted; {MAKE_ONE}"));
        return None;
    };
    let keys = keys(file, secrets, faults);
    let active = file.active.as_ref();
    let named = file.keys.as_ref();
    match active {
        None => faults.push(&file.at.join("active"), "is missing; it names the key that seals"),
        Some(active) if named.is_some_and(|keys| !keys.contains_key(&active.value)) => {
            let hint = suggestion(&active.value, named.into_iter().flatten().map(|(name, _)| name.as_str()));
            faults.push(&active.at, format!("there is no key `{}`{hint}", active.value));
        }
        Some(_) => {}
    }
    Some(KeyringConfig { active: active?.value.clone(), keys })
}

fn keys(file: &EncryptionFile, secrets: &Secrets<'_>, faults: &mut Faults) -> BTreeMap<String, Secret> {
    let mut keys = BTreeMap::new();
    let Some(sources) = file.keys.as_ref().filter(|keys| !keys.is_empty()) else {
        faults.push(&file.at.join("keys"), format!("is missing; at least one key is needed; {MAKE_ONE}"));
        return keys;
    };
    for (name, source) in sources {
        let Some(key) = secrets.resolve(source, faults) else { continue };
        match STANDARD.decode(key.expose()).map(Zeroizing::new) {
            Ok(bytes) if bytes.len() == KEY_BYTES => {
                keys.insert(name.clone(), key);
            }
            Ok(bytes) => {
                let length = bytes.len();
                faults.push(&source.at, format!("must be {KEY_BYTES} bytes, not {length}; {MAKE_ONE}"));
            }
            Err(_) => faults.push(&source.at, format!("is not base64 with padding; {MAKE_ONE}")),
        }
    }
    keys
}
