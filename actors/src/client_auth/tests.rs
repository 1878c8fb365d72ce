#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;

mod assertions;

use super::*;
use crate::clock::SystemEntropy;
use crate::registration::settings::Setting;

fn settings(secret: &str) -> Settings {
    let mut settings = Settings::default();
    settings.insert("client_secret", Setting::Secret(secret.into()));
    settings
}

fn authenticated(method: &str, client_id: &str, secret: &str) -> TokenRequest {
    let method = (find(method).unwrap().build)(&mut settings(secret)).unwrap();
    let mut request = TokenRequest::new("client_credentials");
    let quirks = Quirks::default();
    let context = ClientAuthContext { client_id, issuer: Some("https://as.example"), ..context(&quirks) };
    method.authenticate(&context, &mut request).unwrap();
    request
}

fn context(quirks: &Quirks) -> ClientAuthContext<'_> {
    ClientAuthContext {
        client_id: "s6BhdRkqt3",
        quirks,
        credential: 0,
        issuer: None,
        token_endpoint: None,
        now: Timestamp::from_secs(1_700_000_000),
        entropy: &SystemEntropy,
    }
}

/// The text that HTTP Basic carries, before base64.
fn basic(client_id: &str, secret: &str) -> String {
    let request = authenticated("client_secret_basic", client_id, secret);
    assert_eq!(request.params.len(), 1, "nothing goes into the body");
    let header = request.headers[AUTHORIZATION].to_str().unwrap();
    String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap()).unwrap()
}

#[test]
fn names_are_unique_and_every_row_is_found() {
    for row in CLIENT_AUTH_METHODS {
        assert_eq!(CLIENT_AUTH_METHODS.iter().filter(|other| other.name == row.name).count(), 1);
        assert_eq!(find(row.name).unwrap().name, row.name);
    }
    assert!(find("client_secret").is_none());
}

#[test]
fn basic_is_the_example_of_rfc_6749_section_2_3_1() {
    let request = authenticated("client_secret_basic", "s6BhdRkqt3", "gX1fBat3bV");
    let value = &request.headers[AUTHORIZATION];
    assert_eq!(value, "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW");
    assert!(value.is_sensitive());
    assert!(!format!("{request:?}").contains("czZC"));
}

#[test]
fn basic_encodes_before_it_joins() {
    assert_eq!(basic("a:b", "c:d"), "a%3Ab:c%3Ad");
    assert_eq!(basic("100%", "a+b c&d=e/f"), "100%25:a%2Bb%20c%26d%3De%2Ff");
    assert_eq!(basic("dürer", "pässwörd€"), "d%C3%BCrer:p%C3%A4ssw%C3%B6rd%E2%82%AC");
    assert_eq!(basic("a-b.c_d~e", "x"), "a-b.c_d~e:x");
    // A form decoder gets back what went in.
    let pair = basic("id with:all +%&", "secret \u{1f511}");
    let (id, secret) = pair.split_once(':').unwrap();
    let decoded = |text: &str| url::form_urlencoded::parse(text.as_bytes()).next().unwrap().0.into_owned();
    assert_eq!((decoded(id), decoded(secret)), ("id with:all +%&".into(), "secret \u{1f511}".into()));
}

#[test]
fn post_puts_identifier_and_secret_into_the_body_only() {
    let request = authenticated("client_secret_post", "s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw");
    assert_eq!(request.get("client_id").unwrap().expose(), "s6BhdRkqt3");
    assert_eq!(request.get("client_secret").unwrap().expose(), "7Fjfp0ZBr1KtDRbnfVdmIw");
    assert!(request.headers.is_empty());
}

#[test]
fn a_public_client_only_names_itself() {
    let request = authenticated("none", "s6BhdRkqt3", "unused");
    assert_eq!(request.get("client_id").unwrap().expose(), "s6BhdRkqt3");
    assert_eq!((request.params.len(), request.headers.len()), (2, 0));
}

#[test]
fn a_certificate_is_the_connections_to_show_and_the_body_says_whose_it_is() {
    for name in ["tls_client_auth", "self_signed_tls_client_auth"] {
        let method = (find(name).unwrap().build)(&mut Settings::default()).unwrap();
        assert!(method.needs_certificate());
        // RFC 8705 section 2: `client_id` is a must.
        let request = authenticated(name, "s6BhdRkqt3", "unused");
        assert_eq!(request.get("client_id").unwrap().expose(), "s6BhdRkqt3");
        assert_eq!((request.params.len(), request.headers.len()), (2, 0));
    }
    let secret = (find("client_secret_basic").unwrap().build)(&mut settings("x")).unwrap();
    assert!(!secret.needs_certificate());
}

#[test]
fn a_method_takes_its_secret_and_says_when_there_is_none() {
    for name in ["client_secret_basic", "client_secret_post", "client_secret_jwt"] {
        let build = find(name).unwrap().build;
        let mut given = settings("x");
        build(&mut given).unwrap();
        assert_eq!(given.leftovers().count(), 0);
        let fault = build(&mut Settings::default()).unwrap_err();
        assert!(fault.to_string().contains("client_secret") && fault.to_string().contains(name), "{fault}");
        assert_eq!(build(&mut settings("")).unwrap_err().problem, "is empty");
    }
    // A secret for a public client is left over, and so an error of the configuration.
    let mut given = settings("x");
    (find("none").unwrap().build)(&mut given).unwrap();
    assert_eq!(given.leftovers().collect::<Vec<_>>(), ["client_secret"]);
}

#[test]
fn raw_basic_credentials_are_joined_as_they_are() {
    let method = (find("client_secret_basic").unwrap().build)(&mut settings("p w+d/%")).unwrap();
    let quirks = Quirks { raw_basic_credentials: true, ..Quirks::default() };
    let authenticate = |client_id| {
        let mut request = TokenRequest::new("client_credentials");
        let context = ClientAuthContext {
            client_id,
            quirks: &quirks,
            credential: 0,
            issuer: None,
            token_endpoint: None,
            now: Timestamp::from_secs(1_700_000_000),
            entropy: &SystemEntropy,
        };
        method.authenticate(&context, &mut request).map(|()| request)
    };
    let header = authenticate("my id").unwrap().headers[AUTHORIZATION].clone();
    assert!(header.is_sensitive());
    assert_eq!(header.to_str().unwrap(), format!("Basic {}", STANDARD.encode("my id:p w+d/%")));
    assert!(authenticate("my:id").is_err(), "the colon would move the border");
}
