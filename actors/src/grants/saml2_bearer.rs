//! SAML 2.0 bearer assertions as authorization grants (RFC 7522 section 2.1).
//!
//! The assertion is built and signed here, or somebody else's is sent on: the call's own, or one from
//! the configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use url::Url;
use zeroize::Zeroizing;

use super::assertion::{Audience, render};
use super::{Grant, GrantContext, GrantError};
use crate::protocol::saml::assertion::Assertion;
use crate::protocol::saml::form::Form;
use crate::protocol::saml::{check, new_id, signature};
use crate::protocol::secret::Secret;
use crate::protocol::template::{Placeholder, Template};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};
use crate::registration::signing_keys::SigningKeys;

pub(super) const NAME: &str = "saml2_bearer";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:saml2-bearer";
const LIFETIME: Duration = Duration::from_secs(5 * 60);
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CLOCK_SKEW: Duration = Duration::from_secs(30);
const AUTHN_CONTEXT: &str = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified";

/// Short names of `NameID` formats (SAML Core section 8.3).
const NAME_ID_FORMATS: [(&str, &str); 4] = [
    ("unspecified", "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"),
    ("emailAddress", "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"),
    ("persistent", "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"),
    ("transient", "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"),
];

/// A SAML assertion is exchanged for an access token.
#[derive(Debug)]
pub struct Saml2Bearer {
    source: Source,
    encoding: Encoding,
}

/// Where the assertion comes from.
#[derive(Debug)]
enum Source {
    Built(Box<Issuer>),
    /// The call hands it over.
    Call,
    /// XML from the configuration.
    Given(Secret),
}

/// How the assertion stands in its parameter.
#[derive(Clone, Copy, Debug)]
enum Encoding {
    /// RFC 7522 section 2.1.
    Base64Url,
    /// For servers that know no other.
    Base64,
}

/// What builds assertions.
struct Issuer {
    keys: SigningKeys,
    issuer: Option<String>,
    subject: Template,
    audience: Option<Audience>,
    recipient: Option<String>,
    lifetime: Duration,
    clock_skew: Duration,
    name_id_format: String,
    authn_context: Option<String>,
    attributes: Vec<(String, Vec<Template>)>,
    form: Option<Form>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    let grant = settings.take_table("assertion", grant)?;
    Ok(Arc::new(grant.ok_or_else(|| SettingsError::missing("assertion", "the saml2_bearer grant"))?))
}

fn grant(settings: &mut Settings) -> Result<Saml2Bearer, SettingsError> {
    let encoding = match settings.take_text("encoding")?.as_deref() {
        None | Some("base64url") => Encoding::Base64Url,
        Some("base64") => Encoding::Base64,
        Some(_) => return Err(wrong("encoding", "must be \"base64url\" or \"base64\"")),
    };
    let source = match settings.take_secret("source")? {
        None => Source::Built(Box::new(issuer(settings)?)),
        Some(source) if source.expose() == "header" => Source::Call,
        Some(given) => {
            let xml = check::decode(given.expose());
            let text =
                "must be \"header\", or an assertion from a file or the environment, as XML or in base64";
            Source::Given(Secret::new(xml.map_err(|_| wrong("source", text))?.as_str()))
        }
    };
    Ok(Saml2Bearer { source, encoding })
}

fn issuer(settings: &mut Settings) -> Result<Issuer, SettingsError> {
    let lifetime = settings.take_duration("lifetime")?.unwrap_or(LIFETIME);
    if lifetime > LONGEST_LIFETIME {
        return Err(wrong("lifetime", "must be at most a day; minutes do"));
    }
    let authn_context = match settings.take_text("authn_context")? {
        None => Some(AUTHN_CONTEXT.to_owned()),
        Some(none) if none == "none" => None,
        given => given,
    };
    let form = settings.take_secret("template")?;
    let form = form.map(|text| Form::parse(text.expose())).transpose();
    let form = form.map_err(|error| wrong("template", &error.to_string()))?;
    let attributes = settings.take_templates("attributes")?;
    if form.is_some() && !attributes.is_empty() {
        return Err(wrong("attributes", "have no place in an assertion from a `template`; write them there"));
    }
    let subject = match settings.take_template("subject")? {
        Some(subject) => subject,
        None => Template::parse("{subject}").map_err(|error| wrong("subject", &error.to_string()))?,
    };
    let issuer = Issuer {
        issuer: settings.take_text("issuer")?,
        subject,
        audience: settings.take_text("audience")?.map(Audience::from),
        recipient: settings.take_text("recipient")?,
        lifetime,
        clock_skew: settings.take_duration("clock_skew")?.unwrap_or(CLOCK_SKEW),
        name_id_format: name_id_format(settings.take_text("name_id_format")?)?,
        authn_context,
        attributes,
        form,
        keys: SigningKeys::require(settings, "a SAML assertion")?,
    };
    if issuer.keys.is_managed() {
        let text = "cannot be \"managed\" here: SAML servers are told the key beforehand; give it one";
        return Err(wrong("signing_key", text));
    }
    signature::check_algorithm(&issuer.keys.current())
        .map_err(|error| wrong("signing_alg", &error.to_string()))?;
    Ok(issuer)
}

fn name_id_format(given: Option<String>) -> Result<String, SettingsError> {
    let given = given.unwrap_or_else(|| NAME_ID_FORMATS[0].0.to_owned());
    if let Some((_, format)) = NAME_ID_FORMATS.iter().find(|(short, _)| *short == given) {
        return Ok((*format).to_owned());
    }
    let short: Vec<&str> = NAME_ID_FORMATS.iter().map(|(short, _)| *short).collect();
    let text = format!("must be a URI, or one of {}", short.join(", "));
    Url::parse(&given).map(|_| given).map_err(|_| wrong("name_id_format", &text))
}

fn wrong(key: &str, problem: &str) -> SettingsError {
    SettingsError { key: key.to_owned(), problem: problem.to_owned() }
}

impl Grant for Saml2Bearer {
    fn needs_person(&self) -> bool {
        false
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        let Source::Built(issuer) = &self.source else { return Vec::new() };
        let attributes = issuer.attributes.iter().flat_map(|(_, values)| values);
        let templates = attributes.chain([&issuer.subject]).flat_map(Template::placeholders);
        templates.chain(issuer.form.iter().flat_map(Form::placeholders)).cloned().collect()
    }

    /// In an assertion from a template, anything may name the subject.
    fn subject_placeholders(&self) -> Vec<Placeholder> {
        let Source::Built(issuer) = &self.source else { return Vec::new() };
        let of_form = issuer.form.iter().flat_map(Form::placeholders);
        issuer.subject.placeholders().chain(of_form).cloned().collect()
    }

    fn needs_client_id(&self) -> bool {
        matches!(&self.source, Source::Built(issuer) if issuer.issuer.is_none())
    }

    fn signing_keys(&self) -> Option<&SigningKeys> {
        match &self.source {
            Source::Built(issuer) => Some(&issuer.keys),
            Source::Call | Source::Given(_) => None,
        }
    }

    fn needs_assertion(&self) -> bool {
        matches!(self.source, Source::Call)
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let xml = match &self.source {
            Source::Built(issuer) => issuer.assertion(context)?,
            Source::Call => {
                let given = context.call.assertion.as_ref().ok_or(GrantError::NoAssertion)?;
                let xml = check::decode(given.expose()).map_err(GrantError::CallAssertion)?;
                check::check(&xml, context.now).map_err(GrantError::CallAssertion)?;
                xml
            }
            Source::Given(xml) => {
                check::check(xml.expose(), context.now)?;
                Zeroizing::new(xml.expose().to_owned())
            }
        };
        let mut request = TokenRequest::new(GRANT_TYPE);
        request.param(
            "assertion",
            match self.encoding {
                Encoding::Base64Url => URL_SAFE_NO_PAD.encode(&*xml),
                Encoding::Base64 => STANDARD.encode(&*xml),
            },
        );
        request.param("scope", context.scopes.to_string());
        Ok(request)
    }
}

impl Issuer {
    fn assertion(&self, context: &GrantContext<'_>) -> Result<Zeroizing<String>, GrantError> {
        let subject = render("assertion.subject", &self.subject, context)?;
        let mut attributes = Vec::with_capacity(self.attributes.len());
        for (name, templates) in &self.attributes {
            let mut values = Vec::with_capacity(templates.len());
            for template in templates {
                values.push(render("assertion.attributes", template, context)?.expose().to_owned());
            }
            attributes.push((name.clone(), values));
        }
        let id = new_id(context.entropy);
        let audience = match &self.audience {
            Some(audience) => audience.of(NAME, context)?,
            None => Audience::usual(context),
        };
        let values = Assertion {
            id: &id,
            now: context.now,
            issuer: self.issuer.as_deref().unwrap_or(context.client_id),
            subject: subject.expose(),
            name_id_format: &self.name_id_format,
            recipient: self.recipient.as_deref().unwrap_or(context.token_endpoint.as_str()),
            audience,
            not_before: context.now.before(self.clock_skew),
            not_on_or_after: context.now.after(self.lifetime),
            authn_context: self.authn_context.as_deref(),
            attributes: &attributes,
        };
        let xml = match &self.form {
            Some(form) => form.fill(&values, context.subject, context.call)?,
            None => values.to_xml()?,
        };
        Ok(signature::sign(&xml, &id, &self.keys.current())?)
    }
}

#[cfg(test)]
mod tests;
