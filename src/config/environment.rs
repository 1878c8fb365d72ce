//! The environment, as a port: configuration and secrets come from it, and tests need their own.

use std::collections::BTreeMap;

/// Variables by name.
pub trait Environment {
    /// The value of one variable, if it is set and is UTF-8.
    fn get(&self, name: &str) -> Option<String>;

    /// The names of all variables that are UTF-8, in any order.
    fn names(&self) -> Vec<String>;
}

/// This process's environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}
