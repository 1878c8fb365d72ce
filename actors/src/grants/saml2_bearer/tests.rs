#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::grants::tests::{params, with_context};
use crate::protocol::saml::SamlError;
use crate::protocol::template::{CallContext, TemplateError};
use crate::registration::ClientRegistration;
use crate::registration::settings::Setting;
use crate::testing::profiles;

const KEY: &str = include_str!("../../testing/keys/rsa.pem");
const ED25519: &str = include_str!("../../testing/keys/ed25519.pem");

fn text(text: &str) -> Setting {
    Setting::Value(text.into())
}

fn table(entries: &[(&str, Setting)]) -> Settings {
    let mut table = Settings::default();
    for (key, setting) in entries {
        table.insert(*key, setting.clone());
    }
    table
}

/// The grant with a signing key and these entries of `assertion`.
fn built(entries: &[(&str, Setting)]) -> Result<Arc<dyn Grant>, SettingsError> {
    let key = ("signing_key", Setting::Secret(KEY.into()));
    let with_key = [&[key], entries].concat();
    build(&mut table(&[("assertion", Setting::Table(table(&with_key)))]))
}

/// The assertion that a grant sends, as XML.
fn sent(grant: &dyn Grant, change: impl FnOnce(GrantContext<'_>) -> TokenRequest) -> String {
    let request = with_context(change);
    let params = params(&request);
    assert_eq!(params[0], ("grant_type", GRANT_TYPE));
    assert_eq!(params[2], ("scope", "mail openid"), "{grant:?}");
    assert_eq!(params[1].0, "assertion");
    String::from_utf8(URL_SAFE_NO_PAD.decode(params[1].1).unwrap()).unwrap()
}

fn issued(entries: &[(&str, Setting)]) -> String {
    let grant = built(entries).unwrap();
    sent(&*grant, |context| grant.token_request(&context).unwrap())
}

#[test]
fn what_is_not_said_follows_from_the_profile() {
    let xml = issued(&[]);
    for part in [
        "<saml:Issuer>client</saml:Issuer>",
        "Format=\"urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified\">alice<",
        "NotOnOrAfter=\"2023-11-14T22:18:20Z\" Recipient=\"https://as.example/token\"",
        "NotBefore=\"2023-11-14T22:12:50Z\"",
        "<saml:Audience>https://as.example/token</saml:Audience>",
        "ac:classes:unspecified</saml:AuthnContextClassRef>",
    ] {
        assert!(xml.contains(part), "{part}: {xml}");
    }
    assert!(!xml.contains("AttributeStatement"), "{xml}");
}

#[test]
fn the_audience_is_the_providers_own_or_by_name() {
    let grant = built(&[]).unwrap();
    let mut registration: ClientRegistration = profiles::registration("acme");
    Arc::make_mut(&mut registration.provider.quirks).assertion_audience = Some("urn:the-quirk".into());
    let xml = sent(&*grant, |context| {
        grant.token_request(&GrantContext { registration: &registration, ..context }).unwrap()
    });
    assert!(xml.contains("<saml:Audience>urn:the-quirk<"), "{xml}");
    assert!(xml.contains("Recipient=\"https://as.example/token\""), "{xml}");

    let grant = built(&[("audience", text("issuer"))]).unwrap();
    let xml = sent(&*grant, |context| {
        grant.token_request(&GrantContext { issuer: Some("https://as.example"), ..context }).unwrap()
    });
    assert!(xml.contains("<saml:Audience>https://as.example<"), "{xml}");
    let unknown = with_context(|context| grant.token_request(&context)).unwrap_err();
    assert!(matches!(unknown, GrantError::Missing { grant: NAME, .. }), "{unknown}");
    assert!(issued(&[("audience", text("urn:given"))]).contains("<saml:Audience>urn:given<"));
}

#[test]
fn values_come_from_the_call() {
    let attributes = table(&[("team", text("{header.x-team}")), ("who", text("{caller.name}"))]);
    let grant =
        built(&[("subject", text("{claim.email}")), ("attributes", Setting::Table(attributes))]).unwrap();
    let placeholders = grant.placeholders();
    for expected in
        [Placeholder::Claim("email".into()), Placeholder::Header("x-team".into()), Placeholder::CallerName]
    {
        assert!(placeholders.contains(&expected), "{placeholders:?}");
    }
    let error = with_context(|context| grant.token_request(&context)).unwrap_err();
    let missing = TemplateError::Missing(Placeholder::Claim("email".into()));
    assert_eq!(error, GrantError::Call { what: "assertion.subject", source: missing });

    let grant = built(&[("subject", text("{header.x}"))]).unwrap();
    let mut call = CallContext::default();
    call.values.insert(Placeholder::Header("x".into()), "a\u{1}b".into());
    let error = with_context(|context| grant.token_request(&GrantContext { call: &call, ..context }));
    assert!(matches!(error.unwrap_err(), GrantError::Saml(SamlError::Character { .. })));
}

#[test]
fn every_key_that_is_wrong_is_named() {
    for (key, value) in [
        ("encoding", text("hex")),
        ("lifetime", text("2d")),
        ("lifetime", text("five")),
        ("clock_skew", text("0s")),
        ("name_id_format", text("email address")),
        ("subject", text("{subject")),
        ("attributes", text("a")),
        ("source", text("query")),
        ("template", text("<a/>")),
        ("signing_key", text("no key")),
        ("signing_key", text("managed")),
        ("signing_alg", text("ES257")),
        ("unheard", text("of")),
    ] {
        let error = built(&[(key, value)]).unwrap_err();
        assert_eq!(error.key, format!("assertion.{key}"), "{error}");
    }
    let attributes = Setting::Table(table(&[("a", Setting::List(vec![text("{x}")]))]));
    assert_eq!(built(&[("attributes", attributes)]).unwrap_err().key, "assertion.attributes.a");
    assert_eq!(build(&mut Settings::default()).unwrap_err().key, "assertion");
    let keyless = Setting::Table(table(&[("lifetime", text("1m"))]));
    assert_eq!(build(&mut table(&[("assertion", keyless)])).unwrap_err().key, "assertion.signing_key");
    let error = built(&[("signing_key", Setting::Secret(ED25519.into()))]).unwrap_err();
    assert_eq!(error.key, "assertion.signing_alg");
    assert!(error.problem.contains("EdDSA"), "{error}");
}

#[test]
fn somebody_elses_assertion_needs_no_key_and_no_client() {
    let other = |source: Setting| {
        build(&mut table(&[("assertion", Setting::Table(table(&[("source", source)])))])).unwrap()
    };
    let (header, given) = (other(text("header")), other(Setting::Secret("<planted/>".into())));
    assert!(header.needs_assertion() && !given.needs_assertion());
    for grant in [&header, &given] {
        assert!(!grant.needs_client_id() && !grant.needs_person());
        assert!(grant.signing_keys().is_none() && grant.placeholders().is_empty());
        assert!(!format!("{grant:?}").contains("planted"), "{grant:?}");
    }
    let ours = built(&[]).unwrap();
    assert!(ours.needs_client_id() && ours.signing_keys().is_some() && !ours.needs_assertion());
    assert!(!built(&[("issuer", text("urn:me"))]).unwrap().needs_client_id());
}
