//! Templates that name whose token a call uses.

use std::collections::BTreeSet;

use thiserror::Error;

use super::super::identifiers::{NameError, Subject};
use super::{CallContext, Part, Placeholder, Template, TemplateError};

/// Why a text cannot name subjects.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubjectTemplateError {
    /// It is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// `{subject}` is what it is to say.
    #[error("names the subject by itself; {{subject}} has no meaning here")]
    Itself,
    /// Every call would have the same.
    #[error("takes nothing from the call; use \"shared\" for one connection of all callers")]
    Constant,
    /// Nobody could tell where one value ends and the next begins.
    #[error("has two placeholders side by side; write something between them, such as `/`")]
    Adjacent,
    /// Values are told apart by percent-encoding.
    #[error("has a `%` between its placeholders, which tells their values apart; write something else")]
    Percent,
}

/// Why a call names no subject.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubjectFault {
    /// A value is missing.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// What comes of the values is no name.
    #[error("the subject that the call names {0}")]
    Name(#[from] NameError),
}

/// A template of subjects. With several placeholders, `%` and the characters of the text between them
/// are percent-encoded in their values, so that two sets of values never give one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectTemplate {
    text: String,
    template: Template,
    /// What is encoded in values; nothing if there is only one.
    reserved: BTreeSet<char>,
}

impl SubjectTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`SubjectTemplateError`].
    pub fn parse(text: &str) -> Result<Self, SubjectTemplateError> {
        let template = Template::parse(text)?;
        let count = template.placeholders().count();
        if count == 0 {
            return Err(SubjectTemplateError::Constant);
        }
        if template.placeholders().any(|placeholder| *placeholder == Placeholder::Subject) {
            return Err(SubjectTemplateError::Itself);
        }
        if template.0.windows(2).any(|parts| matches!(parts, [Part::Value(_), Part::Value(_)])) {
            return Err(SubjectTemplateError::Adjacent);
        }
        let mut reserved = BTreeSet::new();
        if count > 1 {
            for part in &template.0 {
                if let Part::Literal(literal) = part {
                    reserved.extend(literal.expose().chars());
                }
            }
            if !reserved.insert('%') {
                return Err(SubjectTemplateError::Percent);
            }
        }
        Ok(Self { text: text.to_owned(), template, reserved })
    }

    /// As it is written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What has to be known of a call.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.template.placeholders()
    }

    /// The subject that `call` names.
    ///
    /// # Errors
    /// [`SubjectFault`].
    pub fn render(&self, call: &CallContext) -> Result<Subject, SubjectFault> {
        let mut name = String::new();
        for part in &self.template.0 {
            match part {
                Part::Literal(text) => name.push_str(text.expose()),
                Part::Value(placeholder) => {
                    // `{subject}` is never among them.
                    let value = call.value(placeholder, &Subject::shared());
                    let value = value.ok_or_else(|| TemplateError::Missing(placeholder.clone()))?;
                    self.encode(value.expose(), &mut name);
                }
            }
        }
        Ok(Subject::new(&name)?)
    }

    fn encode(&self, value: &str, out: &mut String) {
        use std::fmt::Write as _;
        for c in value.chars() {
            if self.reserved.contains(&c) {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(out, "%{byte:02X}");
                }
            } else {
                out.push(c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::identifiers::CallerId;
    use crate::protocol::secret::Secret;

    fn call(values: &[(&str, &str)]) -> CallContext {
        let value = |(name, value): &(&str, &str)| (Placeholder::Query((*name).into()), Secret::from(*value));
        CallContext {
            caller: Some(CallerId::new("billing").unwrap()),
            values: values.iter().map(value).collect::<BTreeMap<_, _>>(),
            ..CallContext::default()
        }
    }

    fn subject(template: &str, values: &[(&str, &str)]) -> String {
        SubjectTemplate::parse(template).unwrap().render(&call(values)).unwrap().as_str().to_owned()
    }

    #[test]
    fn a_single_value_stays_as_it_is_and_several_are_told_apart() {
        assert_eq!(subject("{query.a}", &[("a", "x/y%z")]), "x/y%z");
        assert_eq!(subject("user-{query.a}", &[("a", "x-y")]), "user-x-y");
        assert_eq!(subject("{caller.name}/{query.a}", &[("a", "x/y%z")]), "billing/x%2Fy%25z");
        assert_eq!(subject("{query.a}·{query.b}", &[("a", "x·y"), ("b", "z")]), "x%C2%B7y·z");
    }

    #[test]
    fn what_is_missing_or_no_name_is_told() {
        let template = SubjectTemplate::parse("{query.a}").unwrap();
        let missing = TemplateError::Missing(Placeholder::Query("a".into()));
        assert_eq!(template.render(&call(&[])), Err(SubjectFault::Template(missing)));
        let long = "x".repeat(300);
        assert_eq!(template.render(&call(&[("a", &long)])), Err(SubjectFault::Name(NameError::TooLong)));
    }

    #[test]
    fn templates_that_could_mean_two_things_are_refused() {
        use SubjectTemplateError as E;
        let parse = |text| SubjectTemplate::parse(text).unwrap_err();
        assert_eq!(parse("{query.a}{query.b}"), E::Adjacent);
        assert_eq!(parse("{query.a}%{query.b}"), E::Percent);
        assert_eq!(parse("{subject}"), E::Itself);
        assert_eq!(parse("{{fixed}}"), E::Constant);
        assert!(matches!(parse("{query.a"), E::Template(TemplateError::Brace)));
        assert!(SubjectTemplate::parse("100%-{query.a}").is_ok(), "nothing to tell apart");
    }

    proptest! {
        #[test]
        fn no_two_sets_of_values_give_one_subject(
            template in prop::sample::select(vec!["{query.a}/{query.b}", "2{query.a}25{query.b}F", "{query.a}·{query.b}"]),
            one in ("[a2F5%/·]{1,4}", "[a2F5%/·]{1,4}"),
            two in ("[a2F5%/·]{1,4}", "[a2F5%/·]{1,4}"),
        ) {
            prop_assume!(one != two);
            let of = |(a, b): &(String, String)| subject(template, &[("a", a), ("b", b)]);
            prop_assert_ne!(of(&one), of(&two));
        }
    }
}
