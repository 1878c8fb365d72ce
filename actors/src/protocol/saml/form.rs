//! An assertion in the operator's own form: XML with placeholders, for servers that want more than
//! RFC 7522 asks for.

use super::assertion::Assertion;
use super::{In, SamlError, escape, issuer, parse, root};
use crate::protocol::identifiers::Subject;
use crate::protocol::template::{CallContext, Placeholder, Template, TemplateError};

/// Placeholders that the assertion itself fills, besides those of every [`Template`].
const OWN: [&str; 10] = [
    "id",
    "now",
    "issuer",
    "subject",
    "name_id_format",
    "recipient",
    "audience",
    "not_before",
    "not_on_or_after",
    "authn_context",
];

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Own(&'static str),
    Call(Template),
}

/// An assertion with placeholders, in text and in attribute values.
#[derive(Clone, Debug)]
pub struct Form(Vec<Part>);

impl Form {
    /// Reads a form. Its values are only known later, but what is sure to fail then is told now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SamlError> {
        let document = parse(text)?;
        let root = root(&document)?;
        issuer(root)?;
        // What stands around it, such as an XML declaration, is no part of it.
        let element = &text[root.range()];
        let (mut parts, mut rest) = (Vec::new(), element);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            // A brace that is written twice, or one that is wrong, is the template's to judge.
            let end = if from.starts_with("{{") || from.starts_with("}}") {
                2
            } else {
                from.find('}').filter(|_| from.starts_with('{')).ok_or(TemplateError::Brace)? + 1
            };
            parts.push(Part::Literal(before.to_owned()));
            let own = from.get(1..end - 1).and_then(|name| OWN.iter().find(|own| **own == name));
            parts.push(match own {
                Some(own) => Part::Own(own),
                None => Part::Call(Template::parse(&from[..end])?),
            });
            rest = &from[end..];
        }
        parts.push(Part::Literal(rest.to_owned()));
        Ok(Self(parts))
    }

    /// What has to be known of a call to fill it in.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        let of_call = self.0.iter().filter_map(|part| match part {
            Part::Call(template) => Some(template),
            _ => None,
        });
        of_call.flat_map(Template::placeholders)
    }

    /// Fills it in. Every value is escaped: none can become markup.
    ///
    /// # Errors
    /// [`SamlError::Form`] if the call lacks a value, [`SamlError::Character`].
    pub fn fill(
        &self,
        values: &Assertion<'_>,
        subject: &Subject,
        call: &CallContext,
    ) -> Result<String, SamlError> {
        let mut xml = String::with_capacity(4096);
        for part in &self.0 {
            match part {
                Part::Literal(text) => xml.push_str(text),
                Part::Own(name) => escape(&own(values, name), name, In::Either, &mut xml)?,
                Part::Call(template) => {
                    let value = template.render(subject, call)?;
                    escape(value.expose(), "a value of the call", In::Either, &mut xml)?;
                }
            }
        }
        Ok(xml)
    }
}

fn own(values: &Assertion<'_>, name: &str) -> String {
    match name {
        "id" => values.id.to_owned(),
        "now" => values.now.to_string(),
        "issuer" => values.issuer.to_owned(),
        "subject" => values.subject.to_owned(),
        "name_id_format" => values.name_id_format.to_owned(),
        "recipient" => values.recipient.to_owned(),
        "audience" => values.audience.to_owned(),
        "not_before" => values.not_before.to_string(),
        "not_on_or_after" => values.not_on_or_after.to_string(),
        _ => values.authn_context.unwrap_or_default().to_owned(),
    }
}
