//! Hands settings to the extension that understands them: a grant, a client authentication method,
//! a store backend. What nobody takes is an unknown key.

use std::collections::BTreeMap;

use claviger_actors::registration::settings::{Settings, SettingsError};

use super::error::{Faults, Place, nearest};
use super::reader::{Located, unknown_key};
use super::secret_source::{RawSetting, Secrets};

/// The settings of one table, on their way to its extensions.
pub(super) struct Extension<'a> {
    at: &'a Place,
    raw: &'a BTreeMap<String, Located<RawSetting>>,
    settings: Settings,
    /// Secrets that could not be drawn, and why.
    undrawn: BTreeMap<&'a str, Faults>,
    refused: Vec<SettingsError>,
    complete: bool,
}

impl<'a> Extension<'a> {
    /// Draws the secrets among `raw`, the keys of the table at `at` that are an extension's.
    pub(super) fn new(
        at: &'a Place,
        raw: &'a BTreeMap<String, Located<RawSetting>>,
        secrets: &Secrets<'_>,
    ) -> Self {
        let mut settings = Settings::default();
        let mut undrawn = BTreeMap::new();
        for (key, setting) in raw {
            let mut faults = Faults::default();
            match secrets.setting(setting, &mut faults) {
                Some(setting) => settings.insert(key.clone(), setting),
                None => drop(undrawn.insert(key.as_str(), faults)),
            }
        }
        Self { at, raw, settings, undrawn, refused: Vec::new(), complete: true }
    }

    /// The settings as given, but for those that were taken.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Lets an extension take what is its own. `None` stands for an extension that is not known.
    pub(super) fn build<T>(
        &mut self,
        build: Option<impl FnOnce(&mut Settings) -> Result<T, SettingsError>>,
    ) -> Option<T> {
        let Some(build) = build else {
            self.complete = false;
            return None;
        };
        let refused = &mut self.refused;
        // Two extensions may share a key, and refuse it for the same reason.
        let note = |error| {
            if !refused.contains(&error) {
                refused.push(error)
            }
        };
        build(&mut self.settings).map_err(note).ok()
    }

    /// Notes what the extensions refused, and the keys that none of them took. `keys` are the
    /// table's own; `users` names the extensions that a key is for, among all that there are.
    pub(super) fn finish(self, keys: &[&str], users: impl Fn(&str) -> Vec<String>, faults: &mut Faults) {
        let known = || keys.iter().copied().chain(self.settings.asked());
        // While an extension is not known, neither are its keys: only misspelt ones are told then.
        let unknown = |key: &&str| self.complete || nearest(key, known()).is_some();
        let told: Vec<&str> = self.undrawn.keys().copied().collect();
        let mut left: Vec<&str> = self.settings.leftovers().filter(unknown).collect();
        for (key, trouble) in self.undrawn {
            // A key that nobody asked for is told as such, whatever it holds.
            if self.settings.asked().any(|asked| asked == key) || !unknown(&key) {
                faults.append(trouble);
            } else {
                left.push(key);
            }
        }
        for key in &left {
            let place = self.raw.get(*key).map_or_else(|| self.at.join(key), |raw| raw.at.clone());
            match users(key).as_slice() {
                [] => unknown_key(&place, key, known(), faults),
                // Whoever refused its settings may not have come to this one.
                _ if !self.refused.is_empty() => {}
                users => faults
                    .push(&place, format!("unknown key beside the others; it is for {}", users.join(", "))),
            }
        }
        for error in &self.refused {
            let given = self.raw.get(&error.key);
            let misspelt = left.iter().any(|key| nearest(key, known()) == Some(error.key.as_str()));
            match given {
                // It was given, but could not be drawn: that has been told.
                Some(_) if told.contains(&error.key.as_str()) => {}
                Some(raw) => faults.push(&raw.at, error.problem.clone()),
                None if misspelt => {}
                None => {
                    let place = error.key.split('.').fold(self.at.clone(), |place, key| place.join(key));
                    faults.unless_noted(&place, error.problem.clone());
                }
            }
        }
    }
}
