//! What `[providers]` may say, what profiles get of it, and what is told of its faults.

use std::time::Duration;

use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::template::{CallContext, Template};
use claviger_actors::protocol::token_error::CodeMeaning;
use claviger_actors::registration::Pkce;
use claviger_actors::registration::quirks::{AssertionAudience, RequestFormat};

use super::{Variables, faults, good, load_text};
use crate::config::{ConfigErrors, GatewayConfig};

/// The good configuration with `lines` in its provider and others in its profile.
fn with(provider: &str, profile: &str) -> String {
    good()
        .replace("[profiles.books]", &format!("{provider}\n[profiles.books]"))
        .replace("client_id = \"c\"", &format!("client_id = \"c\"\n{profile}"))
}

fn load(provider: &str, profile: &str) -> Result<GatewayConfig, ConfigErrors> {
    load_text(&with(provider, profile), &Variables::new())
}

const EVERYTHING: &str = r#"
authorization_endpoint = "https://{tenant}.acme.example/{path}/authorize"
grants = ["client_credentials", "jwt_bearer"]
client_auth = "client_secret_post"
pkce = "none"
scopes = ["b", "a"]
authorize_params = { access_type = "offline", prompt = "consent" }
token_params = { audience = "api", expiring = 1 }
refresh_params = { audience = "api" }
default_token_lifetime = "2h"
default_refresh_token_lifetime = "720h"
scope_separator = ","
scope_parameter = "user_scope"
token_request_format = "json"
token_request_headers = { Accept = "application/json", Notion-Version = "2022-06-28" }
basic_credentials = "raw"
client_id_parameter = "client_key"
client_secret_parameter = "key_secret"
token_types = ["bot"]
error_meanings = { token_revoked = "invalid_grant", busy = "temporarily_unavailable" }
callback_params = ["realmId"]
access_token_header = "X-Access-Token"
access_token_scheme = ""
assertion_audience = "https://{tenant}.acme.example"
client_assertion_audience = "token_endpoint"
title = "Acme"
documentation = "https://docs.acme.example/oauth#top"
source = "OAuth"
confidence = "high"
console = "https://{tenant}.acme.example/apps"
api = "{token.instance_url}/v1"
api_hosts = ["*.acme.example"]
probe = { method = "GET", url = "{token.instance_url}/v1/me?x=1" }
scope_descriptions = { a = "Read" }
[providers.acme.response]
access_token = "user.token"
error = "error.name"
[providers.acme.variables.tenant]
description = "Name of the tenant"
example = "contoso"
[providers.acme.variables.path]
description = "Path"
example = "x"
default = "oauth"
"#;

fn names(params: &[(String, Template)]) -> String {
    let text = |template: &Template| template.render(&Subject::shared(), &CallContext::default()).unwrap();
    let pairs = params.iter().map(|(name, value)| format!("{name}={}", text(value).expose()));
    pairs.collect::<Vec<_>>().join("&")
}

#[test]
fn a_profile_gets_what_its_provider_says() {
    let config = load(EVERYTHING, "variables = { tenant = \"contoso\" }").unwrap();
    assert_eq!(config.profiles[0].client_auth_name, "client_secret_post");
    let registration = &config.profiles[0].registration;
    assert_eq!(registration.pkce, Pkce::None);
    assert_eq!(registration.scopes.to_string(), "a b");
    assert_eq!(registration.default_token_lifetime, Some(Duration::from_secs(7200)));
    assert_eq!(registration.default_refresh_token_lifetime, Some(Duration::from_secs(720 * 3600)));
    assert_eq!(names(&registration.authorize_params), "access_type=offline&prompt=consent");
    assert_eq!(names(&registration.token_params), "audience=api&expiring=1");
    assert_eq!(names(&registration.refresh_params), "audience=api");
    let endpoint = registration.provider.endpoints.authorization_endpoint.as_ref().unwrap();
    assert_eq!(endpoint.as_str(), "https://contoso.acme.example/oauth/authorize");

    let quirks = &*registration.provider.quirks;
    assert_eq!(quirks.scope_text(&registration.scopes), "a,b");
    assert_eq!((quirks.parameter("scope"), quirks.parameter("client_id")), ("user_scope", "client_key"));
    assert_eq!((quirks.parameter("client_secret"), quirks.parameter("state")), ("key_secret", "state"));
    assert_eq!(quirks.token_request_format, RequestFormat::Json);
    assert_eq!(quirks.token_request_headers["notion-version"], "2022-06-28");
    assert!(quirks.raw_basic_credentials);
    assert_eq!(quirks.token_types, ["bot"]);
    assert_eq!(quirks.error_meanings["token_revoked"], CodeMeaning::GrantDead);
    assert_eq!(quirks.callback_params, ["realmId"]);
    assert_eq!(quirks.presentation.header().as_str(), "x-access-token");
    assert_eq!(quirks.presentation.scheme(), "");
    assert_eq!(quirks.assertion_audience.as_deref(), Some("https://contoso.acme.example"));
    assert_eq!(quirks.client_assertion_audience, AssertionAudience::TokenEndpoint);
    assert_eq!(quirks.response.access_token.as_ref().unwrap().0, ["user", "token"]);
}

#[test]
fn what_a_provider_takes_of_a_call_is_not_for_people() {
    let person = |provider: &str, profile: &str| {
        let provider = format!("authorization_endpoint = \"https://id.acme.example/authorize\"\n{provider}");
        with(&provider, profile).replace("client_credentials", "authorization_code")
    };
    let takes = "token_params = { tenant = \"{header.x-tenant}\" }";
    assert!(load(takes, "").is_ok());
    let told = faults(&person(takes, ""), &Variables::new());
    let expected =
        "profiles.books.provider: has token_params.tenant, which takes {header.x-tenant} from a call";
    assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    assert!(load_text(&person(takes, "token_params = { tenant = \"acme\" }"), &Variables::new()).is_ok());
    let told = faults(&with("authorize_params = { login_hint = \"{query.user}\" }", ""), &Variables::new());
    let expected = "providers.acme.authorize_params.login_hint: takes {query.user} from a call";
    assert!(told[0].starts_with(expected), "{told:?}");
}

#[test]
fn a_profile_has_the_last_word() {
    let config = load(
        EVERYTHING,
        r#"variables = { tenant = "contoso", path = "v2" }
        client_auth = "none"
        pkce = "S256"
        scopes = []
        authorize_params = { prompt = "", hd = "acme.example" }
        token_params = { audience = "other" }
        refresh_params = { extra = "1" }
        default_token_lifetime = "5m" #"#,
    );
    // The secret that nobody takes any more.
    let told = config.unwrap_err().to_string();
    assert!(told.contains("profiles.books.client_secret: unknown key"), "{told}");
    let text = with(
        EVERYTHING,
        "variables = { tenant = \"contoso\", path = \"v2\" }\nclient_auth = \"client_secret_query\"\npkce = \"S256\"\n\
         scopes = []\nauthorize_params = { prompt = \"\", hd = \"acme.example\" }\n\
         token_params = { audience = \"other\" }\nrefresh_params = { extra = \"1\" }\ndefault_token_lifetime = \"5m\"\n\
         default_refresh_token_lifetime = \"24h\"",
    );
    let config = load_text(&text, &Variables::new()).unwrap();
    assert_eq!(config.profiles[0].client_auth_name, "client_secret_query");
    let registration = &config.profiles[0].registration;
    assert_eq!(registration.pkce, Pkce::S256);
    assert!(registration.scopes.is_empty());
    assert_eq!(registration.default_token_lifetime, Some(Duration::from_secs(300)));
    assert_eq!(registration.default_refresh_token_lifetime, Some(Duration::from_secs(24 * 3600)));
    assert_eq!(names(&registration.authorize_params), "access_type=offline&hd=acme.example");
    assert_eq!(names(&registration.token_params), "audience=other&expiring=1");
    assert_eq!(names(&registration.refresh_params), "audience=other&extra=1");
    let endpoint = registration.provider.endpoints.authorization_endpoint.as_ref().unwrap();
    assert_eq!(endpoint.as_str(), "https://contoso.acme.example/v2/authorize");
}

#[test]
fn each_fault_of_a_provider_is_told_with_its_key_and_remedy() {
    for (line, told) in [
        ("grants = [\"client_credential\"]", "grants: there is no grant `client_credential`; did you mean"),
        ("grants = []", "grants: allows nothing"),
        ("client_auth = \"basic\"", "client_auth: there is no client authentication `basic`"),
        ("pkce = \"plain\"", "pkce: must be \"S256\""),
        ("scopes = [\"a b\"]", "scopes: scope \"a b\""),
        ("authorize_params = { state = \"x\" }", "authorize_params.state: is written by the gateway itself"),
        (
            "refresh_params = { refresh_token = \"x\" }",
            "refresh_params.refresh_token: is written by the gateway",
        ),
        ("default_token_lifetime = \"0s\"", "default_token_lifetime: must be longer than nothing"),
        ("scope_separator = \", \"", "scope_separator: must be one character"),
        ("scope_separator = \"a\"", "scope_separator: must be one character"),
        ("scope_parameter = \"state\"", "scope_parameter: is the name of another parameter"),
        ("client_id_parameter = \"a b\"", "client_id_parameter: must be a parameter's name"),
        ("token_request_format = \"xml\"", "token_request_format: must be \"form\" or \"json\""),
        (
            "token_request_headers = { Authorization = \"x\" }",
            "token_request_headers.Authorization: is written by",
        ),
        ("token_request_headers = { \"a b\" = \"x\" }", "token_request_headers.\"a b\": is no header name"),
        ("token_request_headers = { X = \"é\" }", "token_request_headers.X: must be visible ASCII"),
        ("basic_credentials = \"plain\"", "basic_credentials: must be \"raw\""),
        ("response = { access_token = \"a..b\" }", "response.access_token: must be a member's name"),
        ("response = { token = \"a\" }", "response.token: unknown key; known: access_token"),
        ("token_types = [\"\"]", "token_types: \"\" must be printable ASCII"),
        (
            "error_meanings = { x = \"invalid_grants\" }",
            "error_meanings.x: `invalid_grants` is no meaning of an error code; did you mean `invalid_grant`?",
        ),
        ("callback_params = [\"code\"]", "callback_params: `code` is read by the gateway itself"),
        (
            "access_token_header = \"Host\"",
            "access_token_header: is a header that the gateway or the connection needs",
        ),
        ("access_token_header = \"a b\"", "access_token_header: is no header name"),
        ("access_token_scheme = \"a b\"", "access_token_scheme: must be one word"),
        (
            "client_assertion_audience = \"me\"",
            "client_assertion_audience: must be \"issuer\", \"token_endpoint\" or",
        ),
        ("documentation = \"http://x.example\"", "documentation: must be https"),
        ("console = \"x\"", "console: is not a URL"),
        ("confidence = \"sure\"", "confidence: must be \"high\""),
        ("scope_descriptions = { \"a b\" = \"x\" }", "scope_descriptions.\"a b\": scope \"a b\""),
        ("api = \"http://api.example\"", "api: must be https"),
        ("api = \"{token.}\"", "api: has a placeholder that is not {token.NAME}"),
        ("api_hosts = [\"*\"]", "api_hosts: \"*\" is no host"),
        ("api_hosts = []", "api_hosts: must name a host"),
        ("probe = { method = \"PUT\", url = \"https://x.example\" }", "probe.method: must be \"GET\""),
        ("probe = { method = \"GET\" }", "probe.url: is missing"),
        ("probe = { url = \"x\" }", "probe.url: is not a URL"),
        (
            "jwks_uri = \"https://{tenant}.example\"",
            "jwks_uri: has {tenant}, which `variables` does not declare",
        ),
        ("jwks_uri = \"https://{tenant.example\"", "jwks_uri: has a `{` or `}` without the other"),
        (
            "jwks_uri = \"https://{token.x}/\"",
            "jwks_uri: must not have {token.x}: only `api` and `probe` may",
        ),
        ("variables.x.example = \"y\"", "variables.x: no URL has {x} in it"),
        ("variables.X.example = \"y\"", "variables.X: must be named in small letters"),
        (
            "api = \"https://{x}/\"\nvariables.x.kind = \"url\"",
            "variables.x.kind: must be \"segment\" or \"host\"",
        ),
        (
            "api = \"https://{x}/\"\nvariables.x.default = \"a/b\"",
            "variables.x.default: is no value of kind \"segment\"",
        ),
        ("scope_separater = \",\"", "scope_separater: unknown key; did you mean `scope_separator`?"),
    ] {
        // A profile that fills in nothing may be told that, too.
        let mut found = faults(&with(line, ""), &Variables::new());
        found.retain(|fault| !fault.starts_with("profiles.books.variables."));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("providers.acme.{told}")),
            "{line}: wanted {told:?}, got {found:#?}"
        );
    }
}

#[test]
fn a_profile_is_told_what_its_provider_needs() {
    const TENANT: &str = "jwks_uri = \"https://{tenant}.example\"\nvariables.tenant.description = \"Name of the tenant\"\n\
                          variables.tenant.example = \"contoso\"";
    const HOST: &str = "jwks_uri = \"https://{at}/\"\nvariables.at.kind = \"host\"";
    for (provider, profile, told) in [
        (
            "grants = [\"password\", \"jwt_bearer\"]",
            "",
            "grant: the provider does not support `client_credentials`; it has: password, jwt_bearer",
        ),
        (
            TENANT,
            "",
            "variables.tenant: is missing; provider `acme` needs it: Name of the tenant, such as \"contoso\"",
        ),
        (
            TENANT,
            "variables = { tenant = \"a\", tenat = \"b\" }",
            "variables.tenat: provider `acme` has no such variable; did you mean `tenant`?",
        ),
        (
            TENANT,
            "variables = { tenant = \"a/b\" }",
            "variables.tenant: must be one part of a host name or path",
        ),
        (TENANT, "variables = { tenant = \"a@b\" }", "variables.tenant: must be one part"),
        (TENANT, "variables = { tenant = \"evil.example:1\" }", "variables.tenant: must be one part"),
        (TENANT, "variables = { tenant = \"..\" }", "variables.tenant: must be one part"),
        (TENANT, "variables = { tenant = \"\" }", "variables.tenant: must be one part"),
        (TENANT, "variables = { tenant = \"x?\" }", "variables.tenant: must be one part"),
        (TENANT, "variables = { tenant = \"{x}\" }", "variables.tenant: must be one part"),
        (HOST, "variables = { at = \"a.example/x\" }", "variables.at: must be a host name"),
        (HOST, "variables = { at = \"u@a.example\" }", "variables.at: must be a host name"),
        (HOST, "variables = { at = \"a.example:0\" }", "variables.at: must be a host name"),
        (HOST, "variables = { at = \"999.1.1.1\" }", "variables: make no usable provider: "),
        ("", "variables = { x = \"y\" }", "variables.x: provider `acme` has no such variable"),
    ] {
        let found = faults(&with(provider, profile), &Variables::new());
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("profiles.books.{told}")),
            "{profile}: wanted {told:?}, got {found:#?}"
        );
    }
    let config = load(HOST, "variables = { at = \"a.example:8443\" }").unwrap();
    let jwks = config.profiles[0].registration.provider.endpoints.jwks_uri.as_ref().unwrap();
    assert_eq!(jwks.as_str(), "https://a.example:8443/");
}

fn templated(upstream: &str, hosts: &str, provider: &str) -> String {
    let route = format!("\"{upstream}\"\n{hosts}");
    with(provider, "").replace("\"https://api.acme.example/v1/\"", &route)
}

#[test]
fn an_upstream_of_the_token_answer_needs_hosts_that_it_may_lead_to() {
    const UPSTREAM: &str = "{token.instance_url}/v1/";
    for (upstream, hosts, told) in [
        (UPSTREAM, "", "upstream_hosts: is missing; no provider may choose any upstream"),
        (UPSTREAM, "upstream_hosts = []", "upstream_hosts: must name a host"),
        (UPSTREAM, "upstream_hosts = [\"*.com\"]", "upstream_hosts: \"*.com\" is no host"),
        ("{token.x}?a=1", "upstream_hosts = [\"*.a.example\"]", "upstream: "),
        (
            "{token.x}/{subject}",
            "upstream_hosts = [\"*.a.example\"]",
            "upstream: has a placeholder that is not",
        ),
        ("{subject}", "", "upstream: is not a URL"),
        (
            "https://a.example",
            "upstream_hosts = [\"a.example\"]",
            "upstream_hosts: is for an `upstream` with {token.",
        ),
    ] {
        let found = faults(&templated(upstream, hosts, ""), &Variables::new());
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("routes.books.{told}")),
            "{upstream} {hosts}: wanted {told:?}, got {found:#?}"
        );
    }
    let own = templated(
        UPSTREAM,
        "upstream_hosts = [\"*.b.example\", \"*.a.example\"]",
        "api_hosts = [\"c.example\"]",
    );
    let config = load_text(&own, &Variables::new()).unwrap();
    let bound: Vec<_> = config.profiles[0].origins.iter().collect();
    assert_eq!(bound, ["{token.instance_url} at *.a.example, *.b.example"]);
    let route = config.routing.iter().next().unwrap();
    assert_eq!((route.upstream_path.as_str(), route.template.is_some()), ("/v1", true));

    let providers = templated(UPSTREAM, "", "api_hosts = [\"c.example\"]");
    let config = load_text(&providers, &Variables::new()).unwrap();
    assert_eq!(config.profiles[0].origins.iter().collect::<Vec<_>>(), ["{token.instance_url} at c.example"]);
}

#[test]
fn a_directory_of_ones_own_wins_over_the_catalogue_and_an_inline_provider_over_both() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let file =
        |name: &str, text: &str| std::fs::write(directory.path().join("own").join(name), text).unwrap();
    std::fs::create_dir(directory.path().join("own")).unwrap();
    file("google.toml", "# Ours\ntoken_endpoint = \"https://own.example/google\"");
    file("acme.toml", "token_endpoint = \"https://own.example/acme\"");
    file("README.md", "no provider");
    let endpoint = |provider: &str| {
        let text = good()
            .replace("[server]", "[server]\ncatalogue = \"own\"")
            .replace("provider = \"acme\"", &format!("provider = \"{provider}\""));
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path, &Variables::new()).map_err(|errors| errors.to_string())?;
        let endpoints = &config.profiles[0].registration.provider.endpoints;
        Ok::<_, String>(endpoints.token_endpoint.as_ref().map(ToString::to_string).unwrap_or_default())
    };
    assert_eq!(endpoint("google").unwrap(), "https://own.example/google");
    assert_eq!(endpoint("acme").unwrap(), "https://id.acme.example/token");
    assert_eq!(endpoint("axway-amplify").unwrap(), "");

    file("bad.toml", "token_endpoint = \"http://own.example\"\nfrob = 1");
    let told = endpoint("google").unwrap_err();
    assert!(told.contains("bad.toml: token_endpoint: must be https"), "{told}");
    assert!(told.contains("bad.toml: frob: unknown key"), "{told}");
    file("bad.toml", &" ".repeat(300 * 1024));
    assert!(endpoint("google").unwrap_err().contains("bad.toml: is larger than 262144 bytes"));
    std::fs::remove_file(directory.path().join("own/bad.toml")).unwrap();
    file("Bad Name.toml", "issuer = \"https://x.example\"");
    assert!(endpoint("google").unwrap_err().contains("Bad Name.toml: must be named in small letters"));
    std::fs::remove_dir_all(directory.path().join("own")).unwrap();
    let told = endpoint("google").unwrap_err();
    assert!(
        told.contains("gateway.toml: server.catalogue: cannot be read: ")
            && told.contains("name a directory"),
        "{told}"
    );
}
