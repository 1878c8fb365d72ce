//! The layers of a configuration, merged by figment: a TOML file, then the environment.

use std::path::Path;
use std::sync::Arc;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use zeroize::Zeroizing;

use super::drawn::Drawn;
use super::environment::Environment;
use super::error::{ConfigError, ConfigErrors, KeyPath, Origin, Place};

/// Largest file read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// What the variables that are configuration begin with.
pub(super) const PREFIX: &str = "CLAVIGER_";
/// Between the keys in a variable's name. A variable without it is not configuration: `CLAVIGER_LOG`
/// and whatever secrets are drawn from have none.
pub(super) const SEPARATOR: &str = "__";

/// A merged configuration that still knows where each value was written.
pub(super) struct Source {
    figment: Figment,
    base: Origin,
    /// The whole, as one table.
    pub(super) root: Value,
}

impl Source {
    /// Reads the file at `path` and lays the environment over it.
    pub(super) fn load(
        path: &Path,
        environment: &dyn Environment,
        drawn: &Drawn,
    ) -> Result<Self, ConfigErrors> {
        drawn.look_at(path);
        let base = Origin::File(Arc::new(path.to_owned()));
        let hint = "; name a configuration file with --config";
        let text = read(path, MAX_FILE, hint).map_err(|problem| whole(&base, problem))?;
        let mut figment = Figment::from(Toml::string(&text));
        for variable in variables(environment) {
            figment = figment.merge(variable);
        }
        Self::merged(figment, base)
    }

    /// Reads the file at `path`, of `max` bytes at most, without the environment.
    pub(super) fn of_file(path: &Path, max: u64, drawn: &Drawn) -> Result<Self, ConfigErrors> {
        let base = Origin::File(Arc::new(path.to_owned()));
        drawn.look_at(path);
        let text = read(path, max, "").map_err(|problem| whole(&base, problem))?;
        drawn.found(path.display().to_string(), text.as_bytes());
        Self::merged(Figment::from(Toml::string(&text)), base)
    }

    /// Reads a provider of the catalogue.
    pub(super) fn preset(name: &str, text: &str) -> Result<Self, ConfigErrors> {
        Self::merged(Figment::from(Toml::string(text)), Origin::Catalogue(Arc::from(name)))
    }

    fn merged(figment: Figment, base: Origin) -> Result<Self, ConfigErrors> {
        match figment.find_value("") {
            Ok(root) => Ok(Self { figment, base, root }),
            Err(error) => Err(whole(&base, without_excerpt(&error.kind.to_string()))),
        }
    }

    /// Where the file as a whole is.
    pub(super) fn whole(&self) -> Place {
        Place { origin: self.base.clone(), path: KeyPath::default() }
    }

    /// Where `value` was written.
    pub(super) fn origin(&self, value: &Value) -> Origin {
        // A table that the file began and a variable added to is the file's.
        if let Value::Dict(_, table) = value
            && table.values().any(|inner| self.origin(inner) == self.base)
        {
            return self.base.clone();
        }
        match self.figment.get_metadata(value.tag()) {
            Some(metadata) if metadata.name.starts_with(PREFIX) => {
                Origin::Variable(Arc::from(metadata.name.as_ref()))
            }
            _ => self.base.clone(),
        }
    }
}

fn read(path: &Path, max: u64, hint: &str) -> Result<String, String> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(max + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}{hint}"))?;
    if bytes.len() as u64 > max {
        return Err(format!("is larger than {max} bytes{hint}"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 at line {line}; save it as UTF-8 text")
    })?;
    Ok(text.to_owned())
}

fn whole(base: &Origin, problem: String) -> ConfigErrors {
    let place = Place { origin: base.clone(), path: KeyPath::default() };
    ConfigErrors(vec![ConfigError { place, problem }])
}

/// A TOML error's position and words, without the line it quotes: that may hold a secret.
fn without_excerpt(text: &str) -> String {
    let quoted = |line: &str| {
        line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']).starts_with('|')
    };
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !quoted(line)).collect();
    lines.join(": ")
}

/// One variable of the environment, as a layer of its own so that faults can name it. Its value
/// stays text; what it is to be is known only where it is read.
struct Variable {
    name: String,
    keys: Vec<String>,
    value: String,
}

fn variables(environment: &dyn Environment) -> Vec<Variable> {
    let mut names = environment.names();
    names.sort_unstable();
    let variable = |name: String| {
        let keys = name.strip_prefix(PREFIX).filter(|rest| rest.contains(SEPARATOR))?;
        let keys = keys.split(SEPARATOR).map(str::to_lowercase).collect();
        let value = environment.get(&name)?;
        Some(Variable { name, keys, value })
    };
    names.into_iter().filter_map(variable).collect()
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        let (last, outer) = self.keys.split_last().ok_or_else(|| "the name has no key".to_owned())?;
        let mut table = Dict::from([(last.clone(), Value::from(self.value.clone()))]);
        for key in outer.iter().rev() {
            table = Dict::from([(key.clone(), Value::from(table))]);
        }
        Ok(Profile::Default.collect(table))
    }
}
