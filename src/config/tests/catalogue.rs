//! Every provider of the catalogue: what it says is right, a profile of it can be made, its browser flow
//! begins where its documentation says, and the answers that its documentation shows are understood.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use claviger_actors::clock::Timestamp;
use claviger_actors::grants;
use claviger_actors::profile::Profile;
use claviger_actors::protocol::authorization_request::AuthorizationRequest;
use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::state::State;
use claviger_actors::protocol::token_error::CodeMeaning;
use claviger_actors::protocol::token_response::{TokenResponse, parse_token_answer};
use claviger_actors::registration::Pkce;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::super::catalogue::CATALOGUE;
use super::super::entry::Entry;
use super::super::pasted::Pasted;
use super::{HASH, KEY, load_text, variables};

const FIXTURES: &str = "tests/fixtures/providers";
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
/// Providers that need no fixture: none.
const WITHOUT_FIXTURE: [&str; 0] = [];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    #[serde(default)]
    variables: BTreeMap<String, String>,
    authorize: Option<Authorize>,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorize {
    starts_with: String,
    params: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    what: String,
    status: u16,
    content_type: String,
    body: Value,
    expect: Expect,
}

/// What is understood of an answer: tokens, or the meaning of a refusal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    error: Option<String>,
    scope: Option<Vec<String>>,
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: bool,
    #[serde(default)]
    extra: BTreeMap<String, Value>,
}

/// What is wrong with all of them, so that one run tells everything.
fn tell(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_entry_is_good_and_says_what_it_is() {
    let mut faults = Vec::new();
    let mut before = "";
    for preset in CATALOGUE {
        assert!(before < preset.name, "the catalogue is in order and without doubles");
        before = preset.name;
        let entry = match Entry::of(preset) {
            Ok(entry) => entry,
            Err(errors) => {
                faults.push(errors.to_string());
                continue;
            }
        };
        let mut lacks = |missing: bool, what: &str| {
            if missing {
                faults.push(format!("{}: has no {what}", preset.name));
            }
        };
        lacks(!preset.text.contains("\ntitle = "), "title");
        lacks(entry.documentation.is_none(), "documentation");
        lacks(entry.source.is_none(), "source");
        lacks(entry.confidence.is_none(), "confidence");
        lacks(entry.grants.is_empty(), "grants");
        lacks(!entry.about.iter().any(|line| line.starts_with("From: ")), "From: line");
        lacks(!entry.about.iter().any(|line| line.starts_with("Confidence: ")), "Confidence: line");
        lacks(!entry.about.iter().any(|line| line.starts_with("What to know: ")), "What to know: line");
        let templated = entry.api.as_ref().is_some_and(|api| {
            api.split("://").last().unwrap_or(api).split('/').next().unwrap_or(api).contains("{token.")
        });
        lacks(templated && !entry.has_api_hosts, "api_hosts");
        for variable in &entry.variables {
            lacks(variable.description.is_empty(), &format!("description of {}", variable.name));
            lacks(variable.example.is_empty(), &format!("example of {}", variable.name));
        }
        if preset.text.lines().any(|line| line.chars().count() > 110 && line.starts_with('#')) {
            faults.push(format!("{}: has a comment longer than 110 characters", preset.name));
        }
    }
    tell(&faults);
}

#[test]
fn every_entry_answers_as_its_documentation_says() {
    let mut faults = Vec::new();
    let mut left: BTreeSet<PathBuf> =
        std::fs::read_dir(FIXTURES).unwrap().map(|entry| entry.unwrap().path()).collect();
    for preset in CATALOGUE {
        let path = Path::new(FIXTURES).join(preset.name).with_extension("json");
        if !left.remove(&path) {
            if !WITHOUT_FIXTURE.contains(&preset.name) {
                faults.push(format!("{}: has no fixture {}", preset.name, path.display()));
            }
            continue;
        }
        match serde_json::from_str(&std::fs::read_to_string(&path).unwrap()) {
            Ok(fixture) => check(preset.name, &fixture, &mut faults),
            Err(error) => faults.push(format!("{}: {error}", path.display())),
        }
    }
    faults.extend(left.iter().map(|path| format!("{}: belongs to no provider", path.display())));
    tell(&faults);
}

fn check(name: &str, fixture: &Fixture, faults: &mut Vec<String>) {
    let profile = match profile(name, fixture) {
        Ok(profile) => profile,
        Err(errors) => return faults.push(format!("{name}: {errors}")),
    };
    match &fixture.authorize {
        Some(expected) => authorize(name, &profile, expected, faults),
        None if profile.grant_name == "authorization_code" => {
            faults.push(format!("{name}: the fixture has no `authorize`"));
        }
        None => {}
    }
    if !fixture.answers.iter().any(|answer| answer.expect.error.is_none()) {
        faults.push(format!("{name}: the fixture has no token answer"));
    }
    let format = profile.registration.provider.quirks.answer_format();
    for answer in &fixture.answers {
        let body = answer.body.as_str().map_or_else(|| answer.body.to_string(), str::to_owned);
        let kind = HeaderValue::from_str(&answer.content_type).unwrap();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        let status = StatusCode::from_u16(answer.status).unwrap();
        let at = format!("{name}: {}", answer.what);
        let read = parse_token_answer(status, &headers, body.as_bytes(), NOW, format);
        match (&answer.expect.error, read) {
            (None, Ok(response)) => tokens(&at, &answer.expect, &response, faults),
            (None, Err(error)) => faults.push(format!("{at}: {error}")),
            (Some(_), Ok(_)) => faults.push(format!("{at}: is taken for a token answer")),
            (Some(expected), Err(error)) => {
                // What is no refusal may succeed later.
                let meaning = error.meaning().unwrap_or(CodeMeaning::ServerUnwell);
                if Some(meaning) != CodeMeaning::named(expected) {
                    faults.push(format!("{at}: {error} means {meaning:?}, not {expected}"));
                }
            }
        }
    }
}

fn tokens(at: &str, expected: &Expect, response: &TokenResponse, faults: &mut Vec<String>) {
    let Expect { scope, expires_in, refresh_token, extra, .. } = expected;
    let found = response.scope.as_ref().map(|scopes| scopes.iter().map(str::to_owned).collect::<Vec<_>>());
    if found != *scope {
        faults.push(format!("{at}: scope is {found:?}, not {scope:?}"));
    }
    let found = response.expires_in.map(|life| life.as_secs());
    if found != *expires_in {
        faults.push(format!("{at}: expires_in is {found:?}, not {expires_in:?}"));
    }
    let found = response.refresh_token.is_some();
    if found != *refresh_token {
        faults.push(format!("{at}: refresh_token is {found}, not {refresh_token}"));
    }
    for (name, value) in extra {
        if response.extra.get(name) != Some(value) {
            faults.push(format!("{at}: extra.{name} is {:?}, not {value}", response.extra.get(name)));
        }
    }
}

/// The URL that a browser is sent to, of the same parts as a flow makes it.
fn authorize(name: &str, profile: &Profile, expected: &Authorize, faults: &mut Vec<String>) {
    let registration = &profile.registration;
    let quirks = &registration.provider.quirks;
    let Some(endpoint) = &registration.provider.endpoints.authorization_endpoint else {
        // It is discovered, and no test asks the network.
        return;
    };
    let url = AuthorizationRequest {
        redirect_uri: &registration.redirect_uri,
        scope: (quirks.parameter("scope"), &quirks.scope_text(&registration.scopes)),
        state: &State(Secret::from("state")),
        challenge: (registration.pkce == Pkce::S256).then_some("challenge"),
        nonce: None,
        own: &[],
        extra: &registration.authorize_params_for(&Subject::shared()),
    }
    .params()
    .of_client(quirks.parameter("client_id"), "client")
    .url(endpoint);
    if !url.as_str().starts_with(&expected.starts_with) {
        faults.push(format!("{name}: {url} does not start with {}", expected.starts_with));
    }
    let params: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
    for (param, value) in &expected.params {
        let found = params.get(param);
        // Scopes have no order, and a fixture need not know ours.
        let sorted = |text: &str| {
            let mut parts: Vec<_> =
                text.split([' ', quirks.scope_separator.unwrap_or(' ')]).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        let same = match found {
            Some(found) if param == quirks.parameter("scope") => sorted(found) == sorted(value),
            found => found.is_some_and(|found| found == value),
        };
        // Fixtures may show the documentation's own client.
        let ours = ["client_id", "redirect_uri", "state"].contains(&param.as_str())
            || param == quirks.parameter("client_id");
        if !same && !ours {
            faults.push(format!("{name}: {param} is {found:?}, not {value:?} in {url}"));
        }
    }
}

/// A profile of the entry, with the fixture's variables and the first grant that needs nothing special.
fn profile(name: &str, fixture: &Fixture) -> Result<Profile, String> {
    let preset = super::super::catalogue::preset(name).unwrap();
    let entry = Entry::of(preset).map_err(|errors| errors.to_string())?;
    let wanted = if fixture.authorize.is_some() { "authorization_code" } else { "client_credentials" };
    let grant = entry.grants.iter().find(|grant| *grant == wanted).or(entry.grants.first()).unwrap();
    let public = entry.client_auth.as_deref() == Some("none");
    let secret = if public { "" } else { "client_secret = \"HUSH\"\n" };
    let values: Vec<String> =
        fixture.variables.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    let text = format!(
        "[profiles.p]\nprovider = \"{name}\"\nclient_id = \"CLIENT\"\n{secret}\
         grant = \"{grant}\"\nvariables = {{ {} }}\n",
        values.join(", ")
    );
    let config = load_text(&whole(&text, ""), &Default::default()).map_err(|errors| errors.to_string())?;
    Ok(config.profiles.into_iter().next().unwrap())
}

fn whole(text: &str, routes: &str) -> String {
    format!(
        "[server]\npublic_url = \"https://gw.example\"\n[store]\nbackend = \"sled\"\npath = \"data\"\n\
         [store.encryption]\nactive = \"k1\"\nkeys = {{ k1 = \"{KEY}\" }}\n[callers.billing]\n\
         basic = {{ username = \"billing\", password_hash = \"{HASH}\" }}\nroutes = [{routes}]\n{text}"
    )
}

#[test]
fn what_is_to_be_pasted_is_good() {
    let mut faults = Vec::new();
    for entry in Entry::all().unwrap() {
        if !entry.grants.iter().any(|grant| grants::find(grant).is_some()) {
            continue;
        }
        let pasted = Pasted::of(&entry);
        let name = entry.name;
        let mut routes = format!("{name:?}");
        if pasted.probe_route {
            routes.push_str(&format!(", \"{name}-probe\""));
        }
        let secret = format!("{}_CLIENT_SECRET", name.to_uppercase().replace('-', "_"));
        match load_text(&whole(&pasted.toml, &routes), &variables(&[(&secret, "HUSH")])) {
            Ok(config) if config.warnings.is_empty() => {
                let curl = pasted.curl.unwrap_or_default();
                let reached = curl.is_empty() || curl.contains(&format!("8080/{name}"));
                if !reached || entry.probe.is_some() == curl.is_empty() {
                    faults.push(format!("{name}: {curl}"));
                }
            }
            Ok(config) => faults.push(format!("{name}: {:?}", config.warnings)),
            Err(errors) => faults.push(format!("{name}: {errors}\n{}", pasted.toml)),
        }
    }
    tell(&faults);
}
