//! The resource owner password credentials grant (RFC 6749 section 4.3). RFC 9700 section 2.4 has it
//! no more: for authorization servers that offer nothing else.

use std::sync::Arc;

use super::assertion::render;
use super::{Grant, GrantContext, GrantError};
use crate::protocol::secret::Secret;
use crate::protocol::template::{Placeholder, Template};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

/// Its value of `grant_type`, and its name here.
pub(super) const NAME: &str = "password";

/// A resource owner's name and password, as configured or as the call brings them.
#[derive(Debug)]
pub struct Password {
    username: Template,
    password: Template,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    let (username, password) = (settings.take_template("username"), settings.take_template("password"));
    let needed = "the password grant";
    Ok(Arc::new(Password {
        username: username?.ok_or_else(|| SettingsError::missing("username", needed))?,
        password: password?.ok_or_else(|| SettingsError::missing("password", needed))?,
    }))
}

impl Grant for Password {
    fn needs_person(&self) -> bool {
        false
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        self.username.placeholders().chain(self.password.placeholders()).cloned().collect()
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let fill = |what: &'static str, template: &Template| -> Result<Secret, GrantError> {
            let value = render(what, template, context)?;
            // Left out, it would be a request of another kind (RFC 6749 section 4.3.2).
            let missing = GrantError::Missing { grant: NAME, what };
            if value.expose().is_empty() { Err(missing) } else { Ok(value) }
        };
        let mut request = TokenRequest::new(NAME);
        request.param("username", fill("username", &self.username)?);
        request.param("password", fill("password", &self.password)?);
        request.param("scope", context.scopes.to_string());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::tests::{params, with_context};
    use super::*;
    use crate::protocol::secret::Secret;
    use crate::protocol::template::{CallContext, TemplateError};
    use crate::registration::settings::Setting;

    fn grant(username: &str, password: Setting) -> Arc<dyn Grant> {
        let mut settings = Settings::default();
        settings.insert("username", Setting::Value(username.into()));
        settings.insert("password", password);
        build(&mut settings).unwrap()
    }

    #[test]
    fn the_request_is_the_one_of_rfc_6749_section_4_3_2() {
        let grant = grant("johndoe", Setting::Secret("A3ddj{3}w".into()));
        let request = with_context(|context| grant.token_request(&context)).unwrap();
        let expected = [
            ("grant_type", "password"),
            ("username", "johndoe"),
            ("password", "A3ddj{3}w"),
            ("scope", "mail openid"),
        ];
        assert_eq!(params(&request), expected);
        assert!(!grant.needs_person() && grant.placeholders().is_empty());
        assert!(!format!("{grant:?}").contains("A3ddj"), "{grant:?}");
    }

    #[test]
    fn the_call_may_bring_both() {
        let grant = grant("{subject}@example.com", Setting::Value("{header.x-password}token".into()));
        let header = Placeholder::Header("x-password".into());
        assert_eq!(grant.placeholders(), [Placeholder::Subject, header.clone()]);
        let mut call = CallContext::default();
        let ask = |call: &CallContext| {
            with_context(|context| grant.token_request(&GrantContext { call, ..context }))
        };
        let missing = GrantError::Call { what: "password", source: TemplateError::Missing(header.clone()) };
        assert_eq!(ask(&call).unwrap_err(), missing);
        call.values.insert(header, Secret::from("s3cr3t"));
        let request = ask(&call).unwrap();
        assert_eq!(params(&request)[1..3], [("username", "alice@example.com"), ("password", "s3cr3ttoken")]);
    }

    #[test]
    fn both_are_needed_and_neither_is_empty() {
        let refused = build(&mut Settings::default()).unwrap_err();
        assert_eq!(refused.key, "username");
        let mut settings = Settings::default();
        settings.insert("username", Setting::Value("a".into()));
        assert_eq!(build(&mut settings).unwrap_err().key, "password");
        let grant = grant("", Setting::Secret("a".into()));
        let error = with_context(|context| grant.token_request(&context)).unwrap_err();
        assert_eq!(error, GrantError::Missing { grant: NAME, what: "username" });
    }
}
