//! JSON whose texts are templates, so that no value of a call can become structure.

use serde_json::{Map, Value};

use super::identifiers::Subject;
use super::template::{CallContext, Placeholder, Template, TemplateError};

/// A JSON value whose texts are [`Template`]s. Names of members are taken as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTemplate {
    /// A text.
    Text(Template),
    /// An array.
    Array(Vec<Self>),
    /// An object.
    Object(Vec<(String, Self)>),
    /// A number, a truth value or null.
    Other(Value),
}

impl JsonTemplate {
    /// Reads every text in `value` as a template.
    ///
    /// # Errors
    /// [`TemplateError::Brace`], [`TemplateError::Unknown`].
    pub fn parse(value: Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(&text)?),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(members) => {
                let members = members.into_iter().map(|(name, value)| Ok((name, Self::parse(value)?)));
                Self::Object(members.collect::<Result<_, _>>()?)
            }
            other => Self::Other(other),
        })
    }

    /// What has to be known of a call to fill it in.
    pub fn placeholders(&self) -> Vec<Placeholder> {
        match self {
            Self::Text(template) => template.placeholders().cloned().collect(),
            Self::Array(items) => items.iter().flat_map(Self::placeholders).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.placeholders()).collect(),
            Self::Other(_) => Vec::new(),
        }
    }

    /// Fills it in.
    ///
    /// # Errors
    /// [`TemplateError::Missing`].
    pub fn render(&self, subject: &Subject, call: &CallContext) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Text(template) => Value::from(template.render(subject, call)?.expose()),
            Self::Array(items) => {
                items.iter().map(|item| item.render(subject, call)).collect::<Result<Vec<_>, _>>()?.into()
            }
            Self::Object(members) => {
                let members =
                    members.iter().map(|(name, value)| Ok((name.clone(), value.render(subject, call)?)));
                members.collect::<Result<Map<_, _>, _>>()?.into()
            }
            Self::Other(value) => value.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_a_call_never_becomes_structure() {
        let template =
            json!([{ "type": "account", "owner": "{subject}", "limits": { "eur": 50 }, "{{x}}": null }]);
        let template = JsonTemplate::parse(template).unwrap();
        assert_eq!(template.placeholders(), [Placeholder::Subject]);
        let subject = Subject::new(r#"a","admin":"b"#).unwrap();
        let filled = template.render(&subject, &CallContext::default()).unwrap();
        assert_eq!(
            filled,
            json!([{ "type": "account", "owner": r#"a","admin":"b"#, "limits": { "eur": 50 }, "{{x}}": null }])
        );
        assert!(JsonTemplate::parse(json!({ "a": ["{nobody}"] })).is_err());
    }
}
