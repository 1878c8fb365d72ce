//! Turns parsed values into the raw types of `file.rs`, noting every fault on the way instead of
//! stopping at the first, which serde would do.

use std::collections::BTreeMap;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::error::{Faults, Origin, Place, suggestion};
use super::source::Source;

/// The one key of a date or time, as the TOML parser hands it over.
const DATE: &str = "$__toml_private_datetime";
/// Brackets in a variable; more make no sense, and the parser follows each of them down the stack.
const MAX_BRACKETS: usize = 64;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    /// The value.
    pub(super) value: T,
    /// Its place.
    pub(super) at: Place,
}

/// A value to be read.
#[derive(Clone)]
pub(super) struct Node<'a> {
    source: &'a Source,
    /// The value as parsed.
    pub(super) value: &'a Value,
    /// Its place.
    pub(super) at: Place,
}

impl<'a> Node<'a> {
    /// The whole configuration.
    pub(super) fn root(source: &'a Source) -> Self {
        Self { source, value: &source.root, at: source.whole() }
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        let at = Place { origin: self.source.origin(value), path: self.at.path.join(key) };
        Self { source: self.source, value, at }
    }

    /// The text of a variable: always a string, whatever it is to be read as.
    fn variable(&self) -> Option<&'a str> {
        matches!(self.at.origin, Origin::Variable(_)).then(|| self.value.as_str()).flatten()
    }

    /// The table that the value is. A date is none, though the parser hands it over as one.
    pub(super) fn table(&self) -> Option<&'a Dict> {
        self.value.as_dict().filter(|table| !table.contains_key(DATE))
    }

    /// Notes that the value should have been `wanted`. Tells its kind, never the value.
    pub(super) fn mismatch(&self, wanted: &str, faults: &mut Faults) {
        if self.variable().is_some() {
            faults.push(&self.at, format!("must be {wanted}"));
            return;
        }
        let found = match self.value {
            Value::String(..) | Value::Char(..) => "a string",
            Value::Bool(..) => "a boolean",
            Value::Num(..) => "a number",
            Value::Empty(..) => "nothing",
            Value::Dict(..) if self.table().is_none() => "a date or time",
            Value::Dict(..) => "a table",
            Value::Array(..) => "an array",
        };
        faults.push(&self.at, format!("must be {wanted}, not {found}"));
    }
}

/// A raw type that can be read.
pub(super) trait Read: Sized {
    /// Reads it; faults are noted, and what cannot be read is `None`.
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self>;
}

impl<T: Read> Read for Located<T> {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        T::read(node, faults).map(|value| Self { value, at: node.at.clone() })
    }
}

impl Read for String {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::String(_, text) => Some(text.clone()),
            Value::Char(_, c) => Some(c.to_string()),
            _ => {
                node.mismatch("a string", faults);
                None
            }
        }
    }
}

impl Read for bool {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let read = node.value.to_bool().or_else(|| node.variable()?.trim().parse().ok());
        if read.is_none() {
            node.mismatch("true or false", faults);
        }
        read
    }
}

impl Read for u64 {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let number = node.value.to_i128().and_then(|n| u64::try_from(n).ok());
        let read = number.or_else(|| node.variable()?.trim().parse().ok());
        if read.is_none() {
            match node.value {
                Value::Num(..) => faults.push(&node.at, "must be a whole number, not negative"),
                _ => node.mismatch("a whole number", faults),
            }
        }
        read
    }
}

impl Read for Duration {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let read = node.value.as_str().and_then(|text| humantime::parse_duration(text.trim()).ok());
        if read.is_none() {
            faults.push(&node.at, "must be a duration with its unit, such as \"30s\" or \"5m\"");
        }
        read
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

impl Read for ByteSize {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let number = node.value.to_i128().and_then(|n| u64::try_from(n).ok());
        let read = number.or_else(|| byte_size(node.value.as_str()?));
        if read.is_none() {
            faults.push(&node.at, "must be a size, such as \"10MiB\", \"512KiB\" or a number of bytes");
        }
        read.map(Self)
    }
}

fn byte_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The value of a request parameter: text, or a number or boolean as text.
#[derive(Clone, Debug)]
pub(super) struct Parameter(pub(super) String);

impl Read for Parameter {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let text = match node.value {
            Value::String(_, text) => Some(text.clone()),
            Value::Bool(_, flag) => Some(flag.to_string()),
            value => value.to_i128().map(|number| number.to_string()),
        };
        if text.is_none() {
            node.mismatch("a string", faults);
        }
        text.map(Self)
    }
}

/// A text, or an array of them.
#[derive(Clone, Debug)]
pub(super) struct OneOrMore(pub(super) Vec<String>);

impl Read for OneOrMore {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        match node.value {
            Value::String(_, text) if !text.trim_start().starts_with('[') => Some(Self(vec![text.clone()])),
            _ => Vec::read(node, faults).map(Self),
        }
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let parsed = node.variable().map(in_variable);
        let Some(items) = parsed.as_ref().unwrap_or(node.value).as_array() else {
            node.mismatch("an array", faults);
            return None;
        };
        let read = |(index, item): (usize, &Value)| {
            let at = node.at.join(&index.to_string());
            T::read(&Node { source: node.source, value: item, at }, faults)
        };
        Some(items.iter().enumerate().filter_map(read).collect())
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let parsed = node.variable().map(in_variable);
        let table = match &parsed {
            Some(parsed) => parsed.as_dict(),
            None => node.table(),
        };
        let Some(table) = table else {
            node.mismatch("a table", faults);
            return None;
        };
        let read = |(key, value): (&String, &Value)| {
            let mut child = node.child(key, value);
            if parsed.is_some() {
                child.at.origin = node.at.origin.clone();
            }
            Some((key.clone(), T::read(&child, faults)?))
        };
        Some(table.iter().filter_map(read).collect())
    }
}

/// An array or table in a variable, in figment's notation: `["a", "b"]`, `{ a = "b" }`.
fn in_variable(text: &str) -> Value {
    if text.matches(['[', '{']).count() > MAX_BRACKETS {
        return Value::from(text);
    }
    text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})
}

/// A table whose keys are taken one by one; what is left over is unknown.
pub(super) struct Table<'a> {
    node: Node<'a>,
    entries: &'a Dict,
    known: &'static [&'static str],
}

impl<'a> Table<'a> {
    /// Starts reading the table at `node`, which may have the keys `known`.
    pub(super) fn open(node: &Node<'a>, known: &'static [&'static str], faults: &mut Faults) -> Option<Self> {
        let Some(entries) = node.table() else {
            node.mismatch("a table", faults);
            return None;
        };
        Some(Self { node: node.clone(), entries, known })
    }

    /// Its place.
    pub(super) fn at(&self) -> Place {
        self.node.at.clone()
    }

    /// Reads the value at `key`, if there is one.
    pub(super) fn take<T: Read>(&self, key: &'static str, faults: &mut Faults) -> Option<T> {
        T::read(&self.node.child(key, self.entries.get(key)?), faults)
    }

    /// Reads everything that nobody took, by name.
    pub(super) fn rest<T: Read>(&self, faults: &mut Faults) -> BTreeMap<String, T> {
        let read = |(key, node): (&String, Node<'_>)| Some((key.clone(), T::read(&node, faults)?));
        self.left().filter_map(read).collect()
    }

    fn left(&self) -> impl Iterator<Item = (&'a String, Node<'a>)> {
        let entries = self.entries.iter().filter(|(key, _)| !self.known.contains(&key.as_str()));
        entries.map(|(key, value)| (key, self.node.child(key, value)))
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self, faults: &mut Faults) {
        for (key, node) in self.left() {
            unknown_key(&node.at, key, self.known.iter().copied(), faults);
        }
    }
}

/// Notes that nothing reads `key`.
pub(super) fn unknown_key<'a>(
    at: &Place,
    key: &str,
    known: impl IntoIterator<Item = &'a str>,
    faults: &mut Faults,
) {
    faults.push(at, format!("unknown key{}", suggestion(key, known)));
}
