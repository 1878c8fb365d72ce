//! A provider's part of a configuration, ready to be pasted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use claviger_actors::grants;

use super::entry::Entry;

/// What is pasted, and what is asked with it.
#[derive(Clone, Debug)]
pub struct Pasted {
    /// `[profiles.x]` and `[routes.x]`.
    pub toml: String,
    /// Whether there is a second route, for the probe alone.
    pub probe_route: bool,
    /// The probe through the gateway.
    pub curl: Option<String>,
}

impl Pasted {
    /// For a client of `entry`, with its examples where a profile has to fill something in.
    pub fn of(entry: &Entry) -> Self {
        let name = entry.name;
        let values: BTreeMap<&str, &str> = entry
            .variables
            .iter()
            .map(|variable| (&*variable.name, variable.default.as_deref().unwrap_or(&variable.example)))
            .collect();
        let filled = |text: &str| {
            values
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
        };
        let api = entry.api.as_deref().map(filled);
        let probe = entry.probe.as_ref().map(|(method, url)| (method.as_str(), filled(url)));
        let upstream = api.clone().or_else(|| probe.as_ref().map(|(_, url)| origin_of(url)));

        let scopes: Vec<String> = entry.scopes.iter().map(|scope| filled(scope)).collect();
        let mut toml = profile(entry, &scopes);
        let _ = writeln!(toml, "\n[routes.{name}]\npath = \"/{name}\"");
        match &upstream {
            Some(upstream) => {
                let _ = writeln!(toml, "upstream = {upstream:?}");
                toml.push_str(hosts_for(upstream, entry));
            }
            None => toml.push_str("upstream = \"https://api.example.com\"   # base URL of the API to call\n"),
        }
        let _ = writeln!(toml, "profile = \"{name}\"");

        let mut probe_route = false;
        let curl = probe.map(|(method, url)| {
            let rest = upstream.as_deref().and_then(|base| url.strip_prefix(base));
            let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
            let target = match rest {
                Some(rest) => format!("/{name}{rest}"),
                None => {
                    probe_route = true;
                    let origin = origin_of(&url);
                    let _ = write!(
                        toml,
                        "\n[routes.{name}-probe]\npath = \"/{name}-probe\"\nupstream = {origin:?}\n{}profile = \"{name}\"\n",
                        hosts_for(&origin, entry),
                    );
                    format!("/{name}-probe{}", &url[origin.len()..])
                }
            };
            let method = if method == "GET" { String::new() } else { format!(" -X {method}") };
            format!("curl -u NAME{method} 'http://127.0.0.1:8080{}'", without_members(&target))
        });
        Self { toml, probe_route, curl }
    }
}

fn profile(entry: &Entry, scopes: &[String]) -> String {
    let name = entry.name;
    let mut toml = format!("[profiles.{name}]\nprovider = \"{name}\"\nclient_id = \"CLIENT_ID\"\n");
    if entry.client_auth.as_deref() != Some("none") {
        let variable = format!("{}_CLIENT_SECRET", name.to_uppercase().replace('-', "_"));
        let _ = writeln!(toml, "client_secret = {{ env = \"{variable}\" }}");
    }
    // Of those it supports, the first that needs no more than this.
    let plain = entry.grants.iter().find(|grant| {
        matches!(grant.as_str(), "authorization_code" | "client_credentials") && grants::find(grant).is_some()
    });
    let grant = plain.or(entry.grants.first()).map_or("authorization_code", String::as_str);
    let _ = writeln!(toml, "grant = \"{grant}\"");
    if !scopes.is_empty() {
        let _ = writeln!(toml, "scopes = {scopes:?}");
    }
    let required: Vec<String> = entry
        .variables
        .iter()
        .filter(|variable| variable.default.is_none())
        .map(|variable| format!("{} = {:?}", variable.name, variable.example))
        .collect();
    if !required.is_empty() {
        let _ = writeln!(toml, "variables = {{ {} }}", required.join(", "));
    }
    let optional: Vec<String> = entry
        .variables
        .iter()
        .filter_map(|variable| Some(format!("{} = {:?}", variable.name, variable.default.as_ref()?)))
        .collect();
    if !optional.is_empty() {
        let _ = writeln!(toml, "# further variables, as they are: {{ {} }}", optional.join(", "));
    }
    toml
}

/// The line that an upstream needs which the token answer names.
fn hosts_for(upstream: &str, entry: &Entry) -> &'static str {
    if upstream.contains("{token.") && !entry.has_api_hosts {
        "upstream_hosts = [\"*.example.com\"]   # the hosts that the provider's API is at\n"
    } else {
        ""
    }
}

/// Scheme and authority of a URL, which may begin with a member of the token answer.
fn origin_of(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
    url[..end].to_owned()
}

/// `target` with the names of what the caller has to fill in.
fn without_members(target: &str) -> String {
    let mut text = String::new();
    let mut rest = target;
    while let Some((before, after)) = rest.split_once("{token.") {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&name.to_uppercase());
        rest = after;
    }
    text + rest
}
