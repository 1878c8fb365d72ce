//! Callers' credentials, subjects and parameters taken from calls.

use claviger_actors::protocol::template::Placeholder;
use claviger_actors::proxy::route::SubjectSource;

use super::{Variables, faults, good, load, load_text};
use crate::caller_auth::KeySource;

const NONE: &[(&str, &str)] = &[];
const PUBLIC_KEY: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const SECRET_KEY: &str = r#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}]}"#;
const JWT: &str =
    r#"{ issuer = "https://id.example", audience = "gw", jwks_uri = "https://id.example/jwks" }"#;

fn none() -> Variables {
    super::variables(NONE)
}

/// The good configuration with `lines` among the caller's and these further sections.
fn with(lines: &str, sections: &str) -> String {
    good().replace("[callers.billing]", &format!("[callers.billing]\n{lines}\n")) + sections
}

fn with_route(line: &str) -> String {
    good().replace("profile = \"books\"", &format!("profile = \"books\"\n{line}"))
}

fn with_profile(lines: &str) -> String {
    good().replace("client_id = \"c\"", &format!("client_id = \"c\"\n{lines}"))
}

#[test]
fn every_credential_is_read() {
    let hash = "sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    let config = load_text(&with(&format!("api_key_hash = \"{hash}\"\njwt = {JWT}"), ""), &none()).unwrap();
    let caller = &config.callers[0];
    assert!(caller.basic.is_some() && caller.api_key.is_some());
    let jwt = caller.jwt.as_ref().unwrap();
    assert_eq!((jwt.issuer.as_str(), jwt.audience.as_str()), ("https://id.example", "gw"));
    assert_eq!(jwt.subject_claim, "sub");
    assert!(matches!(&jwt.keys, KeySource::Uri(uri) if uri.as_str() == "https://id.example/jwks"));
}

#[test]
fn keys_are_read_from_a_file_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let jwt = r#"jwt = { issuer = "i", audience = "gw", jwks_file = "keys.json", subject_claim = "email", claims = { level = 3 } }"#;
    std::fs::write(&path, with(jwt, "")).unwrap();
    let error = load(&path, &none()).unwrap_err().to_string();
    assert!(
        error.contains("callers.billing.jwt.jwks_file: file ") && error.contains("cannot be read"),
        "{error}"
    );
    for unfit in [SECRET_KEY, "{}", "[]", "{\"keys\":[]}"] {
        std::fs::write(directory.path().join("keys.json"), unfit).unwrap();
        let error = load(&path, &none()).unwrap_err().to_string();
        assert!(error.contains("callers.billing.jwt.jwks_file: "), "{error}");
    }
    std::fs::write(directory.path().join("keys.json"), PUBLIC_KEY).unwrap();
    let config = load(&path, &none()).unwrap();
    let jwt = config.callers[0].jwt.as_ref().unwrap();
    assert!(matches!(&jwt.keys, KeySource::File { keys, .. } if keys.len() == 1));
    assert_eq!((jwt.subject_claim.as_str(), jwt.claims["level"].as_str()), ("email", "3"));
}

#[test]
fn faults_of_credentials_are_told() {
    for (lines, fault) in [
        ("api_key_hash = \"key-1\"", "callers.billing.api_key_hash: must be `sha256:`"),
        ("jwt = { audience = \"gw\", jwks_uri = \"https://a/\" }", "callers.billing.jwt.issuer: is missing"),
        ("jwt = { issuer = \"i\", jwks_uri = \"https://a/\" }", "callers.billing.jwt.audience: is missing"),
        ("jwt = { issuer = \"i\", audience = \"gw\" }", "callers.billing.jwt.jwks_uri: is missing"),
        (
            "jwt = { issuer = \"i\", audience = \"gw\", jwks_uri = \"http://a.example/\" }",
            "callers.billing.jwt.jwks_uri: must be https",
        ),
        (
            "jwt = { issuer = \"i\", audience = \"gw\", jwks_uri = \"https://a/\", jwks_file = \"x\" }",
            "callers.billing.jwt.jwks_file: stands beside `jwks_uri`",
        ),
        ("jwt = { isuer = \"i\" }", "callers.billing.jwt.isuer: unknown key; did you mean `issuer`?"),
    ] {
        let told = faults(&with(lines, ""), &none());
        assert!(told.iter().any(|line| line.starts_with(fault)), "{lines}: {told:?}");
    }
    let bare = good().replace("basic = {", "# basic = {");
    let told = faults(&bare, &none());
    assert!(told.len() == 1 && told[0].starts_with("callers.billing.basic: is missing"), "{told:?}");
}

#[test]
fn callers_must_be_told_apart() {
    let hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let same_key = with(
        &format!("api_key_hash = \"{hash}\""),
        "[callers.crm]\nroutes = [\"books\"]\napi_key_hash = \"sha256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=\"\n",
    );
    assert_eq!(faults(&same_key, &none()), ["callers.crm.api_key_hash: is also that of callers.billing"]);

    let second = |jwt: &str| {
        with(&format!("jwt = {JWT}"), &format!("[callers.crm]\nroutes = [\"books\"]\njwt = {jwt}\n"))
    };
    let told = faults(&second(JWT), &none());
    assert!(told[0].starts_with("callers.crm.jwt: could be that of callers.billing, too"), "{told:?}");
    let other_keys = JWT.replace("/jwks", "/keys");
    let told = faults(&second(&other_keys), &none());
    assert!(told[0].starts_with("callers.crm.jwt: names other keys for its issuer"), "{told:?}");
    assert!(load_text(&second(&JWT.replace("\"gw\"", "\"gw-crm\"")), &none()).is_ok());
}

#[test]
fn subjects_come_from_jwts_and_templates() {
    let subject = |line: &str| {
        let config = load_text(&with_route(line), &none()).unwrap();
        let route = config.routing.iter().next().unwrap().clone();
        (route.subject.as_str().to_owned(), route.takes_callers_word())
    };
    assert_eq!(subject("subject = \"jwt\""), ("jwt".into(), false));
    assert_eq!(subject("subject = \"header\""), ("header".into(), true));
    assert_eq!(subject("subject = \"{claim.email}\""), ("{claim.email}".into(), false));
    assert!(subject("subject = \"{caller.name}/{query.x}\"").1);
    for (line, fault) in [
        ("subject = \"{user}\"", "routes.books.subject: has the unknown placeholder {user}"),
        ("subject = \"{caller.name\"", "routes.books.subject: has a `{` or `}` without the other"),
        ("subject = \"{subject}\"", "routes.books.subject: names the subject by itself"),
        ("subject = \"{{x}}\"", "routes.books.subject: takes nothing from the call"),
        ("subject = \"{claim.a}{claim.b}\"", "routes.books.subject: has two placeholders side by side"),
        ("subject = \"{header.authorization}\"", "routes.books.subject: takes the caller's own credential"),
    ] {
        let told = faults(&with_route(line), &none());
        assert!(told.len() == 1 && told[0].starts_with(fault), "{line}: {told:?}");
    }
}

#[test]
fn routes_know_what_their_profiles_need_of_a_call() {
    let text = with_profile("token_params = { tenant = \"{header.X-Tenant}\", user = \"{subject}\" }");
    let config = load_text(&text, &none()).unwrap();
    let route = config.routing.iter().next().unwrap();
    assert_eq!(route.needs.values.iter().collect::<Vec<_>>(), [&Placeholder::Header("x-tenant".into())]);
    assert!(!route.takes_callers_word() && !route.needs.caller_token);

    let text = with_profile("refresh_params = { tenant = \"{claim.tenant}\" }");
    let config = load_text(&text, &none()).unwrap();
    assert!(!config.routing.iter().next().unwrap().needs.is_nothing());

    let exchange = good().replace("client_credentials", "token_exchange");
    let config = load_text(&exchange, &none()).unwrap();
    let route = config.routing.iter().next().unwrap();
    assert!(route.needs.caller_token && !route.subject_names_jwt && route.subject == SubjectSource::Caller);
}

#[test]
fn a_callers_word_needs_permission_only_where_it_says_whose_token_it_is() {
    let takes = |grant: &str, assertion: &str| {
        let lines = format!("assertion = {{ signing_key = {{ file = \"key.pem\" }}, {assertion} }}");
        let text = with_profile(&lines).replace("client_credentials", grant);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key.pem"), claviger_actors::testing::keys::RSA).unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let config = load(&path, &none()).unwrap();
        config.routing.iter().next().unwrap().takes_callers_word()
    };
    for (grant, assertion, expected) in [
        ("jwt_bearer", "subject = \"{header.x-user}\"", true),
        ("jwt_bearer", "subject = \"{query.user}@acme.example\"", true),
        ("jwt_bearer", "claims = { sub = \"{header.x-user}\" }", true),
        ("jwt_bearer", "subject = \"{claim.email}\", claims = { team = \"{header.x-team}\" }", false),
        ("jwt_bearer", "subject = \"{header.x-user}\", claims = { sub = \"robot\" }", false),
        ("saml2_bearer", "subject = \"{header.x-user}\"", true),
        ("saml2_bearer", "attributes = { team = \"{header.x-team}\" }", false),
    ] {
        assert_eq!(takes(grant, assertion), expected, "{grant}: {assertion}");
    }
}

#[test]
fn one_issuer_makes_its_subjects_tell_tokens_apart_and_two_do_not() {
    let jwt_route = with_route("subject = \"jwt\"")
        .replace("[callers.billing]", &format!("[callers.billing]\njwt = {JWT}"))
        .replace("client_credentials", "token_exchange");
    let names =
        |text: &str| load_text(text, &none()).unwrap().routing.iter().next().unwrap().subject_names_jwt;
    assert!(names(&jwt_route));
    let foreign = JWT.replace("id.example", "other.example");
    let second = |routes: &str| format!("{jwt_route}\n[callers.crm]\njwt = {foreign}\nroutes = [{routes}]\n");
    assert!(!names(&second("\"books\"")));
    let warnings = load_text(&second("\"books\""), &none()).unwrap().warnings;
    let told: Vec<_> = warnings.iter().map(|warning| warning.place.path.to_string()).collect();
    assert_eq!(told, ["routes.books.subject"]);
    assert!(load_text(&jwt_route, &none()).unwrap().warnings.is_empty());
    assert!(names(&second("")), "it may not call there");
}

#[test]
fn parameters_are_templates_and_faults_are_told() {
    let line = |params: &str| with_profile(params);
    for (params, fault) in [
        ("token_params = { a = \"{nobody}\" }", "profiles.books.token_params.a: has the unknown placeholder"),
        ("token_params = { a = \"{\" }", "profiles.books.token_params.a: has a `{`"),
        (
            "refresh_params = { grant_type = \"x\" }",
            "profiles.books.refresh_params.grant_type: is written by",
        ),
        (
            "authorize_params = { login_hint = \"{header.x-user}\" }",
            "profiles.books.authorize_params.login_hint: takes {header.x-user} from a call",
        ),
    ] {
        let told = faults(&line(params), &none());
        assert!(told.len() == 1 && told[0].starts_with(fault), "{params}: {told:?}");
    }
    let person = |params: &str| {
        line(params).replace("client_credentials", "authorization_code").replace(
            "token_endpoint =",
            "authorization_endpoint = \"https://id.acme.example/authorize\"\ntoken_endpoint =",
        )
    };
    let told = faults(&person("token_params = { a = \"{claim.a}\" }"), &none());
    assert!(told[0].starts_with("profiles.books.token_params.a: takes {claim.a} from a call"), "{told:?}");
    let good = person(
        "token_params = { a = \"{subject}\" }\nauthorize_params = { login_hint = \"{subject}\", j = '{{\"x\":1}}' }",
    );
    assert!(load_text(&good, &none()).is_ok());
}
