//! Texts with placeholders, filled in from a call: `{subject}`, `{caller.name}`, `{header.NAME}`,
//! `{query.NAME}`, `{claim.NAME}`. A brace itself is written twice.

mod call_digest;
mod subject;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use zeroize::Zeroizing;

use super::identifiers::{CallerId, Subject};
use super::scope::ScopeSet;
use super::secret::Secret;

pub use call_digest::CallDigest;
pub use subject::{SubjectFault, SubjectTemplate, SubjectTemplateError};

/// Longest value taken from a call, in bytes.
pub const MAX_VALUE: usize = 1024;

/// Whether a value of a call is taken: not empty, at most [`MAX_VALUE`] bytes, no control characters.
pub fn fits_a_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_VALUE && !text.chars().any(char::is_control)
}

/// Headers that say who calls, and are nobody's to hand on.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "x-api-key", "cookie"];

/// A value that a template asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placeholder {
    /// `{subject}`: whose token it is.
    Subject,
    /// `{caller.name}`: the calling application.
    CallerName,
    /// `{header.NAME}`: a header of the call, in lower case.
    Header(String),
    /// `{query.NAME}`: a parameter of the call's query.
    Query(String),
    /// `{claim.NAME}`: a claim of the caller's JWT.
    Claim(String),
}

impl Placeholder {
    /// Whether the caller writes there what it likes.
    pub fn is_callers_word(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Query(_))
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject => f.write_str("{subject}"),
            Self::CallerName => f.write_str("{caller.name}"),
            Self::Header(name) => write!(f, "{{header.{name}}}"),
            Self::Query(name) => write!(f, "{{query.{name}}}"),
            Self::Claim(name) => write!(f, "{{claim.{name}}}"),
        }
    }
}

/// Why a template cannot be read or filled in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A brace that opens or closes nothing.
    #[error("has a `{{` or `}}` without the other; write it twice to mean the character itself")]
    Brace,
    /// A placeholder that is none.
    #[error(
        "has the unknown placeholder {{{0}}}; known: {{subject}}, {{caller.name}}, {{header.NAME}}, \
         {{query.NAME}}, {{claim.NAME}}; a brace that begins none is written twice"
    )]
    Unknown(String),
    /// A header with the caller's own credential.
    #[error("takes the caller's own credential from the header {0}; it is handed on to nobody")]
    Credential(String),
    /// The call has no such value.
    #[error("the call has no value for {0}")]
    Missing(Placeholder),
}

/// What has to be gathered of a call for its token request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallNeeds {
    /// Values, in order; the subject is not among them.
    pub values: BTreeSet<Placeholder>,
    /// Whether one that the caller writes at will says whose token is asked for.
    pub callers_word_names_subject: bool,
    /// The caller's own JWT.
    pub caller_token: bool,
    /// An assertion that the caller hands over.
    pub assertion: bool,
}

impl CallNeeds {
    /// Whether nothing is needed.
    pub fn is_nothing(&self) -> bool {
        self.values.is_empty() && !self.caller_token && !self.assertion
    }
}

/// What a call brings along for templates, grants and scopes. Only what its profile or route asks for
/// is gathered.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    /// Scopes that the route needs beyond the profile's.
    pub scopes: ScopeSet,
    /// Who calls; `None` for work that no call asked for.
    pub caller: Option<CallerId>,
    /// Values of the call.
    pub values: BTreeMap<Placeholder, Secret>,
    /// The caller's own JWT, for token exchange (RFC 8693).
    pub caller_token: Option<Secret>,
    /// An assertion that the caller handed over (RFC 7521 section 4).
    pub assertion: Option<Secret>,
}

impl CallContext {
    /// Of work that no call asked for.
    pub fn none() -> Arc<Self> {
        Arc::default()
    }

    /// Whether there is a value for `placeholder`.
    ///
    /// # Errors
    /// [`TemplateError::Missing`].
    pub fn has(&self, placeholder: &Placeholder) -> Result<(), TemplateError> {
        let there = match placeholder {
            Placeholder::Subject => true,
            Placeholder::CallerName => self.caller.is_some(),
            other => self.values.contains_key(other),
        };
        if there { Ok(()) } else { Err(TemplateError::Missing(placeholder.clone())) }
    }

    fn value(&self, placeholder: &Placeholder, subject: &Subject) -> Option<Secret> {
        match placeholder {
            Placeholder::Subject => Some(Secret::from(subject.as_str())),
            Placeholder::CallerName => self.caller.as_ref().map(|caller| Secret::from(caller.as_str())),
            other => self.values.get(other).cloned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// May be part of a password.
    Literal(Secret),
    Value(Placeholder),
}

/// A text with placeholders. Its own text is not printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError::Brace`], [`TemplateError::Unknown`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut parts, mut literal) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{").ok_or(TemplateError::Brace)?;
            let placeholder = placeholder(&rest[..end])?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Value(placeholder));
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts))
    }

    /// A text that has no placeholders, whatever is in it.
    pub fn literal(text: Secret) -> Self {
        Self(vec![Part::Literal(text)])
    }

    /// Whether it is empty, whatever the call.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What has to be known of a call to fill it in.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| match part {
            Part::Value(placeholder) => Some(placeholder),
            Part::Literal(_) => None,
        })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// [`TemplateError::Missing`].
    pub fn render(&self, subject: &Subject, call: &CallContext) -> Result<Secret, TemplateError> {
        let mut pieces = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            pieces.push(match part {
                Part::Literal(text) => text.clone(),
                Part::Value(placeholder) => call
                    .value(placeholder, subject)
                    .ok_or_else(|| TemplateError::Missing(placeholder.clone()))?,
            });
        }
        if let [one] = pieces.as_slice() {
            return Ok(one.clone());
        }
        let mut text = Zeroizing::new(String::with_capacity(pieces.iter().map(|p| p.expose().len()).sum()));
        pieces.iter().for_each(|piece| text.push_str(piece.expose()));
        Ok(Secret::new(std::mem::take(&mut *text)))
    }
}

fn placeholder(text: &str) -> Result<Placeholder, TemplateError> {
    let unknown = || TemplateError::Unknown(text.to_owned());
    match text.split_once('.') {
        None if text == "subject" => Ok(Placeholder::Subject),
        Some(("caller", "name")) => Ok(Placeholder::CallerName),
        Some((_, "")) | None => Err(unknown()),
        Some(("header", name)) => {
            let name = http::HeaderName::try_from(name).map_err(|_| unknown())?;
            if CREDENTIALS.contains(&name.as_str()) {
                return Err(TemplateError::Credential(name.to_string()));
            }
            Ok(Placeholder::Header(name.to_string()))
        }
        Some(("query", name)) => Ok(Placeholder::Query(name.to_owned())),
        Some(("claim", name)) => Ok(Placeholder::Claim(name.to_owned())),
        Some(_) => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn alice() -> Subject {
        Subject::new("alice").unwrap()
    }

    fn rendered(text: &str, call: &CallContext) -> Result<String, TemplateError> {
        Template::parse(text)?.render(&alice(), call).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn placeholders_are_filled_in_from_the_call() {
        let call = CallContext {
            caller: Some(CallerId::new("billing").unwrap()),
            values: BTreeMap::from([
                (Placeholder::Header("x-tenant".into()), "acme".into()),
                (Placeholder::Claim("email".into()), "a@acme.example".into()),
            ]),
            ..CallContext::default()
        };
        let text = "{caller.name}/{header.X-Tenant}/{subject}@{claim.email}";
        assert_eq!(rendered(text, &call).unwrap(), "billing/acme/alice@a@acme.example");
        assert_eq!(rendered("{subject}", &call).unwrap(), "alice");
        assert_eq!(rendered("", &call).unwrap(), "");
        let missing = TemplateError::Missing(Placeholder::Query("x".into()));
        assert_eq!(rendered("{query.x}", &call), Err(missing));
    }

    #[test]
    fn braces_are_written_twice_and_must_match() {
        let call = CallContext::default();
        assert_eq!(rendered("a{{b}}c{{{subject}}}", &call).unwrap(), "a{b}c{alice}");
        for text in ["{", "}", "{subject", "subject}", "a}b{"] {
            assert_eq!(rendered(text, &call), Err(TemplateError::Brace), "{text}");
        }
        for text in ["{}", "{user}", "{header.}", "{caller.id}", "{token.x}"] {
            assert!(matches!(rendered(text, &call), Err(TemplateError::Unknown(_))), "{text}");
        }
    }

    #[test]
    fn the_callers_own_credential_is_no_value() {
        for text in ["{header.Authorization}", "{header.x-api-key}", "{header.cookie}"] {
            assert!(matches!(Template::parse(text), Err(TemplateError::Credential(_))), "{text}");
        }
        assert!(matches!(Template::parse("{header.a b}"), Err(TemplateError::Unknown(_))));
    }

    #[test]
    fn a_literal_is_not_read_and_not_printed() {
        let template = Template::literal("p{ss}word".into());
        let text = template.render(&alice(), &CallContext::default()).unwrap();
        assert_eq!(text.expose(), "p{ss}word");
        assert_eq!(template.placeholders().count(), 0);
        let parsed = Template::parse("planted{subject}").unwrap();
        assert!(!format!("{template:?}{parsed:?}").contains("p{ss}word"));
        assert!(!format!("{parsed:?}").contains("planted"));
    }

    #[test]
    fn what_is_filled_in_is_not_read_again() {
        let values = BTreeMap::from([(Placeholder::Header("x".into()), "{subject}".into())]);
        let call = CallContext { values, ..CallContext::default() };
        assert_eq!(rendered("{header.x}", &call).unwrap(), "{subject}");
    }
}
