//! `claviger providers`: what is known by name, and how to use one of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use claviger_actors::grants;

use super::Printed;
use crate::config::catalogue;
use crate::config::entry::{Entry, EntryVariable};

/// Lists every provider, or shows one.
pub(super) fn execute(name: Option<&str>, source: bool) -> Result<Printed, String> {
    let Some(name) = name else {
        if source {
            return Err("--source prints the file of one provider: name it".to_owned());
        }
        return Ok(Printed::new(list(&Entry::all().map_err(|errors| errors.to_string())?)));
    };
    let Some(preset) = catalogue::preset(name) else {
        let names: Vec<&str> = catalogue::CATALOGUE.iter().map(|preset| preset.name).collect();
        return Err(format!("there is no provider `{name}`; known: {}", names.join(", ")));
    };
    if source {
        return Ok(Printed::new(preset.text));
    }
    let entry = Entry::of(preset).map_err(|errors| errors.to_string())?;
    Ok(Printed::new(guide(&entry)))
}

fn list(entries: &[Entry]) -> String {
    let rows: Vec<[String; 4]> = entries
        .iter()
        .map(|entry| {
            let confidence = entry.confidence.clone().unwrap_or_default();
            [entry.name.to_owned(), entry.title.clone(), entry.grants.join(" "), confidence]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name, title, grants) = (width(0), width(1), width(2));
    let mut text = String::new();
    for row in &rows {
        let line = format!("{:name$}  {:title$}  {:grants$}  {}", row[0], row[1], row[2], row[3]);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// All that is needed to use a provider, to be read from top to bottom.
fn guide(entry: &Entry) -> String {
    let mut text = format!("{} ({})\n\n", entry.title, entry.name);
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            // Writing into memory cannot fail.
            let _ = writeln!(text, "  {name:<14} {value}");
        }
    };
    row("Documentation", entry.documentation.as_deref());
    row("Values from", entry.source.as_deref());
    row("Confidence", entry.confidence.as_deref());
    row("Register at", entry.console.as_deref());
    row("Redirect URI", Some("{public_url}/callback, exactly: for http://127.0.0.1:8081 it is"));
    row("", Some("http://127.0.0.1:8081/callback"));
    row("Grants", Some(&entry.grants.join(", ")));
    row("Client auth", Some(entry.client_auth.as_deref().unwrap_or("client_secret_basic")));

    if !entry.about.is_empty() {
        text.push_str("\nWhat to know\n\n");
        for line in &entry.about {
            text.push_str(format!("  {line}").trim_end());
            text.push('\n');
        }
    }
    if !entry.variables.is_empty() {
        text.push_str("\nVariables\n\n");
        let width = entry.variables.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
        for EntryVariable { name, description, example, default } in &entry.variables {
            let default = default.as_ref().map(|default| format!("; default {default}")).unwrap_or_default();
            let _ = writeln!(text, "  {name:width$}  {description}; such as {example}{default}");
        }
    }
    if !entry.scope_descriptions.is_empty() {
        text.push_str("\nUsual scopes\n\n");
        let width =
            entry.scope_descriptions.iter().map(|(scope, _)| scope.chars().count()).max().unwrap_or(0);
        for (scope, meaning) in &entry.scope_descriptions {
            let _ = writeln!(text, "  {scope:width$}  {meaning}");
        }
    }
    let pasted = Pasted::of(entry);
    let _ = write!(text, "\nPaste into your configuration\n\n{}", pasted.toml);
    let name = entry.name;
    let _ = write!(
        text,
        "\nThen add \"{name}\" to the `routes` of the caller that may use it{}.\n",
        if pasted.probe_route { format!(", and \"{name}-probe\"") } else { String::new() }
    );
    if let Some(curl) = pasted.curl {
        let _ = write!(text, "\nTry it, with that caller's name and password\n\n  {curl}\n");
    }
    text
}

/// What is pasted, and what is asked with it.
pub(super) struct Pasted {
    /// `[profiles.x]` and `[routes.x]`.
    pub(super) toml: String,
    /// Whether there is a second route, for the probe alone.
    pub(super) probe_route: bool,
    /// The probe through the gateway.
    pub(super) curl: Option<String>,
}

impl Pasted {
    pub(super) fn of(entry: &Entry) -> Self {
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

        let mut toml = profile(entry);
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

fn profile(entry: &Entry) -> String {
    let name = entry.name;
    let mut toml = format!("[profiles.{name}]\nprovider = \"{name}\"\nclient_id = \"…\"\n");
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
    if !entry.scopes.is_empty() {
        let _ = writeln!(toml, "scopes = {:?}", entry.scopes);
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
