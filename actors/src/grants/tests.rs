#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::clock::SystemEntropy;
use crate::protocol::token::RefreshToken;
use crate::registration::settings::Setting;
use crate::testing::profiles;

pub(super) fn params(request: &TokenRequest) -> Vec<(&str, &str)> {
    request.params.iter().map(|(name, value)| (name.as_str(), value.expose())).collect()
}

pub(super) fn with_context<T>(use_it: impl FnOnce(GrantContext<'_>) -> T) -> T {
    let registration = profiles::registration("acme");
    let subject = Subject::new("alice").unwrap();
    use_it(GrantContext {
        client_id: "client",
        registration: &registration,
        subject: &subject,
        scopes: &ScopeSet::from_tokens(["mail", "openid"]).unwrap(),
        call: &CallContext::default(),
        redemption: None,
        token_endpoint: &profiles::url("https://as.example/token"),
        issuer: None,
        now: Timestamp::from_secs(1_700_000_000),
        entropy: &SystemEntropy,
    })
}

fn built(name: &str) -> Arc<dyn Grant> {
    let mut settings = Settings::default();
    (find(name).unwrap().build)(&mut settings).unwrap()
}

#[test]
fn names_are_unique_and_every_row_is_found() {
    for row in GRANTS {
        assert_eq!(GRANTS.iter().filter(|other| other.name == row.name).count(), 1);
        assert_eq!(find(row.name).unwrap().name, row.name);
    }
    assert!(find("refresh_token").is_none());
    assert!(find("implicit").is_none());
}

#[test]
fn a_device_code_is_redeemed_as_rfc_8628_section_3_4_has_it() {
    let redemption = Redemption {
        code: "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS".into(),
        code_verifier: None,
        redirect_uri: None,
        dpop_key: None,
        scopes: ScopeSet::default(),
        begun_at: Timestamp::default(),
        kept: BTreeMap::new(),
    };
    let request = with_context(|context| {
        built("device_code").token_request(&GrantContext { redemption: Some(&redemption), ..context })
    });
    assert_eq!(
        params(&request.unwrap()),
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS"),
            ("client_id", "client"),
        ]
    );
    let absent = with_context(|context| built("device_code").token_request(&context));
    assert_eq!(absent.unwrap_err(), GrantError::ConsentNeeded);
}

#[test]
fn who_needs_a_person_and_where() {
    assert!(built("authorization_code").needs_person() && !built("authorization_code").uses_device());
    assert!(built("device_code").needs_person() && built("device_code").uses_device());
    assert!(!built("client_credentials").needs_person());
}

#[test]
fn a_code_is_redeemed_with_verifier_and_redirect_uri_as_written() {
    let redemption = Redemption {
        code: "SplxlOBeZQQYbYS6WxSbIA".into(),
        code_verifier: Some(CodeVerifier::from_secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into())),
        redirect_uri: Some("https://client.example.com/cb?x=%7e".parse().unwrap()),
        dpop_key: None,
        scopes: ScopeSet::default(),
        begun_at: Timestamp::default(),
        kept: BTreeMap::new(),
    };
    let request = with_context(|context| {
        built("authorization_code").token_request(&GrantContext { redemption: Some(&redemption), ..context })
    });
    assert_eq!(
        params(&request.unwrap()),
        [
            ("grant_type", "authorization_code"),
            ("code", "SplxlOBeZQQYbYS6WxSbIA"),
            ("redirect_uri", "https://client.example.com/cb?x=%7e"),
            ("code_verifier", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        ]
    );
}

#[test]
fn without_a_code_a_person_must_consent() {
    let outcome = with_context(|context| built("authorization_code").token_request(&context));
    assert_eq!(outcome.unwrap_err(), GrantError::ConsentNeeded);
}

#[test]
fn client_credentials_ask_for_the_profiles_scope() {
    let request = with_context(|context| built("client_credentials").token_request(&context)).unwrap();
    assert_eq!(params(&request), [("grant_type", "client_credentials"), ("scope", "mail openid")]);
}

#[test]
fn a_refresh_names_no_scope() {
    let request = refresh_token::refresh_request(&RefreshToken::new("tGzv3JOkF0XG5Qx2TlKWIA").unwrap());
    let expected = [("grant_type", "refresh_token"), ("refresh_token", "tGzv3JOkF0XG5Qx2TlKWIA")];
    assert_eq!(params(&request), expected);
}

const CALLER_JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln";

fn exchange(settings: &[(&str, &str)]) -> Result<Arc<dyn Grant>, SettingsError> {
    let mut given = Settings::default();
    for (key, value) in settings {
        given.insert(*key, Setting::Value((*value).into()));
    }
    let grant = (find("token_exchange").unwrap().build)(&mut given)?;
    assert_eq!(given.leftovers().count(), 0, "a key is not taken");
    Ok(grant)
}

#[test]
fn a_callers_jwt_is_exchanged() {
    let grant = exchange(&[]).unwrap();
    assert!(!grant.needs_person() && grant.needs_caller_token());
    let call = CallContext { caller_token: Some(CALLER_JWT.into()), ..CallContext::default() };
    let request = with_context(|context| grant.token_request(&GrantContext { call: &call, ..context }));
    assert_eq!(
        params(&request.unwrap()),
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", CALLER_JWT),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("scope", "mail openid"),
        ]
    );
    let without = with_context(|context| grant.token_request(&context));
    assert_eq!(without.unwrap_err(), GrantError::NoCallerToken);
}

/// RFC 8693 section 2.3 and appendix A.2.
#[test]
fn every_parameter_of_an_exchange_is_sent_as_configured() {
    let grant = exchange(&[
        ("subject_token", "accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC"),
        ("subject_token_type", "access_token"),
        ("actor_token", "our-own-token"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "tenant-{query.tenant}"),
    ])
    .unwrap();
    assert!(!grant.needs_caller_token());
    let tenant = Placeholder::Query("tenant".into());
    assert_eq!(grant.placeholders(), std::slice::from_ref(&tenant));
    let without = with_context(|context| grant.token_request(&context)).unwrap_err();
    assert_eq!(without.to_string(), "audience: the call has no value for {query.tenant}");
    let call = CallContext { values: [(tenant, "acme".into())].into(), ..CallContext::default() };
    let request = with_context(|context| grant.token_request(&GrantContext { call: &call, ..context }));
    assert_eq!(
        params(&request.unwrap()),
        [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", "accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC"),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("actor_token", "our-own-token"),
            ("actor_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", "tenant-acme"),
            ("scope", "mail openid"),
        ]
    );
}

#[test]
fn what_an_exchange_cannot_mean_is_refused() {
    for (settings, key) in [
        (&[("subject_token_type", "jwtt")][..], "subject_token_type"),
        (&[("requested_token_type", "access token")], "requested_token_type"),
        (&[("actor_token_type", "jwt")], "actor_token_type"),
        (&[("audience", "{nobody}")], "audience"),
    ] {
        assert_eq!(exchange(settings).unwrap_err().key, key);
    }
}
