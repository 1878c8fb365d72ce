//! How a profile asks a person: what goes into its authorization requests, and how they are sent.

use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::signing_keys::SigningKeys;
use crate::protocol::identifiers::Subject;
use crate::protocol::json_template::JsonTemplate;
use crate::protocol::template::{CallContext, Placeholder, Template, TemplateError};

/// The signature algorithms that FAPI 2.0 allows (Security Profile section 5.4.1).
pub const FAPI_ALGORITHMS: [&str; 3] = ["PS256", "ES256", "EdDSA"];

/// How a profile asks a person. The default is a plain request in the query.
#[derive(Clone, Debug, Default)]
pub struct AuthorizationOptions {
    /// Whether requests are pushed (RFC 9126); so they are where the server requires it.
    pub pushed: bool,
    /// The keys that request objects are signed with (RFC 9101), if requests are signed.
    pub request_object: Option<SigningKeys>,
    /// Whether only the algorithms of FAPI 2.0 are believed: PS256, ES256 and EdDSA.
    pub fapi_algorithms_only: bool,
    /// Whether `iss` must be in every response (RFC 9207), announced or not.
    pub require_iss: bool,
    /// How long ago the person may have logged in, in whole seconds (OpenID Connect Core section
    /// 3.1.2.1).
    pub max_age: Option<Duration>,
    /// OpenID Connect Core section 3.1.2.1.
    pub acr_values: Option<Template>,
    /// OpenID Connect Core section 3.1.2.1.
    pub prompt: Option<Template>,
    /// OpenID Connect Core section 3.1.2.1.
    pub login_hint: Option<Template>,
    /// An object (OpenID Connect Core section 5.5).
    pub claims: Option<JsonTemplate>,
    /// An array of objects, each with its `type` (RFC 9396 section 2).
    pub authorization_details: Option<JsonTemplate>,
    /// Where the tokens will be used (RFC 8707 section 2): also sent with every token request.
    pub resources: Vec<String>,
}

/// A profile's key wants something of a call that the call, or a connect link, does not have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {source}")]
pub struct OptionsError {
    /// The key.
    pub key: &'static str,
    /// What is missing.
    pub source: TemplateError,
}

impl AuthorizationOptions {
    /// The parameters of an authorization request for `subject`, in order.
    ///
    /// # Errors
    /// A placeholder has no value.
    pub fn params(
        &self,
        subject: &Subject,
        call: &CallContext,
    ) -> Result<Vec<(&'static str, String)>, OptionsError> {
        let mut params = Vec::new();
        for (key, template) in self.texts() {
            let text = template.render(subject, call).map_err(|source| OptionsError { key, source })?;
            params.push((key, text.expose().to_owned()));
        }
        params.extend(self.max_age.map(|age| ("max_age", age.as_secs().to_string())));
        for (key, template) in self.documents() {
            let value = template.render(subject, call).map_err(|source| OptionsError { key, source })?;
            params.push((key, value.to_string()));
        }
        params.extend(self.resources.iter().map(|resource| ("resource", resource.clone())));
        Ok(params)
    }

    /// `authorization_details` as a token request without a person has it (RFC 9396 section 6).
    ///
    /// # Errors
    /// A placeholder has no value.
    pub fn details(&self, subject: &Subject, call: &CallContext) -> Result<Option<String>, OptionsError> {
        let key = "authorization_details";
        let details = self.authorization_details.as_ref().map(|details| details.render(subject, call));
        let details = details.transpose().map_err(|source| OptionsError { key, source })?;
        Ok(details.map(|details| details.to_string()))
    }

    /// What has to be known of a call for `authorization_details`. All the others know its subject alone:
    /// a connect link comes without a call.
    pub fn placeholders(&self) -> Vec<Placeholder> {
        self.authorization_details.as_ref().map(JsonTemplate::placeholders).unwrap_or_default()
    }

    /// The values of `acr` that the ID token must have one of, if `claims` calls it essential (OpenID
    /// Connect Core section 5.5.1.1): its own there, or `acr_values`; none stand for any.
    pub fn essential_acr(&self, subject: &Subject) -> Option<Vec<String>> {
        let call = CallContext::default();
        let claims = self.claims.as_ref()?.render(subject, &call).ok()?;
        let wish = claims.get("id_token")?.get("acr")?;
        if wish.get("essential") != Some(&Value::Bool(true)) {
            return None;
        }
        let listed = wish.get("values").and_then(Value::as_array);
        let own = listed.into_iter().flatten().chain(wish.get("value"));
        let own: Vec<String> = own.filter_map(Value::as_str).map(str::to_owned).collect();
        if !own.is_empty() {
            return Some(own);
        }
        let values = self.acr_values.as_ref().and_then(|values| values.render(subject, &call).ok());
        Some(values.iter().flat_map(|values| values.expose().split_whitespace()).map(str::to_owned).collect())
    }

    fn texts(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        let texts =
            [("acr_values", &self.acr_values), ("prompt", &self.prompt), ("login_hint", &self.login_hint)];
        texts.into_iter().filter_map(|(key, template)| Some((key, template.as_ref()?)))
    }

    fn documents(&self) -> impl Iterator<Item = (&'static str, &JsonTemplate)> {
        let documents = [("claims", &self.claims), ("authorization_details", &self.authorization_details)];
        documents.into_iter().filter_map(|(key, template)| Some((key, template.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_know_the_subject_and_what_a_link_lacks_is_named() {
        let options = AuthorizationOptions {
            login_hint: Some(Template::parse("{subject}@corp.example").unwrap()),
            max_age: Some(Duration::from_secs(300)),
            authorization_details: Some(JsonTemplate::parse(json!([{ "type": "a" }])).unwrap()),
            resources: vec!["https://a.example/".into(), "https://b.example/".into()],
            ..AuthorizationOptions::default()
        };
        let alice = Subject::new("alice").unwrap();
        let params = options.params(&alice, &CallContext::default()).unwrap();
        let expected = [
            ("login_hint", "alice@corp.example"),
            ("max_age", "300"),
            ("authorization_details", r#"[{"type":"a"}]"#),
            ("resource", "https://a.example/"),
            ("resource", "https://b.example/"),
        ];
        assert_eq!(params, expected.map(|(name, value)| (name, value.to_owned())));

        let acr_values = Some(Template::parse("{header.x-acr}").unwrap());
        let options = AuthorizationOptions { acr_values, ..options };
        let error = options.params(&alice, &CallContext::default()).unwrap_err();
        assert_eq!(error.to_string(), "acr_values: the call has no value for {header.x-acr}");
    }

    #[test]
    fn an_essential_acr_is_one_of_its_own_values_or_of_acr_values() {
        let alice = Subject::new("alice").unwrap();
        let essential = |acr: Value, values: Option<&str>| {
            let options = AuthorizationOptions {
                claims: Some(JsonTemplate::parse(json!({ "id_token": { "acr": acr } })).unwrap()),
                acr_values: values.map(|values| Template::parse(values).unwrap()),
                ..AuthorizationOptions::default()
            };
            options.essential_acr(&alice)
        };
        let some = |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect());
        assert_eq!(essential(json!({ "essential": true }), Some("a b")), some(&["a", "b"]));
        assert_eq!(essential(json!({ "essential": true, "value": "c" }), Some("a b")), some(&["c"]));
        assert_eq!(essential(json!({ "essential": true, "values": ["c", "d"] }), None), some(&["c", "d"]));
        assert_eq!(essential(json!({ "essential": true }), None), some(&[]));
        assert_eq!(essential(json!({ "essential": false }), Some("a b")), None);
        assert_eq!(essential(Value::Null, Some("a b")), None);
        assert_eq!(AuthorizationOptions::default().essential_acr(&alice), None);
    }
}
