//! Checks `[store]`.

use std::collections::BTreeMap;

use claviger_actors::store::keyring::{Keyring, SealingKey};
use claviger_actors::store::{self, BACKENDS};

use super::StoreConfig;
use super::error::{Faults, Place, suggestion};
use super::extension::Extension;
use super::file::StoreFile;
use super::reader::Located;
use super::secret_source::{SecretSource, Secrets};

const DEFAULT_BACKEND: &str = "sled";
const MAKE_ONE: &str = "make one with `claviger keys generate`";

/// Checks `[store]` without its encryption.
pub(super) fn store(
    file: Option<&StoreFile>,
    whole: &Place,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<StoreConfig> {
    let Some(file) = file else {
        faults.missing(&whole.join("store"), "it says where token sets are kept");
        return None;
    };
    let name = file.backend.as_ref().map_or(DEFAULT_BACKEND, |name| name.value.as_str());
    let row = store::find(name);
    if let (None, Some(given)) = (row, &file.backend) {
        let hint = suggestion(name, BACKENDS.iter().map(|row| row.name));
        faults.push(&given.at, format!("there is no store backend `{name}`{hint}"));
    }
    let mut extension = Extension::new(&file.at, &file.settings, secrets);
    let opener = extension.build(row.map(|row| row.build));
    extension.finish(StoreFile::KEYS, |_| Vec::new(), faults);
    Some(StoreConfig { backend: row?.name, opener: opener? })
}

/// Checks `[store.encryption]`.
pub(super) fn keyring(
    file: Option<&StoreFile>,
    whole: &Place,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<Keyring> {
    let Some(file) = file.and_then(|file| file.encryption.as_ref()) else {
        let place = whole.join("store").join("encryption");
        faults.missing(&place, format!("token sets are always stored encrypted; {MAKE_ONE}"));
        return None;
    };
    let Some(sources) = file.keys.as_ref().filter(|keys| !keys.is_empty()) else {
        faults.missing(&file.at.join("keys"), format!("at least one key is needed; {MAKE_ONE}"));
        return None;
    };
    let keys = keys(sources, secrets, faults);
    let Some(active) = &file.active else {
        faults.missing(&file.at.join("active"), "it names the key that seals");
        return None;
    };
    if !sources.contains_key(&active.value) {
        let hint = suggestion(&active.value, sources.keys().map(String::as_str));
        faults.push(&active.at, format!("there is no key `{}`{hint}", active.value));
        return None;
    }
    faults.note(&file.at.join("keys"), Keyring::new(&active.value, keys?))
}

/// All keys, or none if one is at fault.
fn keys(
    sources: &BTreeMap<String, Located<SecretSource>>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<BTreeMap<String, SealingKey>> {
    let mut keys = BTreeMap::new();
    for (name, source) in sources {
        let key = secrets.resolve(source, faults);
        let key = key.and_then(|text| faults.note(&source.at, SealingKey::from_base64(&text)));
        keys.extend(key.map(|key| (name.clone(), key)));
    }
    (keys.len() == sources.len()).then_some(keys)
}
