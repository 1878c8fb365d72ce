//! The resource owner password credentials grant (RFC 6749 section 4.3). RFC 9700 section 2.4 has it
//! no more: for authorization servers that offer nothing else.

use std::sync::Arc;

use super::{Grant, GrantContext, GrantError};
use crate::protocol::secret::Secret;
use crate::protocol::template::{Placeholder, Template};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

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
            let value = template.render(context.subject, context.call);
            let value = value.map_err(|source| GrantError::Call { what, source })?;
            // Left out, it would be a request of another kind (RFC 6749 section 4.3.2).
            let missing = GrantError::Missing { grant: "password", what };
            if value.expose().is_empty() { Err(missing) } else { Ok(value) }
        };
        let mut request = TokenRequest::new("password");
        request.param("username", fill("username", &self.username)?);
        request.param("password", fill("password", &self.password)?);
        request.param("scope", context.scopes.to_string());
        Ok(request)
    }
}
