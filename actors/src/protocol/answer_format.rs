//! Where an authorization server's answers depart from RFC 6749 section 5, as data.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use thiserror::Error;

use super::strict_json::{self, StrictJsonError};
use super::token_error::CodeMeaning;

/// Deepest path to a member.
const MAX_STEPS: usize = 8;

/// Names from the outermost object inwards; in the configuration joined by dots. A number counts
/// entries of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPath(pub Vec<String>);

/// A text that is no path to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("must be a member's name, or names joined by dots, such as \"authed_user.access_token\"")]
pub struct MemberPathError;

impl MemberPath {
    /// Reads names joined by dots.
    ///
    /// # Errors
    /// [`MemberPathError`] if a name is empty, or if there are more than 8.
    pub fn parse(text: &str) -> Result<Self, MemberPathError> {
        let steps: Vec<String> = text.split('.').map(str::to_owned).collect();
        let bad = |step: &String| step.is_empty() || step.chars().any(char::is_control);
        if steps.len() > MAX_STEPS || steps.iter().any(bad) {
            return Err(MemberPathError);
        }
        Ok(Self(steps))
    }

    /// The value there.
    pub fn find<'m>(&self, members: &'m Map<String, Value>) -> Option<&'m Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(members.get(first)?, |value, step| match value {
            Value::Object(inner) => inner.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Moves the value out of there.
    fn take(&self, members: &mut Map<String, Value>) -> Option<Value> {
        let (first, rest) = self.0.split_first()?;
        let found = rest.iter().try_fold(members.get_mut(first)?, |value, step| match value {
            Value::Object(inner) => inner.get_mut(step),
            Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
            _ => None,
        });
        found.map(Value::take)
    }
}

/// Where members of a token answer are; `None` for their usual place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseMembers {
    /// The access token.
    pub access_token: Option<MemberPath>,
    /// The refresh token.
    pub refresh_token: Option<MemberPath>,
    /// Its lifetime.
    pub expires_in: Option<MemberPath>,
    /// The scope granted.
    pub scope: Option<MemberPath>,
    /// The token's type.
    pub token_type: Option<MemberPath>,
    /// The error code.
    pub error: Option<MemberPath>,
    /// What the error is, in words.
    pub error_description: Option<MemberPath>,
}

impl ResponseMembers {
    /// The members of an answer that brings tokens, by their usual names.
    fn of_tokens(&self) -> [(&'static str, &Option<MemberPath>); 5] {
        [
            ("access_token", &self.access_token),
            ("refresh_token", &self.refresh_token),
            ("expires_in", &self.expires_in),
            ("scope", &self.scope),
            ("token_type", &self.token_type),
        ]
    }
}

/// How one server's answers are read. The default is RFC 6749's form.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnswerFormat<'a> {
    /// Where members are.
    pub members: Option<&'a ResponseMembers>,
    /// Between scopes, beside the space.
    pub scope_separator: Option<char>,
    /// Further values of `token_type` that mean bearer.
    pub token_types: &'a [String],
    /// What the server's own error codes mean.
    pub error_meanings: Option<&'a BTreeMap<String, CodeMeaning>>,
}

impl AnswerFormat<'_> {
    /// What the server's own code means, if that was said.
    pub(super) fn own_meaning(&self, code: &str) -> Option<CodeMeaning> {
        self.error_meanings?.get(code).copied()
    }

    /// Whether the member `name` is what this server wraps its tokens in. What else is in there is
    /// about them, and may hold more of them.
    pub(super) fn is_envelope(&self, name: &str) -> bool {
        let at = self.members.into_iter().flat_map(ResponseMembers::of_tokens);
        at.filter_map(|(_, path)| path.as_ref()).any(|path| path.0.len() > 1 && path.0[0] == name)
    }

    /// Moves members from where this server has them to where RFC 6749 section 5.1 has them. What is
    /// not found stays: some servers answer a refresh in the usual form.
    pub(super) fn normalize(&self, members: &mut Map<String, Value>) {
        let Some(at) = self.members else { return };
        for (name, path) in at.of_tokens() {
            let found = path.as_ref().and_then(|path| path.take(members)).filter(|value| !value.is_null());
            if let Some(value) = found
                && let Some(mut old) = members.insert(name.to_owned(), value)
            {
                strict_json::wipe(&mut old);
            }
        }
    }
}

/// The members of an answer: a JSON object, or a form, which some servers send unasked. A form is
/// believed if it calls itself one, or if it is no JSON and names a token or an error.
pub(super) fn members_of(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, StrictJsonError> {
    let fault = match strict_json::object(body) {
        Ok(members) => return Ok(members),
        Err(fault @ (StrictJsonError::Syntax { .. } | StrictJsonError::NotAnObject)) => fault,
        Err(fault) => return Err(fault),
    };
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = said.split(';').next().unwrap_or_default().trim();
    let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    match form(body)? {
        Some(members) if is_form || members.contains_key("access_token") || members.contains_key("error") => {
            Ok(members)
        }
        Some(mut members) => {
            members.values_mut().for_each(strict_json::wipe);
            Err(fault)
        }
        None => Err(fault),
    }
}

/// Reads a form whose names are such as OAuth has; anything else, such as a page, is none.
fn form(body: &[u8]) -> Result<Option<Map<String, Value>>, StrictJsonError> {
    let named = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let text = body.trim_ascii();
    let mut members = Map::new();
    for (name, value) in url::form_urlencoded::parse(text) {
        if name.is_empty() || name.len() > 64 || !name.chars().all(named) {
            members.values_mut().for_each(strict_json::wipe);
            return Ok(None);
        }
        if let Some(mut old) = members.insert(name.into_owned(), Value::String(value.into_owned())) {
            strict_json::wipe(&mut old);
            members.values_mut().for_each(strict_json::wipe);
            return Err(StrictJsonError::Duplicate);
        }
    }
    Ok(Some(members))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn read(kind: &'static str, body: &str) -> Result<Value, StrictJsonError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        members_of(&headers, body.as_bytes()).map(Value::Object)
    }

    #[test]
    fn a_form_is_read_whatever_it_calls_itself() {
        let expected = json!({"access_token": "a+b", "scope": "repo,gist", "token_type": "bearer"});
        let form = "access_token=a%2Bb&scope=repo%2Cgist&token_type=bearer\n";
        for kind in [
            "application/x-www-form-urlencoded; charset=utf-8",
            "text/plain",
            "text/html",
            "application/json",
        ] {
            assert_eq!(read(kind, form).unwrap(), expected, "{kind}");
        }
        assert_eq!(read("text/plain", "{\"error\":\"x\"}").unwrap(), json!({"error": "x"}));
        let own = read("application/x-www-form-urlencoded", "code=5").unwrap();
        assert_eq!(own, json!({"code": "5"}));
    }

    #[test]
    fn what_only_looks_like_a_form_is_none() {
        for body in [
            "<a href=\"/login?a=b&error=c\">",
            "state=1&code=2",
            "not found",
            "error =1",
            "\"access_token=1\"",
            "[1]",
        ] {
            assert!(read("text/html", body).is_err(), "{body}");
        }
        assert_eq!(read("text/plain", "error=1&error=2"), Err(StrictJsonError::Duplicate));
        assert_eq!(read("application/x-www-form-urlencoded", ""), Err(StrictJsonError::Empty));
    }

    #[test]
    fn a_path_leads_through_objects_and_arrays() {
        let value = json!({"a": {"b": [{"c": 1}]}});
        let members = value.as_object().unwrap();
        assert_eq!(MemberPath::parse("a.b.0.c").unwrap().find(members), Some(&json!(1)));
        for path in ["a.b.1.c", "a.x", "a.b.c", "a.b.0.c.d", "b"] {
            assert_eq!(MemberPath::parse(path).unwrap().find(members), None, "{path}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a\n", "a.a.a.a.a.a.a.a.a"] {
            assert_eq!(MemberPath::parse(bad), Err(MemberPathError), "{bad:?}");
        }
    }

    #[test]
    fn members_are_moved_to_their_usual_place() {
        let at = |path| Some(MemberPath::parse(path).unwrap());
        let members = ResponseMembers {
            access_token: at("user.token"),
            expires_in: at("lifetime"),
            scope: at("scopes"),
            ..ResponseMembers::default()
        };
        let format = AnswerFormat { members: Some(&members), ..AnswerFormat::default() };
        let mut answer = json!({"access_token": "bot", "user": {"id": 1, "token": "t"}, "lifetime": 5});
        format.normalize(answer.as_object_mut().unwrap());
        let expected = json!({
            "access_token": "t", "user": {"id": 1, "token": null}, "lifetime": null, "expires_in": 5
        });
        assert_eq!(answer, expected);
    }
}
