//! Variables of a provider, `{tenant}`, and what profiles fill in for them.
//!
//! A value is one piece of a host name or path, or a whole host: it can change neither the scheme nor
//! the structure of a URL.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Faults, Place, suggestion};
use super::file::{ProviderFile, VariableFile};
use super::reader::Located;

const KINDS: [&str; 2] = ["segment", "host"];
/// Longest value: that of a host name (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

/// Values to fill in.
#[derive(Clone, Debug, Default)]
pub(super) struct Values(BTreeMap<String, String>);

impl Values {
    /// What stands for every variable of `file` while no profile fills it in.
    pub(super) fn samples(file: &ProviderFile) -> Self {
        let sample = |(name, variable): (&String, &VariableFile)| {
            let given = [&variable.example, &variable.default].into_iter().flatten().next();
            let value = given.filter(|value| is_value(&value.value, kind(variable)));
            let fallback = if kind(variable) == "host" { "host.example" } else { "example" };
            (name.clone(), value.map_or(fallback, |value| &value.value).to_owned())
        };
        Self(file.variables.iter().flatten().map(sample).collect())
    }

    /// What a profile at `at` gives for the variables of the provider `name`. Faults are the profile's.
    pub(super) fn of_profile(
        name: &str,
        file: &ProviderFile,
        given: Option<&BTreeMap<String, Located<String>>>,
        at: &Place,
        faults: &mut Faults,
    ) -> Option<Self> {
        let (nothing, none) = (BTreeMap::new(), BTreeMap::new());
        let declared = file.variables.as_ref().unwrap_or(&none);
        let given = given.unwrap_or(&nothing);
        let mut complete = true;
        for (variable, value) in given.iter().filter(|(variable, _)| !declared.contains_key(*variable)) {
            let hint = suggestion(variable, declared.keys().map(String::as_str));
            faults.push(&value.at, format!("provider `{name}` has no such variable{hint}"));
            complete = false;
        }
        let mut values = BTreeMap::new();
        for (variable, described) in declared {
            let example = described.example.as_ref().map(|text| format!(", such as {:?}", text.value));
            let example = example.unwrap_or_default();
            match given.get(variable).or(described.default.as_ref()) {
                Some(value) if is_value(&value.value, kind(described)) => {
                    values.insert(variable.clone(), value.value.clone());
                }
                // A default that is none is the provider's fault, told there.
                Some(_) if !given.contains_key(variable) => complete = false,
                Some(value) => {
                    let wanted = match kind(described) {
                        "host" => "a host name, with `:port` if it is not 443",
                        _ => "one part of a host name or path: letters, digits, `.`, `_` and `-`",
                    };
                    faults.push(&value.at, format!("must be {wanted}{example}"));
                    complete = false;
                }
                None => {
                    let what = described.description.as_ref().map_or("its value", |text| &text.value);
                    let why = format!("provider `{name}` needs it: {what}{example}");
                    faults.missing(&at.join("variables").join(variable), why);
                    complete = false;
                }
            }
        }
        complete.then_some(Self(values))
    }

    /// `text` with its variables filled in; `{token.NAME}` stays if `token` allows it. A variable that is
    /// not declared is a fault.
    pub(super) fn fill(
        &self,
        text: &Located<String>,
        token: bool,
        faults: &mut Faults,
    ) -> Option<Located<String>> {
        let mut filled = String::with_capacity(text.value.len() + 32);
        for piece in pieces(&text.value) {
            match piece {
                Ok(Piece::Literal(literal)) => filled.push_str(literal),
                Ok(Piece::Placeholder(name)) if token && name.starts_with("token.") => {
                    filled.push_str(&format!("{{{name}}}"));
                }
                Ok(Piece::Placeholder(name)) => match self.0.get(name) {
                    Some(value) => filled.push_str(value),
                    None if name.starts_with("token.") => {
                        faults
                            .push(&text.at, format!("must not have {{{name}}}: only `api` and `probe` may"));
                        return None;
                    }
                    None => {
                        let hint = suggestion(name, self.0.keys().map(String::as_str));
                        let problem = format!("has {{{name}}}, which `variables` does not declare{hint}");
                        faults.push(&text.at, problem);
                        return None;
                    }
                },
                Err(()) => {
                    faults.push(&text.at, "has a `{` or `}` without the other");
                    return None;
                }
            }
        }
        Some(Located { value: filled, at: text.at.clone() })
    }
}

fn kind(variable: &VariableFile) -> &str {
    variable.kind.as_ref().map_or("segment", |kind| &kind.value)
}

enum Piece<'t> {
    Literal(&'t str),
    Placeholder(&'t str),
}

fn pieces(text: &str) -> Vec<Result<Piece<'_>, ()>> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        pieces.push(Ok(Piece::Literal(&rest[..at])));
        let Some((name, after)) = rest[at..].strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            pieces.push(Err(()));
            return pieces;
        };
        pieces.push(if name.contains('{') { Err(()) } else { Ok(Piece::Placeholder(name)) });
        rest = after;
    }
    pieces.push(Ok(Piece::Literal(rest)));
    pieces
}

fn is_value(text: &str, kind: &str) -> bool {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= LONGEST
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !text.split('.').any(str::is_empty)
    };
    let (host, port) = match text.split_once(':') {
        Some((host, port)) if kind == "host" => (host, Some(port)),
        _ => (text, None),
    };
    plain(host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Checks what `file` declares, and that it is what its URLs use.
pub(super) fn declared(file: &ProviderFile, faults: &mut Faults) {
    let texts = [
        &file.issuer,
        &file.authorization_endpoint,
        &file.token_endpoint,
        &file.refresh_endpoint,
        &file.revocation_endpoint,
        &file.introspection_endpoint,
        &file.pushed_authorization_request_endpoint,
        &file.device_authorization_endpoint,
        &file.registration_endpoint,
        &file.userinfo_endpoint,
        &file.jwks_uri,
        &file.console,
        &file.api,
        &file.assertion_audience,
        &file.client_assertion_audience,
    ];
    let lists = [&file.api_hosts, &file.scopes].into_iter().flatten().flat_map(|list| &list.value);
    let probe = file.probe.as_ref().and_then(|probe| probe.url.as_ref());
    let texts = texts.into_iter().flatten().chain(probe).map(|text| &text.value).chain(lists);
    let used: BTreeSet<&str> = texts
        .flat_map(|text| pieces(text))
        .filter_map(|piece| match piece {
            Ok(Piece::Placeholder(name)) => Some(name),
            _ => None,
        })
        .collect();
    for (name, variable) in file.variables.iter().flatten() {
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(named) {
            faults.push(&variable.at, "must be named in small letters, digits and `_`");
        } else if !used.contains(name.as_str()) {
            faults.push(&variable.at, format!("no URL has {{{name}}} in it; use it, or remove it"));
        }
        if let Some(kind) = &variable.kind
            && !KINDS.contains(&kind.value.as_str())
        {
            faults.push(&kind.at, "must be \"segment\" or \"host\"");
            continue;
        }
        for value in [&variable.example, &variable.default].into_iter().flatten() {
            if !is_value(&value.value, kind(variable)) {
                faults.push(&value.at, format!("is no value of kind \"{}\"", kind(variable)));
            }
        }
    }
}
