//! Logs, to standard error.
//!
//! `CLAVIGER_LOG` filters them as `tracing` does (`info`, `claviger_actors=debug,info`), and
//! `CLAVIGER_LOG_FORMAT=json` writes one JSON object a line.

use std::io::IsTerminal as _;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::environment::Environment;

/// Why logging did not start. Whoever set the variable must act.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("CLAVIGER_LOG is not a log filter, such as `info` or `claviger_actors=debug,info`: {0}")]
    Filter(String),
    /// No such format.
    #[error("CLAVIGER_LOG_FORMAT must be `text` or `json`")]
    Format,
    /// Another subscriber was installed before.
    #[error("logging was started twice")]
    Twice,
}

/// Starts logging for the whole process, once.
pub fn start(environment: &dyn Environment) -> Result<(), TelemetryError> {
    let filter = filter(environment)?;
    let json = json(environment)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|_| TelemetryError::Twice)
}

fn filter(environment: &dyn Environment) -> Result<EnvFilter, TelemetryError> {
    let directives = environment.get("CLAVIGER_LOG").filter(|text| !text.trim().is_empty());
    EnvFilter::try_new(directives.as_deref().unwrap_or("info"))
        .map_err(|error| TelemetryError::Filter(error.to_string()))
}

fn json(environment: &dyn Environment) -> Result<bool, TelemetryError> {
    match environment.get("CLAVIGER_LOG_FORMAT").as_deref() {
        None | Some("" | "text") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => Err(TelemetryError::Format),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn environment(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_filter_is_info_unless_set() {
        assert_eq!(filter(&BTreeMap::new()).unwrap().to_string(), "info");
        assert_eq!(filter(&environment("CLAVIGER_LOG", "debug")).unwrap().to_string(), "debug");
        let bad = filter(&environment("CLAVIGER_LOG", "claviger=loud"));
        assert!(matches!(bad, Err(TelemetryError::Filter(_))));
    }

    #[test]
    fn the_format_is_text_unless_json() {
        assert!(!json(&BTreeMap::new()).unwrap());
        assert!(json(&environment("CLAVIGER_LOG_FORMAT", "json")).unwrap());
        assert_eq!(json(&environment("CLAVIGER_LOG_FORMAT", "xml")), Err(TelemetryError::Format));
    }
}
