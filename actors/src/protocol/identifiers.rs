//! Names that must not be mistaken for one another.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameError {
    /// Names have at least one character.
    #[error("is empty")]
    Empty,
    /// Names have at most [`MAX_NAME`] bytes.
    #[error("is longer than {MAX_NAME} bytes")]
    TooLong,
    /// Control characters would corrupt logs and headers.
    #[error("contains a control character")]
    ControlCharacter,
}

/// Longest name accepted, in bytes.
pub const MAX_NAME: usize = 255;

fn checked(name: &str) -> Result<Arc<str>, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter);
    }
    Ok(Arc::from(name))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `name`: not empty, at most [`MAX_NAME`] bytes, no control characters.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked(name).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type!(
    /// A profile: a provider plus one registered client, by its key in the configuration.
    ProfileId
);
name_type!(
    /// A route, by its key in the configuration.
    RouteId
);
name_type!(
    /// A caller (an internal application), by its key in the configuration.
    CallerId
);
name_type!(
    /// Whose token it is: the resource owner, by the name the gateway knows.
    Subject
);

impl Subject {
    /// The subject of a route whose callers all share one connection.
    pub fn shared() -> Self {
        Self(Arc::from("shared"))
    }
}

impl From<&CallerId> for Subject {
    fn from(caller: &CallerId) -> Self {
        Self(caller.0.clone())
    }
}

/// A connection: one profile and one subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId {
    /// The profile that obtained the token set.
    pub profile: ProfileId,
    /// Whose token set it is.
    pub subject: Subject,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.profile, self.subject)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_are_not_empty_not_long_and_have_no_control_character() {
        assert_eq!(Subject::new(""), Err(NameError::Empty));
        assert_eq!(Subject::new(&"x".repeat(256)), Err(NameError::TooLong));
        for bad in ["a\nb", "\0", "\u{85}"] {
            assert_eq!(Subject::new(bad), Err(NameError::ControlCharacter));
        }
        assert_eq!(Subject::new("Älice@example.com").unwrap().as_str(), "Älice@example.com");
        assert!(Subject::new(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_stored_name_is_checked_when_read_back() {
        let id = ConnectionId { profile: ProfileId::new("p").unwrap(), subject: Subject::shared() };
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, r#"{"profile":"p","subject":"shared"}"#);
        assert_eq!(serde_json::from_str::<ConnectionId>(&text).unwrap(), id);
        assert!(serde_json::from_str::<ConnectionId>(r#"{"profile":"","subject":"a"}"#).is_err());
        assert_eq!(id.to_string(), "p/shared");
    }
}
