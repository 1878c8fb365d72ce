//! What a call brings along: whose token it uses, and what the token request is filled in from.

use std::collections::BTreeMap;
use std::sync::Arc;

use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::template::{
    CallContext, MAX_VALUE, Placeholder, SubjectTemplate, fits_a_value,
};
use claviger_actors::proxy::route::{Route, SubjectSource};

use super::Desk;
use super::asked::Asked;
use super::gateway::ProxyGateway;
use crate::caller_auth::AuthenticatedCaller;
use crate::caller_auth::jwt::bearer_token;

/// Longest assertion taken from a call, in bytes.
const MAX_ASSERTION: usize = 16 * 1024;

/// Whose token a call uses, and what it brings along for it. An error says what is missing.
pub(super) fn gather<G: ProxyGateway>(
    desk: &Desk<G>,
    asked: &Asked<'_>,
    caller: &AuthenticatedCaller,
    route: &Route,
) -> Result<(Subject, Arc<CallContext>), String> {
    let subject = match &route.subject {
        SubjectSource::Caller => Subject::from(&caller.caller.id),
        SubjectSource::Shared => desk.shared_subject.clone(),
        SubjectSource::Header => named_subject(asked)?,
        SubjectSource::Jwt => jwt_subject(caller)?,
        SubjectSource::Template(template) => templated_subject(template, asked, caller)?,
    };
    if route.needs.is_nothing() {
        return Ok((subject, route.context.clone()));
    }
    let context = context(asked, caller, route)?;
    let subject = told_apart(desk, subject, &context, caller, route)?;
    Ok((subject, Arc::new(context)))
}

fn named_subject(asked: &Asked<'_>) -> Result<Subject, String> {
    let name = single(asked.subjects(), "Claviger-Subject")?
        .ok_or("send Claviger-Subject with the name of the person it is for")?;
    Subject::new(name).map_err(|error| format!("Claviger-Subject {error}"))
}

fn jwt_subject(caller: &AuthenticatedCaller) -> Result<Subject, String> {
    let token =
        caller.token.as_ref().ok_or("the subject is that of the caller's JWT; send one as a bearer token")?;
    let subject = token.subject.clone();
    subject.ok_or_else(|| "the caller's JWT has no claim that can name its subject".to_owned())
}

fn templated_subject(
    template: &SubjectTemplate,
    asked: &Asked<'_>,
    caller: &AuthenticatedCaller,
) -> Result<Subject, String> {
    let values = values(template.placeholders(), asked, caller)?;
    let context = CallContext { caller: Some(caller.caller.id.clone()), values, ..CallContext::default() };
    template.render(&context).map_err(|fault| fault.to_string())
}

fn context(asked: &Asked<'_>, caller: &AuthenticatedCaller, route: &Route) -> Result<CallContext, String> {
    let needs = &route.needs;
    let mut context = CallContext {
        caller: Some(caller.caller.id.clone()),
        values: values(needs.values.iter(), asked, caller)?,
        ..CallContext::clone(&route.context)
    };
    if needs.caller_token {
        let sent = caller.token.as_ref().and_then(|_| bearer_token(asked.headers()));
        let text = sent.and_then(|token| std::str::from_utf8(token).ok());
        let token =
            text.ok_or("the caller's JWT is exchanged for the API's token; send one as a bearer token")?;
        context.caller_token = Some(Secret::from(token));
    }
    if needs.assertion {
        context.assertion = Some(assertion(asked)?);
    }
    Ok(context)
}

fn assertion(asked: &Asked<'_>) -> Result<Secret, String> {
    let text = single(asked.assertions(), "Claviger-Assertion")?.ok_or("send Claviger-Assertion")?;
    if text.is_empty() || text.len() > MAX_ASSERTION || text.chars().any(char::is_control) {
        return Err(format!("Claviger-Assertion must not be empty, nor longer than {MAX_ASSERTION} bytes"));
    }
    Ok(Secret::from(text))
}

/// The subject of a connection whose token is obtained with what the call brings along: a token is used
/// again only for calls with the same.
fn told_apart<G: ProxyGateway>(
    desk: &Desk<G>,
    subject: Subject,
    context: &CallContext,
    caller: &AuthenticatedCaller,
    route: &Route,
) -> Result<Subject, String> {
    let needs = &route.needs;
    let token = caller.token.as_deref().filter(|_| needs.caller_token && !route.subject_names_jwt);
    if needs.values.is_empty() && !needs.assertion && token.is_none() {
        return Ok(subject);
    }
    let names: Vec<String> = needs.values.iter().map(ToString::to_string).collect();
    let value = |placeholder| match placeholder {
        &Placeholder::CallerName => Some(caller.caller.id.as_str()),
        other => context.values.get(other).map(Secret::expose),
    };
    let values = names.iter().zip(&needs.values);
    let values = values.filter_map(|(name, placeholder)| Some((name.as_str(), value(placeholder)?)));
    let whose = token.into_iter().flat_map(|token| {
        let subject = token.subject.as_ref().map_or("", Subject::as_str);
        [("issuer", token.issuer.as_str()), ("subject", subject)]
    });
    let assertion = context.assertion.iter().map(|assertion| ("assertion", assertion.expose()));
    let told = desk.digest.tell_apart(&subject, values.chain(whose).chain(assertion));
    told.map_err(|error| {
        format!("the subject, with room for a digest of what the call brings along, {error}")
    })
}

fn values<'p>(
    placeholders: impl Iterator<Item = &'p Placeholder>,
    asked: &Asked<'_>,
    caller: &AuthenticatedCaller,
) -> Result<BTreeMap<Placeholder, Secret>, String> {
    let mut values = BTreeMap::new();
    for placeholder in placeholders {
        let value = match placeholder {
            Placeholder::Subject | Placeholder::CallerName => continue,
            Placeholder::Header(name) => {
                let sent = asked.headers().get_all(name.as_str()).map(|value| value.as_bytes());
                single(sent, &format!("the header {name}"))?.map(Secret::from)
            }
            Placeholder::Query(name) => queried(asked, name)?,
            Placeholder::Claim(name) => {
                let token = caller.token.as_ref();
                token.ok_or_else(|| {
                    format!("{placeholder} needs the caller's JWT; send one as a bearer token")
                })?;
                token.and_then(|token| token.claims.get(name)).cloned()
            }
        };
        let value = value.filter(|value| fits_a_value(value.expose())).ok_or_else(|| {
            format!(
                "the call has no value for {placeholder}, or one that is not 1 to {MAX_VALUE} bytes of text"
            )
        })?;
        values.insert(placeholder.clone(), value);
    }
    Ok(values)
}

/// The one value of a header, if it is there: of several nobody could say which counts.
fn single<'a>(mut sent: impl Iterator<Item = &'a [u8]>, what: &str) -> Result<Option<&'a str>, String> {
    let value = match (sent.next(), sent.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(format!("{what} was sent more than once")),
    };
    std::str::from_utf8(value).map(Some).map_err(|_| format!("{what} is not UTF-8"))
}

fn queried(asked: &Asked<'_>, name: &str) -> Result<Option<Secret>, String> {
    let query = asked.query.unwrap_or_default().as_bytes();
    let mut values =
        url::form_urlencoded::parse(query).filter(|(key, _)| key == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(format!("the query parameter {name} was sent more than once")),
        (value, _) => Ok(value.map(|value| Secret::from(&*value))),
    }
}
