#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::clock::SystemEntropy;
use crate::protocol::token::RefreshToken;
use crate::testing::profiles;

fn params(request: &TokenRequest) -> Vec<(&str, &str)> {
    request.params.iter().map(|(name, value)| (name.as_str(), value.expose())).collect()
}

fn with_context<T>(use_it: impl FnOnce(GrantContext<'_>) -> T) -> T {
    let registration = profiles::registration("acme");
    let subject = Subject::new("alice").unwrap();
    use_it(GrantContext {
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
