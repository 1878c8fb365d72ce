//! Upstreams that the token answer names: `{token.instance_url}/services/data` (RFC 6749 section 5.1
//! leaves room for further members).
//!
//! No provider may choose any upstream: the resolved URL must be `https` and its host one of those that
//! the route allows. What a token set of such a route is bound to is the template's own text with these
//! hosts, so that no edited configuration sends a token to hosts that it was not obtained for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;
use serde_json::Value;
use thiserror::Error;
use url::{Host, Url};

use super::path;
use super::route::UpstreamOrigin;
use crate::protocol::metadata::is_allowed_endpoint;
use crate::protocol::printable::printable;

/// Resolved upstreams kept for one route: organisations, not people.
const KEPT: usize = 1024;
/// Longest URL that a template may become.
const LONGEST: usize = 2048;

/// Why a template is none, or leads nowhere. No message repeats more of an answer than a host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateUrlError {
    /// A brace without the other, or another placeholder than a member of the token answer.
    #[error("has a placeholder that is not {{token.NAME}}, with the name of a member of the token answer")]
    Placeholder,
    /// A host that can be no host.
    #[error(
        "{0:?} is no host: write \"api.example.com\", or \"*.example.com\" for all below it, with \":port\" if \
         it is not 443"
    )]
    Host(String),
    /// The token answer had no such member, or one that is no text.
    #[error(
        "the token answer has no usable member `{0}`, which the upstream is made of; see what the provider gives, and connect again"
    )]
    Missing(String),
    /// A member's value that would change the URL's structure.
    #[error("the token answer's member `{0}` has characters that cannot stand in an upstream")]
    Value(String),
    /// The whole is no URL that a token may be sent to.
    #[error("the upstream that the token answer names {0}")]
    Url(&'static str),
    /// The host is none of those that the route allows.
    #[error("the token answer names the host {0}, which is not among the route's `upstream_hosts`")]
    Refused(String),
}

/// A host that a route allows: itself, or all below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPattern {
    host: String,
    below: bool,
    port: Option<u16>,
}

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com` or `127.0.0.1:8080`. At least two labels follow a `*`.
    ///
    /// # Errors
    /// [`TemplateUrlError::Host`].
    pub fn parse(text: &str) -> Result<Self, TemplateUrlError> {
        let refused = || TemplateUrlError::Host(printable(text, 100));
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, Some(port.parse().map_err(|_| refused())?)),
            _ => (rest, None),
        };
        let parsed = Host::parse(host).map_err(|_| refused())?;
        let names = matches!(parsed, Host::Domain(_)) && host.contains('.') && !host.ends_with('.');
        if below && !names || host.contains('*') {
            return Err(refused());
        }
        Ok(Self { host: parsed.to_string(), below, port })
    }

    fn matches(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let known = match host.strip_suffix(&self.host) {
            Some("") => !self.below,
            Some(before) => self.below && before.len() > 1 && before.ends_with('.'),
            None => false,
        };
        // `Url` knows a port only if it is not the scheme's own.
        known && (url.port() == self.port || url.port_or_known_default() == self.port)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.below { "*." } else { "" })?;
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Member(String),
}

/// Where a template leads for one token set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUpstream {
    /// Scheme, host and port.
    pub origin: Arc<UpstreamOrigin>,
    /// Path prefix there, without a trailing slash.
    pub path: String,
}

/// A route's upstream with members of the token answer in it.
pub struct UpstreamTemplate {
    text: String,
    parts: Vec<Part>,
    hosts: Vec<HostPattern>,
    /// By the text that the template became: a call looks up and parses nothing.
    resolved: Cache<String, Arc<ResolvedUpstream>>,
}

impl UpstreamTemplate {
    /// Whether `text` is one, rather than a plain URL.
    pub fn is_one(text: &str) -> bool {
        text.contains("{token.")
    }

    /// Reads a template that may lead to `hosts`.
    ///
    /// # Errors
    /// [`TemplateUrlError::Placeholder`], and [`TemplateUrlError::Url`] if no value of its members makes
    /// it a URL.
    pub fn parse(text: &str, mut hosts: Vec<HostPattern>) -> Result<Self, TemplateUrlError> {
        hosts.sort();
        hosts.dedup();
        let parts = parts(text)?;
        let template = Self { text: text.to_owned(), parts, hosts, resolved: Cache::new(KEPT) };
        let sample =
            template.render(|at, _| Ok(if at == 0 { "https://host.example" } else { "x" }.into()))?;
        checked(&sample)?;
        Ok(template)
    }

    /// What token sets are bound to: what decides about the host, and the hosts allowed. It is no URL,
    /// so that it equals no real origin.
    pub fn binding(&self) -> Arc<str> {
        let after_scheme = self.text.find("://").map_or(0, |at| at + 3);
        let end = self.text[after_scheme..].find('/').map_or(self.text.len(), |at| after_scheme + at);
        let hosts: Vec<String> = self.hosts.iter().map(HostPattern::to_string).collect();
        Arc::from(format!("{} at {}", &self.text[..end], hosts.join(", ")))
    }

    /// What comes after that.
    pub fn path(&self) -> &str {
        let after_scheme = self.text.find("://").map_or(0, |at| at + 3);
        self.text[after_scheme..]
            .find('/')
            .map_or("", |at| self.text[after_scheme + at..].trim_end_matches('/'))
    }

    /// Where it leads with the members `extra` of a token answer.
    ///
    /// # Errors
    /// Any but [`TemplateUrlError::Placeholder`] and [`TemplateUrlError::Host`].
    pub fn resolve(
        &self,
        extra: &BTreeMap<String, Value>,
    ) -> Result<Arc<ResolvedUpstream>, TemplateUrlError> {
        let text = self.render(|at, name| value(extra, name, at == 0))?;
        if let Some(known) = self.resolved.get(text.as_str()) {
            return Ok(known);
        }
        let url = checked(&text)?;
        if !self.hosts.iter().any(|pattern| pattern.matches(&url)) {
            return Err(TemplateUrlError::Refused(printable(url.authority(), 100)));
        }
        let origin = UpstreamOrigin::of(&url).ok_or(TemplateUrlError::Url("has no host"))?;
        let path = url.path().trim_end_matches('/').to_owned();
        let resolved = Arc::new(ResolvedUpstream { origin: Arc::new(origin), path });
        self.resolved.insert(text, resolved.clone());
        Ok(resolved)
    }

    fn render<'v>(
        &self,
        value: impl Fn(usize, &str) -> Result<std::borrow::Cow<'v, str>, TemplateUrlError>,
    ) -> Result<String, TemplateUrlError> {
        let mut text = String::with_capacity(self.text.len() + 64);
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Member(name) => {
                    let value = value(at, name)?;
                    text.push_str(if at == 0 { value.trim_end_matches('/') } else { &value });
                }
            }
        }
        Ok(text)
    }
}

impl fmt::Debug for UpstreamTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpstreamTemplate").field(&self.binding()).field(&self.path()).finish()
    }
}

fn parts(text: &str) -> Result<Vec<Part>, TemplateUrlError> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            parts.push(Part::Literal(rest[..at].to_owned()));
        }
        let (inner, after) = rest[at..]
            .strip_prefix("{token.")
            .and_then(|inner| inner.split_once('}'))
            .ok_or(TemplateUrlError::Placeholder)?;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if inner.is_empty() || !inner.chars().all(named) {
            return Err(TemplateUrlError::Placeholder);
        }
        parts.push(Part::Member(inner.to_owned()));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.to_owned()));
    }
    Ok(parts)
}

/// A member's value. At the start it is a URL, checked with the whole; elsewhere it is one piece of a
/// host name or path, and cannot end it.
fn value<'v>(
    extra: &'v BTreeMap<String, Value>,
    name: &str,
    is_url: bool,
) -> Result<std::borrow::Cow<'v, str>, TemplateUrlError> {
    let text: std::borrow::Cow<'v, str> = match extra.get(name) {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= LONGEST => text.as_str().into(),
        Some(Value::Number(number)) if !is_url => number.to_string().into(),
        _ => return Err(TemplateUrlError::Missing(name.to_owned())),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !is_url && (!text.bytes().all(plain) || matches!(&*text, "." | "..")) {
        return Err(TemplateUrlError::Value(name.to_owned()));
    }
    Ok(text)
}

fn checked(text: &str) -> Result<Url, TemplateUrlError> {
    use TemplateUrlError::Url as Refused;
    let visible = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'\\');
    if text.len() > LONGEST || !visible {
        return Err(Refused("is too long or has characters that no URL has"));
    }
    let Some((_, after_scheme)) = text.split_once("://") else { return Err(Refused("is no URL")) };
    let url = Url::parse(text).map_err(|_| Refused("is no URL"))?;
    if !is_allowed_endpoint(&url) {
        return Err(Refused("is not an https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refused("has a user name"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Refused("has a query or fragment"));
    }
    // As written, before the parser takes dot segments away.
    let written = after_scheme.find('/').map_or("/", |slash| &after_scheme[slash..]);
    path::check_path(written.as_bytes()).map_err(|_| Refused("has a path that is refused"))?;
    Ok(url)
}

#[cfg(test)]
mod tests;
