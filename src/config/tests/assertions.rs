//! SAML assertions and passwords in a profile: what is good, and what is told of the rest.

use claviger_actors::testing::keys;

use super::*;

const FORM: &str = "<s:Assertion xmlns:s=\"urn:oasis:names:tc:SAML:2.0:assertion\" Version=\"2.0\" ID=\"{id}\">\
                    <s:Issuer>{issuer}</s:Issuer></s:Assertion>\n";

fn with_profile(profile: &str) -> Result<GatewayConfig, ConfigErrors> {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("rsa.pem", keys::RSA), ("form.xml", FORM.as_bytes()), ("dtd.xml", b"<!DOCTYPE a><a/>")]
    {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    let path = directory.path().join("gateway.toml");
    let route = "[routes.crm]\npath = \"/crm\"\nupstream = \"https://crm.example\"\nprofile = \"crm\"\n";
    let text = good().replace("routes = [\"books\"]", "routes = [\"books\", \"crm\"]");
    let profile =
        format!("[profiles.crm]\nprovider = \"acme\"\nclient_auth = \"none\"\nclient_id = \"c\"\n{profile}");
    std::fs::write(&path, format!("{text}\n{route}\n{profile}")).unwrap();
    load(&path, &Variables::new())
}

/// The one fault of a profile with this `assertion`.
#[track_caller]
fn told(assertion: &str) -> String {
    let profile = format!("grant = \"saml2_bearer\"\n[profiles.crm.assertion]\n{assertion}\n");
    let errors = with_profile(&profile).expect_err("the configuration is bad").to_string();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.split_once("gateway.toml: ").unwrap().1.to_owned()
}

#[test]
fn faults_of_an_assertion_are_told_with_their_key() {
    for (assertion, expected) in [
        (
            "signing_key = { file = \"rsa.pem\" }\nlifetime = \"5\"",
            "profiles.crm.assertion.lifetime: must be a duration",
        ),
        ("lifetime = \"1m\"", "profiles.crm.assertion.signing_key: is missing"),
        (
            "signing_key = { file = \"rsa.pem\" }\nrecepient = \"x\"",
            "profiles.crm.assertion.recepient: is not known here",
        ),
        (
            "signing_key = { file = \"rsa.pem\" }\nsigning_alg = \"PS256\"",
            "profiles.crm.assertion.signing_alg: cannot be signed with PS256; use RS256",
        ),
        (
            "signing_key = { file = \"rsa.pem\" }\ntemplate = { file = \"dtd.xml\" }",
            "profiles.crm.assertion.template: is no XML that can be used: ",
        ),
        (
            "signing_key = { file = \"rsa.pem\" }\ntemplate = { file = \"form.xml\" }\nattributes = { a = \"b\" }",
            "profiles.crm.assertion.attributes: have no place",
        ),
        ("source = \"query\"", "profiles.crm.assertion.source: must be \"header\""),
        (
            "source = \"header\"\nsigning_key = { file = \"rsa.pem\" }",
            "profiles.crm.assertion.signing_key: is not known here; known: encoding, source",
        ),
    ] {
        let told = told(assertion);
        assert!(told.starts_with(expected), "{assertion}\n{told}");
    }
    let errors = with_profile("grant = \"saml2_bearer\"\n").unwrap_err().to_string();
    assert!(errors.contains("profiles.crm.assertion: is missing"), "{errors}");
    let form = "grant = \"saml2_bearer\"\n[profiles.crm.assertion]\nsigning_key = { file = \"rsa.pem\" }\n\
                template = { file = \"form.xml\" }\n";
    assert!(with_profile(form).is_ok());
}

#[test]
fn the_tour_shows_every_key_of_an_assertion() {
    let tour = std::fs::read_to_string(TOUR).unwrap();
    let section = tour.split_once("[profiles.hr.assertion]").unwrap().1;
    let told = told("signing_key = { file = \"rsa.pem\" }\nunheard = \"of\"");
    let known = told.split_once("known: ").unwrap().1.trim();
    assert!(known.split(", ").count() > 10, "{known}");
    for key in known.split(", ") {
        let shown = section.contains(&format!("# {key} = ")) || tour.contains(&format!("# {key} = "));
        assert!(shown, "{TOUR} does not show {key}");
    }
}

#[test]
fn a_password_profile_needs_a_name_and_a_password() {
    let password = |lines: &str| with_profile(&format!("grant = \"password\"\n{lines}\n"));
    assert!(password("username = \"a\"\npassword = \"{{b\"").is_ok());
    assert!(password("username = \"{subject}\"\npassword = \"{header.x-password}\"").is_ok());
    for (lines, expected) in [
        ("username = \"a\"", "profiles.crm.password: is missing; the password grant needs it"),
        ("password = \"a\"", "profiles.crm.username: is missing; the password grant needs it"),
        ("username = \"a\"\npassword = \"{b\"", "profiles.crm.password: has a `{` or `}` without the other"),
        (
            "username = \"{user}\"\npassword = \"b\"",
            "profiles.crm.username: has the unknown placeholder {user}",
        ),
    ] {
        let errors = password(lines).unwrap_err().to_string();
        assert!(errors.contains(expected), "{lines}\n{errors}");
    }
}
