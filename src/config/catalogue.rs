//! Providers known by name. To add one: a file in `config/providers/` and a row here.

use std::collections::BTreeMap;

use super::error::{ConfigErrors, Faults};
use super::file::ProviderFile;
use super::reader::{Node, Read};
use super::source::Source;

/// A provider of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The value of `provider` in a profile.
    pub name: &'static str,
    /// Its file: the keys of `[providers.NAME]`, and comments for whoever registers a client.
    pub text: &'static str,
}

/// Every provider of the catalogue, by name.
pub const CATALOGUE: &[Preset] = &[
    Preset { name: "axway", text: include_str!("../../config/providers/axway.toml") },
    Preset { name: "google", text: include_str!("../../config/providers/google.toml") },
    Preset { name: "salesforce", text: include_str!("../../config/providers/salesforce.toml") },
];

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    CATALOGUE.iter().find(|preset| preset.name == name)
}

/// The providers of a configuration: its own, then the catalogue's.
pub(super) struct Providers<'a>(pub(super) &'a BTreeMap<String, ProviderFile>);

impl Providers<'_> {
    /// Applies `use_provider` to the raw provider of that name, if there is one.
    pub(super) fn with<T>(
        &self,
        name: &str,
        faults: &mut Faults,
        use_provider: impl FnOnce(&ProviderFile, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        if let Some(inline) = self.0.get(name) {
            return use_provider(inline, faults);
        }
        match read(preset(name)?) {
            Ok(file) => use_provider(&file, faults),
            Err(errors) => {
                errors.0.iter().for_each(|error| faults.push(&error.place, error.problem.clone()));
                None
            }
        }
    }

    /// Every name that a profile may use.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).chain(CATALOGUE.iter().map(|preset| preset.name))
    }
}

/// Reads a preset.
pub(super) fn read(preset: &Preset) -> Result<ProviderFile, ConfigErrors> {
    let source = Source::preset(preset.name, preset.text)?;
    let mut faults = Faults::default();
    let file = ProviderFile::read(&Node::root(&source), &mut faults);
    faults.or(file)
}
