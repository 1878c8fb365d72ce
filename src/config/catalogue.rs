//! Providers known by name: one file each in `config/providers/`, which `build.rs` gathers, and those
//! of a directory of one's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::drawn::Drawn;
use super::error::{ConfigErrors, Faults, Origin, Place};
use super::file::ProviderFile;
use super::providers::{self, ProviderFiles};
use super::reader::{Located, Node, Read};
use super::source::Source;

/// Most files that a directory of one's own may hold.
const MAX_FILES: usize = 1000;
/// Largest of them, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// A provider of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The value of `provider` in a profile.
    pub name: &'static str,
    /// Its file: the keys of `[providers.NAME]`, and comments for whoever registers a client.
    pub text: &'static str,
}

/// Every provider of the catalogue, by name.
pub const CATALOGUE: &[Preset] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// The preset of that name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    CATALOGUE.iter().find(|preset| preset.name == name)
}

/// The providers of a configuration: its own, then those of its directory, then the catalogue's.
pub(super) struct Providers<'a> {
    /// `[providers]`
    pub(super) inline: &'a ProviderFiles,
    /// `[server] catalogue`
    pub(super) directory: ProviderFiles,
}

impl Providers<'_> {
    /// Applies `use_provider` to the raw provider of that name, if there is one.
    pub(super) fn with<T>(
        &self,
        name: &str,
        faults: &mut Faults,
        use_provider: impl FnOnce(&ProviderFile, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        if let Some(own) = self.inline.get(name).or_else(|| self.directory.get(name)) {
            return use_provider(own, faults);
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
        let own = self.inline.keys().chain(self.directory.keys()).map(String::as_str);
        own.chain(CATALOGUE.iter().map(|preset| preset.name))
    }
}

/// Reads a preset.
pub(super) fn read(preset: &Preset) -> Result<ProviderFile, ConfigErrors> {
    let source = Source::preset(preset.name, preset.text)?;
    let mut faults = Faults::default();
    let file = ProviderFile::read(&Node::root(&source), &mut faults);
    faults.or(file)
}

/// Reads and checks every `NAME.toml` of the directory that `[server] catalogue` names, relative to
/// `beside`.
pub(super) fn directory(
    given: Option<&Located<String>>,
    beside: &Path,
    drawn: &Drawn,
    faults: &mut Faults,
) -> ProviderFiles {
    let mut files = BTreeMap::new();
    let Some(given) = given else { return files };
    let directory = beside.join(&given.value);
    drawn.look_at(&directory);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let wanted = "name a directory, relative to this file";
            faults.push(&given.at, format!("cannot be read: {error}; {wanted}"));
            return files;
        }
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    if paths.len() > MAX_FILES {
        faults.push(&given.at, format!("has more than {MAX_FILES} providers in it"));
        return files;
    }
    for path in paths {
        let place = Place { origin: Origin::File(Arc::new(path.clone())), path: Default::default() };
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let Some(name) =
            path.file_stem().and_then(|name| name.to_str()).filter(|name| name.chars().all(named))
        else {
            faults.push(&place, "must be named in small letters, digits, `-` and `_`, such as acme.toml");
            continue;
        };
        match Source::of_file(&path, MAX_FILE, drawn) {
            Ok(source) => {
                if let Some(file) = ProviderFile::read(&Node::root(&source), faults) {
                    providers::provider(name, &file, faults);
                    files.insert(name.to_owned(), file);
                }
            }
            Err(errors) => {
                errors.0.iter().for_each(|error| faults.push(&error.place, error.problem.clone()));
            }
        }
    }
    files
}
