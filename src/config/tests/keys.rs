//! Signing keys in a profile: what is good, and what is told of bad ones.

use claviger_actors::profile::ClientSource;
use claviger_actors::testing::keys;

use super::*;

/// A profile of its own beside the good configuration, with files of these names.
fn with_profile(profile: &str, files: &[(&str, &[u8])]) -> Result<GatewayConfig, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let path = directory.path().join("gateway.toml");
    let route = "[routes.crm]\npath = \"/crm\"\nupstream = \"https://crm.example\"\nprofile = \"crm\"\n";
    let text = good().replace("routes = [\"books\"]", "routes = [\"books\", \"crm\"]");
    std::fs::write(&path, format!("{text}\n{route}\n[profiles.crm]\nprovider = \"acme\"\n{profile}"))
        .unwrap();
    load(&path, &Variables::new())
}

#[track_caller]
fn told(profile: &str, files: &[(&str, &[u8])]) -> String {
    let errors = with_profile(profile, files).expect_err("the configuration is bad").to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.split_once("gateway.toml: ").unwrap().1.to_owned()
}

const SIGNER: &str = "client_id = \"c\"\ngrant = \"client_credentials\"\nclient_auth = \"private_key_jwt\"\n";
const BEARER: &str =
    "client_id = \"c\"\ngrant = \"jwt_bearer\"\nclient_auth = \"none\"\n[profiles.crm.assertion]\n";

#[test]
fn a_bad_key_is_told_with_profile_key_and_remedy() {
    let files: [(&str, &[u8]); 5] = [
        ("rsa.pem", keys::RSA),
        ("sealed.p12", keys::RSA_P12),
        ("sealed.pem", keys::RSA_ENCRYPTED),
        ("small.pem", keys::RSA_1024),
        ("ca.pem", keys::CA_CERTIFICATE),
    ];
    let cases = [
        (
            "signing_key = { file = \"small.pem\" }",
            "signing_key: is an RSA key of 1024 bits; make one of at least 2048",
        ),
        (
            "signing_key = { file = \"sealed.pem\" }",
            "signing_key: is encrypted; give its password as `signing_key_password`",
        ),
        (
            "signing_key = { file = \"sealed.p12\" }",
            "signing_key: is encrypted; give its password as `signing_key_password`",
        ),
        (
            "signing_key = { file = \"sealed.p12\" }\nsigning_key_password = \"x\"",
            "signing_key: cannot be opened with this `signing_key_password`; give the right one",
        ),
        (
            "signing_key = { file = \"rsa.pem\" }\nsigning_alg = \"ES256\"",
            "signing_alg: `signing_key` is an RSA key, but ES256 needs an EC P-256 key; take RS256 or ",
        ),
        (
            "signing_key = { file = \"rsa.pem\" }\ncertificate = { file = \"ca.pem\" }",
            "certificate: does not belong to the signing key; give the certificate that was issued for it",
        ),
        ("signing_key = { file = \"ca.pem\" }", "signing_key: has no private key in it; "),
        ("signing_key = { env = \"NO\" }", "signing_key: environment variable NO is not set"),
        ("", "signing_key: is missing; "),
    ];
    for (lines, expected) in cases {
        for (table, prefix) in [(SIGNER, "profiles.crm."), (BEARER, "profiles.crm.assertion.")] {
            let fault = told(&format!("{table}{lines}"), &files);
            assert!(fault.starts_with(&format!("{prefix}{expected}")), "{fault}");
        }
    }
}

#[test]
fn a_certificate_of_a_key_that_has_ended_is_told_and_keeps_nothing_from_starting() {
    let lines = "signing_key = { file = \"rsa.pem\" }\ncertificate = { file = \"old.pem\" }";
    let files: [(&str, &[u8]); 2] = [("rsa.pem", keys::RSA), ("old.pem", keys::RSA_EXPIRED_CERTIFICATE)];
    for (table, place) in [(SIGNER, "profiles.crm.certificate"), (BEARER, "profiles.crm.assertion")] {
        let config = with_profile(&format!("{table}{lines}"), &files).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let [warning] = config.invalid_certificates.as_slice() else {
            panic!("{:?}", config.invalid_certificates)
        };
        let warning = warning.to_string();
        assert!(warning.contains(&format!("{place}: the certificate of signing key ")), "{warning}");
        assert!(warning.ends_with(" ended at 2021-01-01T00:00:00Z; put a new one in its place"), "{warning}");
    }
    let files: [(&str, &[u8]); 2] = [("rsa.pem", keys::RSA), ("old.pem", keys::RSA_CERTIFICATE)];
    let good = with_profile(&format!("{SIGNER}{lines}"), &files).unwrap();
    assert!(good.warnings.is_empty() && good.invalid_certificates.is_empty());
}

#[test]
fn a_key_for_another_method_is_told_as_such() {
    let files: [(&str, &[u8]); 1] = [("rsa.pem", keys::RSA)];
    let plain = "client_id = \"c\"\ngrant = \"client_credentials\"\n";
    for (lines, expected) in [
        (
            "client_auth = \"none\"\nclient_secret = \"HUSH\"",
            "profiles.crm.client_secret: unknown key beside the others; it is for client_auth = \"client_secret_basic\", ",
        ),
        (
            "client_auth = \"client_secret_jwt\"\nclient_secret = \"HUSH\"\nsigning_key = { file = \"rsa.pem\" }",
            "profiles.crm.signing_key: unknown key beside the others; it is for client_auth = \"private_key_jwt\"",
        ),
        (
            "client_secret = \"HUSH\"\nassertion = { signing_key = { file = \"rsa.pem\" } }",
            "profiles.crm.assertion: unknown key beside the others; it is for grant = \"jwt_bearer\", grant = \"saml2_bearer\"",
        ),
        // A method that refuses one of its keys has not come to the others: they are not unknown.
        (
            "client_auth = \"client_secret_jwt\"\nclient_secret = \"HUSH\"\nsigning_alg = \"RS256\"",
            "profiles.crm.signing_alg: \"RS256\" is no signature algorithm with a shared secret; ",
        ),
    ] {
        let fault = told(&format!("{plain}{lines}"), &files);
        assert!(fault.starts_with(expected), "{fault}");
    }
}

#[test]
fn one_name_for_different_keys_is_a_warning() {
    let files: [(&str, &[u8]); 2] = [("one.pem", keys::P256), ("two.pem", keys::ED25519)];
    let lines = |key: &str| format!("{SIGNER}signing_key = {{ file = \"{key}\" }}\nkey_id = \"2026\"\n");
    let second =
        |key: &str| format!("{}[profiles.erp]\nprovider = \"acme\"\n{}", lines("one.pem"), lines(key));
    let about_names = |key: &str| {
        let warnings = with_profile(&second(key), &files).unwrap().warnings;
        let texts = warnings.iter().map(ToString::to_string);
        texts.filter(|text| text.contains("key_id")).collect::<Vec<_>>()
    };
    assert_eq!(about_names("one.pem"), [] as [&str; 0]);
    let [warning] = about_names("two.pem").try_into().unwrap();
    let expected =
        "profiles.erp.key_id: \"2026\" also names another key, of profile crm; give each its own name";
    assert!(warning.ends_with(expected), "{warning}");
}

#[test]
fn who_vouches_needs_no_client_identifier_and_no_consent() {
    let files: [(&str, &[u8]); 1] = [("crm.pem", keys::P256)];
    let assertion = "[profiles.crm.assertion]\nsigning_key = { file = \"crm.pem\" }\n";
    let grant = "grant = \"jwt_bearer\"\n";
    let named = with_profile(
        &format!("{grant}client_auth = \"none\"\n{assertion}issuer = \"https://idp.example\""),
        &files,
    );
    let named = named.unwrap();
    let profile =
        named.profiles.iter().find(|profile| profile.registration.profile.as_str() == "crm").unwrap();
    let ClientSource::Given(client) = &profile.client else { panic!("it does not register itself") };
    assert_eq!(client.client_id, "");
    assert!(!profile.grant.needs_person());

    let fault = told(&format!("{grant}client_auth = \"none\"\n{assertion}"), &files);
    assert!(fault.starts_with("profiles.crm.client_id: is missing"), "{fault}");
    let fault = told(&format!("{grant}client_secret = \"HUSH\"\n{assertion}issuer = \"x\""), &files);
    assert!(fault.starts_with("profiles.crm.client_id: is missing"), "{fault}");
}

/// The profile that the tour shows in comments.
#[test]
fn the_assertion_of_the_tour_is_read() {
    let tour = std::fs::read_to_string(TOUR).unwrap();
    let (_, rest) = tour.split_once("# [profiles.crm.assertion]\n").unwrap();
    let shown = rest.lines().map_while(|line| line.strip_prefix("# "));
    let shown: Vec<&str> = shown
        .filter(|line| !["sign_with", "service_account"].iter().any(|key| line.starts_with(key)))
        .collect();
    assert!(shown.len() >= 9, "{shown:?}");
    let files: [(&str, &[u8]); 1] = [("crm.pem", keys::P256)];
    with_profile(&format!("{BEARER}{}", shown.join("\n")), &files).unwrap();
}
