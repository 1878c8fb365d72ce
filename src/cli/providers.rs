//! `claviger providers`: what is known by name, and how to use one of them.

use std::fmt::Write as _;

use super::Printed;
use crate::config::catalogue;
use crate::config::entry::{Entry, EntryVariable};
use crate::config::pasted::Pasted;

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

    const KNOW: &str = "What to know: ";
    let lines = entry.about.iter().skip_while(|line| !line.starts_with(KNOW));
    for (at, line) in lines.enumerate() {
        if at == 0 {
            text.push_str("\nWhat to know\n\n");
        }
        text.push_str(format!("  {}", line.strip_prefix(KNOW).unwrap_or(line)).trim_end());
        text.push('\n');
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
