//! How a person is asked, and the security profile: what is good, and what is told of what is not.

use claviger_actors::registration::quirks::AssertionAudience;
use claviger_actors::testing::keys;

use super::*;

/// Loads a profile of a person at `https://id.acme.example`, with these lines and keys beside it.
fn with_lines(lines: &str) -> Result<GatewayConfig, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("es256.pem", keys::P256), ("rsa.pem", keys::RSA)] {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let text = good()
        .replace("token_endpoint = \"https://id.acme.example/token\"", "issuer = \"https://id.acme.example\"")
        .replace("client_secret = \"HUSH\"", "")
        .replace("grant = \"client_credentials\"", &format!("grant = \"authorization_code\"\n{lines}"));
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    load(&path, &Variables::new())
}

const PLAIN: &str = "client_auth = \"none\"\nscopes = [\"openid\"]\n";
const SIGNER: &str =
    "client_auth = \"private_key_jwt\"\nsigning_key = { file = \"es256.pem\" }\nsigning_alg = \"ES256\"\n";

#[track_caller]
fn told(lines: &str) -> Vec<String> {
    let errors = with_lines(lines).expect_err("the configuration is bad").to_string();
    errors.lines().map(|line| line.split_once("gateway.toml: ").unwrap().1.to_owned()).collect()
}

#[test]
fn everything_about_asking_is_read() {
    let lines = "par = true\nrequire_iss = true\nmax_age = \"5m\"\nacr_values = \"urn:mfa\"\nprompt = \"login\"\n\
                 login_hint = \"{subject}\"\nclaims = { id_token = { acr = { essential = true } } }\n\
                 authorization_details = [{ type = \"account\", limit = 5 }]\n\
                 resource = [\"https://a.example/\", \"urn:b\"]";
    let config = with_lines(&format!("{PLAIN}{lines}")).unwrap();
    let options = &config.profiles[0].registration.authorization;
    assert!(options.pushed && options.require_iss && options.request_object.is_none());
    let alice = claviger_actors::protocol::identifiers::Subject::new("alice").unwrap();
    let params = options.params(&alice, &Default::default()).unwrap();
    let expected = [
        ("acr_values", "urn:mfa"),
        ("prompt", "login"),
        ("login_hint", "alice"),
        ("max_age", "300"),
        ("claims", r#"{"id_token":{"acr":{"essential":true}}}"#),
        ("authorization_details", r#"[{"limit":5,"type":"account"}]"#),
        ("resource", "https://a.example/"),
        ("resource", "urn:b"),
    ];
    assert_eq!(params, expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn what_cannot_be_asked_is_told_with_its_key() {
    for (line, expected) in [
        ("login_hint = \"{nobody}\"", "profiles.books.login_hint: has the unknown placeholder {nobody}"),
        ("prompt = \"\"", "profiles.books.prompt: is empty"),
        ("max_age = \"1500ms\"", "profiles.books.max_age: must be whole seconds"),
        ("claims = \"x\"", "profiles.books.claims: must be a table"),
        (
            "authorization_details = [{ kind = \"x\" }]",
            "profiles.books.authorization_details: must be an array",
        ),
        ("resource = [\"/relative\"]", "profiles.books.resource: \"/relative\" is no absolute URI"),
        ("resource = [\"https://a/#b\"]", "profiles.books.resource: \"https://a/#b\" is no absolute URI"),
        ("request_object = true", "profiles.books.signing_key: is missing; `request_object` needs it"),
        (
            "request_object_key_id = \"x\"",
            "profiles.books.request_object_key_id: is of no use without `request_object",
        ),
        ("authorize_params = { request = \"x\" }", "profiles.books.authorize_params.request: is written by"),
        ("security_profile = \"fapi1\"", "profiles.books.security_profile: must be \"fapi2\""),
    ] {
        let told = told(&format!("{PLAIN}{line}"));
        assert!(told.len() == 1 && told[0].starts_with(expected), "{line}: {told:?}");
    }
    let unchecked = told("client_auth = \"none\"\nclaims = { id_token = { acr = { essential = true } } }");
    assert!(unchecked.len() == 1 && unchecked[0].starts_with("profiles.books.claims: makes `acr`"));
    let told = told("client_auth = \"none\"\nmax_age = \"5m\"");
    assert!(told[0].contains("add \"openid\" to `scopes`"), "{told:?}");
}

#[test]
fn requests_cannot_be_pushed_where_nobody_says_where_to() {
    let endpoint = "token_endpoint = \"https://id.acme.example/token\"";
    let person = format!("{endpoint}\nauthorization_endpoint = \"https://id.acme.example/authorize\"");
    let with = |provider: &str| {
        let text = good().replace(endpoint, provider);
        let grant = "grant = \"authorization_code\"\npar = true";
        load_text(&text.replace("grant = \"client_credentials\"", grant), &Variables::new())
    };
    let told = with(&person).unwrap_err().to_string();
    let expected = "profiles.books.par: provider `acme` has neither `pushed_authorization_request_endpoint` \
                    nor `issuer`, and `par` needs one";
    assert!(told.ends_with(expected) && told.lines().count() == 1, "{told}");
    let par = "pushed_authorization_request_endpoint = \"https://id.acme.example/par\"";
    with(&format!("{person}\n{par}")).unwrap();
}

#[test]
fn what_asks_a_person_knows_of_a_call_only_its_subject() {
    for (key, line) in [
        ("acr_values", "acr_values = \"{header.x-acr}\""),
        ("prompt", "prompt = \"{query.prompt}\""),
        ("login_hint", "login_hint = \"{claim.email}\""),
        ("claims", "claims = { userinfo = { sub = { value = \"{header.x-user}\" } } }"),
        ("authorization_details", "authorization_details = [{ type = \"a\", who = \"{caller.name}\" }]"),
    ] {
        let told = told(&format!("{PLAIN}{line}"));
        let expected = format!("profiles.books.{key}: takes {{");
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{line}: {told:?}");
    }
    // Without a person, the token request has the details, and the call is at hand.
    let lines = "client_id = \"c\"\nauthorization_details = [{ type = \"a\", who = \"{header.x-user}\" }]";
    let text = good().replace("client_id = \"c\"", lines);
    let config = load_text(&text, &Variables::new()).unwrap();
    assert_eq!(config.routing.iter().next().unwrap().needs.values.len(), 1);
}

#[test]
fn a_request_object_is_signed_with_the_clients_key_or_its_own() {
    let config = with_lines(&format!("{SIGNER}request_object = true")).unwrap();
    let profile = &config.profiles[0];
    let signer = profile.registration.authorization.request_object.as_ref().unwrap().current();
    assert_eq!(signer, profile.client.auth().unwrap().signing_keys().unwrap().current());
    let own = "request_object = true\nrequest_object_signing_key = { file = \"rsa.pem\" }\n\
               request_object_signing_alg = \"PS256\"\nrequest_object_key_id = \"own\"";
    let config = with_lines(&format!("{SIGNER}{own}")).unwrap();
    let signer = config.profiles[0].registration.authorization.request_object.as_ref().unwrap().current();
    assert_eq!((signer.algorithm().name(), signer.kid()), ("PS256", "own"));
    // A bad key that two of them share is told once.
    let shared = told("client_auth = \"private_key_jwt\"\nsigning_key = \"HUSH\"\nrequest_object = true");
    assert_eq!(shared.len(), 1, "{shared:?}");
}

#[test]
fn fapi2_is_on_with_one_line() {
    let config = with_lines(&format!("{SIGNER}security_profile = \"fapi2\"")).unwrap();
    let registration = &config.profiles[0].registration;
    let options = &registration.authorization;
    assert!(options.pushed && options.require_iss && options.fapi_algorithms_only);
    assert_eq!((registration.pkce, registration.dpop.map(|alg| alg.name())), (Pkce::S256, Some("ES256")));
}

#[test]
fn fapi2_makes_the_issuer_the_audience_of_client_assertions() {
    let fapi = format!("{SIGNER}security_profile = \"fapi2\"\n");
    let text = |audience: &str| told(&format!("{fapi}client_assertion_audience = \"{audience}\""));
    for audience in ["token_endpoint", "https://id.acme.example/token"] {
        let told = text(audience);
        let expected = "profiles.books.client_assertion_audience: contradicts security_profile = \"fapi2\"";
        assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
    }
    assert!(with_lines(&format!("{fapi}client_assertion_audience = \"issuer\"")).is_ok());
    // The provider's own wish is for other clients.
    let quirk = "issuer = \"https://id.acme.example\"\nclient_assertion_audience = \"token_endpoint\"";
    let with_quirk = |lines: &str| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("es256.pem"), keys::P256).unwrap();
        let text = good()
            .replace("token_endpoint = \"https://id.acme.example/token\"", quirk)
            .replace("client_secret = \"HUSH\"", lines);
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let config = load(&path, &Variables::new()).unwrap_or_else(|errors| panic!("{errors}"));
        config.profiles[0].registration.provider.quirks.client_assertion_audience.clone()
    };
    assert_eq!(with_quirk(SIGNER), AssertionAudience::TokenEndpoint);
    assert_eq!(with_quirk(&fapi), AssertionAudience::Issuer);
}

#[test]
fn a_bound_token_is_sent_in_no_other_way_than_rfc_9449_has_it() {
    for (quirk, line, key) in [
        ("access_token_header = \"X-Token\"", "dpop = true", "dpop"),
        ("access_token_scheme = \"Token\"", "dpop = true", "dpop"),
    ] {
        let text = good()
            .replace("[profiles.books]", &format!("{quirk}\n[profiles.books]"))
            .replace("client_id = \"c\"", &format!("client_id = \"c\"\n{line}"));
        let told = faults(&text, &Variables::new());
        let expected = format!("profiles.books.{key}: cannot go with `access_token_header`");
        assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
        assert!(load_text(&text.replace("dpop = true", "dpop = false"), &Variables::new()).is_ok());
    }
}

#[test]
fn what_contradicts_fapi2_is_told_all_at_once() {
    let told = told(
        "security_profile = \"fapi2\"\nclient_auth = \"none\"\npar = false\npkce = \"none\"\ndpop = false\n\
         require_iss = false",
    );
    let keys: Vec<_> = told.iter().map(|line| line.split(':').next().unwrap()).collect();
    let expected = ["client_auth", "dpop", "par", "pkce", "require_iss"];
    assert_eq!(keys, expected.map(|key| format!("profiles.books.{key}")), "{told:?}");
    assert!(told.iter().all(|line| line.contains("fapi2")), "{told:?}");
    assert!(told[0].contains("private_key_jwt, tls_client_auth, self_signed_tls_client_auth"), "{told:?}");
}

#[test]
fn a_required_iss_needs_an_issuer_to_compare_with() {
    let endpoints = "authorization_endpoint = \"https://id.acme.example/a\"\ntoken_endpoint =";
    let text = |line: &str| {
        let grant = format!("grant = \"authorization_code\"\n{line}");
        good().replace("token_endpoint =", endpoints).replace("grant = \"client_credentials\"", &grant)
    };
    let told = faults(&text("require_iss = true"), &Variables::new());
    assert!(told.len() == 1 && told[0].starts_with("profiles.books.require_iss: wants `iss`"), "{told:?}");
    assert!(load_text(&text("require_iss = false"), &Variables::new()).is_ok());
}

#[test]
fn fapi2_allows_no_weak_algorithm() {
    let rsa = "security_profile = \"fapi2\"\nclient_auth = \"private_key_jwt\"\nsigning_key = { file = \"rsa.pem\" }\n";
    let weak = told(rsa);
    assert!(
        weak.len() == 1 && weak[0].starts_with("profiles.books.signing_alg: `RS256` is not allowed"),
        "{weak:?}"
    );
    assert!(with_lines(&format!("{rsa}signing_alg = \"PS256\"")).is_ok());
    let weak = told(&format!("{SIGNER}security_profile = \"fapi2\"\nid_token_signing_alg = \"RS256\""));
    assert!(weak[0].starts_with("profiles.books.id_token_signing_alg: `RS256` is not allowed"), "{weak:?}");
    let weak = told(&format!("{SIGNER}security_profile = \"fapi2\"\ndpop_signing_alg = \"ES384\""));
    assert!(weak[0].starts_with("profiles.books.dpop_signing_alg: `ES384` is not allowed"), "{weak:?}");
}

#[test]
fn routes_say_which_scopes_they_need() {
    let text = good().replace("profile = \"books\"", "profile = \"books\"\nscopes = [\"write\", \"read\"]");
    let config = load_text(&text, &Variables::new()).unwrap();
    assert_eq!(config.routing.iter().next().unwrap().context.scopes.to_string(), "read write");
    let text = good().replace("profile = \"books\"", "profile = \"books\"\nscopes = [\"a b\"]");
    assert!(faults(&text, &Variables::new())[0].starts_with("routes.books.scopes: scope \"a b\""));
}
