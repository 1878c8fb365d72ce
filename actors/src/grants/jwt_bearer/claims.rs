//! The claims of an assertion (RFC 7523 section 3).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{NAME, error, template};
use crate::grants::assertion::{Audience, render};
use crate::grants::{GrantContext, GrantError};
use crate::protocol::jws::{numeric_date, unique_id};
use crate::protocol::template::{Placeholder, Template};
use crate::registration::settings::SettingsError;

/// How the claims are made.
#[derive(Debug)]
pub(super) struct Claims {
    /// `iss`; the client identifier if none.
    pub(super) issuer: Option<String>,
    /// `sub`, if the assertion has one.
    pub(super) subject: Option<Template>,
    /// `aud`; if empty, the provider's, else its token endpoint.
    pub(super) audience: Vec<Audience>,
    pub(super) lifetime: Duration,
    pub(super) not_before: bool,
    /// Whether the scope is a claim.
    pub(super) scope_claim: bool,
    /// Claims that are added, or win.
    pub(super) further: BTreeMap<String, Claim>,
}

/// What a configured claim does.
#[derive(Debug)]
pub(super) enum Claim {
    /// It is left out, though it is usual: some servers refuse what they do not know.
    Removed,
    Value(ClaimValue),
}

/// A JSON value whose texts are templates.
#[derive(Debug)]
pub(super) enum ClaimValue {
    Text(Template),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
    Fixed(Value),
}

/// Reads the table `claims`.
pub(super) fn further(table: Option<Value>) -> Result<BTreeMap<String, Claim>, SettingsError> {
    let members = match table {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(error("claims", "must be a table: claim = value")),
    };
    let claim = |(name, value): (String, Value)| {
        let claim = match value {
            Value::Bool(false) => Claim::Removed,
            value => Claim::Value(ClaimValue::read(&format!("claims.{name}"), value)?),
        };
        Ok((name, claim))
    };
    members.into_iter().map(claim).collect()
}

impl ClaimValue {
    fn read(key: &str, value: Value) -> Result<Self, SettingsError> {
        Ok(match value {
            Value::String(text) => Self::Text(template(key, &text)?),
            Value::Array(items) => {
                Self::List(items.into_iter().map(|item| Self::read(key, item)).collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let member = |(name, value)| Ok((name, Self::read(key, value)?));
                Self::Object(members.into_iter().map(member).collect::<Result<_, SettingsError>>()?)
            }
            other => Self::Fixed(other),
        })
    }

    fn render(&self, context: &GrantContext<'_>) -> Result<Value, GrantError> {
        Ok(match self {
            Self::Text(template) => render("assertion.claims", template, context)?.expose().into(),
            Self::List(items) => items.iter().map(|item| item.render(context)).collect::<Result<_, _>>()?,
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| Ok((name.clone(), value.render(context)?));
                members.iter().map(member).collect::<Result<Map<_, _>, GrantError>>()?.into()
            }
            Self::Fixed(value) => value.clone(),
        })
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        match self {
            Self::Text(template) => template.placeholders().cloned().collect(),
            Self::List(items) => items.iter().flat_map(Self::placeholders).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.placeholders()).collect(),
            Self::Fixed(_) => Vec::new(),
        }
    }
}

impl Claims {
    /// What has to be known of a call to make them.
    pub(super) fn placeholders(&self) -> Vec<Placeholder> {
        let subject = self.subject.iter().flat_map(Template::placeholders).cloned();
        let further = self.further.values().flat_map(|claim| match claim {
            Claim::Value(value) => value.placeholders(),
            Claim::Removed => Vec::new(),
        });
        subject.chain(further).collect()
    }

    /// What has to be known of a call to make `sub`. The configured claim wins over the subject.
    pub(super) fn subject_placeholders(&self) -> Vec<Placeholder> {
        match self.further.get("sub") {
            Some(Claim::Value(value)) => value.placeholders(),
            Some(Claim::Removed) => Vec::new(),
            None => self.subject.iter().flat_map(Template::placeholders).cloned().collect(),
        }
    }

    /// The claims of a new assertion.
    pub(super) fn of(&self, context: &GrantContext<'_>) -> Result<Map<String, Value>, GrantError> {
        let mut claims = Map::new();
        let issuer = self.issuer.as_deref().unwrap_or(context.client_id);
        claims.insert("iss".into(), issuer.into());
        if let Some(subject) = &self.subject {
            claims.insert("sub".into(), render("assertion.subject", subject, context)?.expose().into());
        }
        claims.insert("aud".into(), self.audience(context)?);
        claims.insert("iat".into(), numeric_date(context.now));
        claims.insert("exp".into(), numeric_date(context.now.after(self.lifetime)));
        claims.insert("jti".into(), unique_id(context.entropy).into());
        if self.not_before {
            claims.insert("nbf".into(), numeric_date(context.now));
        }
        if self.scope_claim && !context.scopes.is_empty() {
            claims.insert("scope".into(), context.scopes.to_string().into());
        }
        for (name, claim) in &self.further {
            match claim {
                Claim::Removed => drop(claims.remove(name)),
                Claim::Value(value) => drop(claims.insert(name.clone(), value.render(context)?)),
            }
        }
        Ok(claims)
    }

    /// A text if there is one: many servers read no list.
    fn audience(&self, context: &GrantContext<'_>) -> Result<Value, GrantError> {
        let text = |audience: &Audience| audience.of(NAME, context).map(Value::from);
        match self.audience.as_slice() {
            [] => Ok(Audience::usual(context).into()),
            [one] => text(one),
            several => several.iter().map(text).collect::<Result<Vec<_>, _>>().map(Value::from),
        }
    }
}
