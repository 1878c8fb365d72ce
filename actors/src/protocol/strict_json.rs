//! JSON from the network, read without leniency: no member name twice (two readers would pick
//! different ones), no deep nesting, and errors that repeat nothing of the text.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;
use zeroize::Zeroize;

/// Deepest nesting accepted; no OAuth document needs more.
pub const MAX_DEPTH: usize = 16;

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StrictJsonError {
    /// Not a byte, or white space only.
    #[error("is empty")]
    Empty,
    /// Not JSON at all, such as an HTML page, or broken off.
    #[error("is not JSON (line {line}, column {column})")]
    Syntax {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// A member name occurs twice in one object.
    #[error("names a member twice")]
    Duplicate,
    /// More than [`MAX_DEPTH`] levels.
    #[error("is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An array, string, number or other where an object must be.
    #[error("is not a JSON object")]
    NotAnObject,
}

/// Parses an object. A byte order mark before it is tolerated: some servers send one.
pub fn object(text: &[u8]) -> Result<Map<String, Value>, StrictJsonError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(StrictJsonError::Empty);
    }
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0, fault: &fault }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| {
            fault.get().unwrap_or(StrictJsonError::Syntax { line: error.line(), column: error.column() })
        })?;
    match value {
        Value::Object(members) => Ok(members),
        mut other => {
            wipe(&mut other);
            Err(StrictJsonError::NotAnObject)
        }
    }
}

/// Overwrites every text in `value`, for answers that may hold tokens.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Seconds since the epoch (RFC 7519 section 2), as a number, or as a text where servers are sloppy.
/// Zero and what lies before count as none.
pub fn numeric_date(value: &Value) -> Option<u64> {
    let seconds = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    // `as` saturates, and turns NaN into zero.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating on purpose")]
    let seconds = seconds as u64;
    (seconds > 0).then_some(seconds)
}

#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: usize,
    fault: &'f Cell<Option<StrictJsonError>>,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fail(StrictJsonError::TooDeep));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn fail<E: serde::de::Error>(self, fault: StrictJsonError) -> E {
        self.fault.set(Some(fault));
        E::custom(fault)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(self.fail(StrictJsonError::Duplicate));
            }
            let value = map.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_object_is_read_as_serde_json_reads_it() {
        let text = r#"{"a":[1,-2,3.5,null,true,{"b":"c\u00e9"}],"d":{}}"#;
        let plain: Map<String, Value> = serde_json::from_str(text).unwrap();
        assert_eq!(object(text.as_bytes()).unwrap(), plain);
        assert_eq!(object(b"\xef\xbb\xbf {}\n").unwrap(), Map::new());
    }

    #[test]
    fn each_fault_has_its_own_name() {
        let deep = format!("{}1{}", "{\"a\":".repeat(17), "}".repeat(17));
        let cases: [(&[u8], StrictJsonError); 9] = [
            (b"", StrictJsonError::Empty),
            (b" \r\n", StrictJsonError::Empty),
            (b"{\"a\":1,\"a\":1}", StrictJsonError::Duplicate),
            (b"{\"b\":{\"a\":1,\"\\u0061\":2}}", StrictJsonError::Duplicate),
            (deep.as_bytes(), StrictJsonError::TooDeep),
            (b"[]", StrictJsonError::NotAnObject),
            (b"\"secret\"", StrictJsonError::NotAnObject),
            (b"{} {}", StrictJsonError::Syntax { line: 1, column: 4 }),
            (b"<html>", StrictJsonError::Syntax { line: 1, column: 1 }),
        ];
        for (text, fault) in cases {
            assert_eq!(object(text), Err(fault), "{}", String::from_utf8_lossy(text));
        }
        assert!(object(b"{\"a\":1e999}").is_err());
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn faults_repeat_nothing_of_the_text() {
        let fault = object(b"{\"access_token\": s3cr3t}").unwrap_err();
        assert!(!fault.to_string().contains("s3cr3t"), "{fault}");
    }
}
