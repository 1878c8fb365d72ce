//! What is wrong with a configuration: where, what, and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(Arc<PathBuf>),
    /// An environment variable, by its name.
    Variable(Arc<str>),
    /// A provider of the built-in catalogue, by its name.
    Catalogue(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Catalogue(name) => write!(f, "catalogue provider {name}"),
        }
    }
}

/// A key and all tables around it, outermost first. Empty for the file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(Vec<String>);

impl KeyPath {
    /// The path of `key` within the table at this path.
    #[must_use]
    pub fn join(&self, key: &str) -> Self {
        let mut keys = self.0.clone();
        keys.push(key.to_owned());
        Self(keys)
    }
}

impl fmt::Display for KeyPath {
    /// As TOML writes a dotted key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, key) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if !key.is_empty() && key.chars().all(bare) {
                f.write_str(key)?;
            } else {
                write!(f, "{key:?}")?;
            }
        }
        Ok(())
    }
}

/// A key, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file or variable.
    pub origin: Origin,
    /// The key.
    pub path: KeyPath,
}

impl Place {
    /// The place of `key` within the table at this place.
    #[must_use]
    pub fn join(&self, key: &str) -> Self {
        Self { origin: self.origin.clone(), path: self.path.join(key) }
    }
}

/// One fault of a configuration. Whoever wrote the configuration must act. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{problem}", Prefix(.place))]
pub struct ConfigError {
    /// Where it is.
    pub place: Place,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

struct Prefix<'a>(&'a Place);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.origin)?;
        if !self.0.path.0.is_empty() {
            write!(f, "{}: ", self.0.path)?;
        }
        Ok(())
    }
}

/// Every fault of a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// The whole file at `path` is at fault.
    pub(crate) fn of_file(path: &Path, problem: impl Into<String>) -> Self {
        let place = Place { origin: Origin::File(Arc::new(path.to_owned())), path: KeyPath::default() };
        Self(vec![ConfigError { place, problem: problem.into() }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// Gathers faults, so that all of them are told at once.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ConfigError>, Dated);

/// What is amiss only because of the date: a gateway starts with it all the same.
#[derive(Debug, Default)]
pub(super) struct Dated {
    /// What has ended, or has not begun.
    pub(super) invalid: Vec<ConfigError>,
    /// What soon ends.
    pub(super) ending: Vec<ConfigError>,
}

impl Faults {
    /// Notes a fault.
    pub(super) fn push(&mut self, place: &Place, problem: impl Into<String>) {
        self.0.push(ConfigError { place: place.clone(), problem: problem.into() });
    }

    /// Notes that a key is missing, unless it is there and could not be read, which was noted then.
    pub(super) fn missing(&mut self, place: &Place, why: impl fmt::Display) {
        self.unless_noted(place, format!("is missing; {why}"));
    }

    /// Notes `others` as well.
    pub(super) fn append(&mut self, others: Self) {
        self.0.extend(others.0);
        self.1.invalid.extend(others.1.invalid);
        self.1.ending.extend(others.1.ending);
    }

    /// What the date makes amiss.
    pub(super) fn dated(&mut self) -> &mut Dated {
        &mut self.1
    }

    /// Notes a fault, unless one was noted at `place`, within it or around it: then this one follows
    /// from that.
    pub(super) fn unless_noted(&mut self, place: &Place, problem: impl Into<String>) {
        if !self.noted(place) {
            self.push(place, problem);
        }
    }

    /// Whether a fault was noted at `place`, within it or around it.
    pub(super) fn noted(&self, place: &Place) -> bool {
        self.0.iter().any(|error| {
            let (noted, path) = (&error.place.path.0, &place.path.0);
            noted.starts_with(path) || path.starts_with(noted)
        })
    }

    /// Notes a fault if `result` is one, and gives the value otherwise.
    pub(super) fn note<T, E: fmt::Display>(&mut self, place: &Place, result: Result<T, E>) -> Option<T> {
        result.map_err(|problem| self.push(place, problem.to_string())).ok()
    }

    /// `value`, if nothing was wrong with the configuration and so it exists.
    /// The faults come in the order of their keys.
    pub(super) fn or<T>(mut self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => {
                self.0.sort_by(|one, other| one.place.path.cmp(&other.place.path));
                Err(ConfigErrors(self.0))
            }
        }
    }
}

impl fmt::Display for Faults {
    /// The first of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.first().map_or(Ok(()), |fault| write!(f, "{}: {}", fault.place.path, fault.problem))
    }
}

/// ` did you mean …?` if one of `known` is near `word`, otherwise what there is to choose from.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known: {}", known.join(", ")),
    }
}

/// The one of `known` that `word` most likely meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let within = |near: &str| 1.max(near.chars().count() / 3);
    known
        .into_iter()
        .map(|near| (strsim::damerau_levenshtein(&word, &near.to_lowercase()), near))
        .filter(|(distance, near)| *distance <= within(near))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, near)| near)
}
