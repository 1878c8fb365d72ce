#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;

const ISSUER: &str = "https://server.example.com";

/// The document of RFC 8414 section 3.2, and two members more.
fn document() -> Value {
    json!({
        "issuer": "https://server.example.com",
        "authorization_endpoint": "https://server.example.com/authorize",
        "token_endpoint": "https://server.example.com/token",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "ES256"],
        "userinfo_endpoint": "https://server.example.com/userinfo",
        "jwks_uri": "https://server.example.com/jwks.json",
        "registration_endpoint": "https://server.example.com/register",
        "scopes_supported": ["openid", "profile", "email", "address", "phone", "offline_access"],
        "response_types_supported": ["code", "code token"],
        "service_documentation": "http://server.example.com/service_documentation.html",
        "ui_locales_supported": ["en-US", "en-GB", "en-CA", "fr-FR", "fr-CA"],
        "id_token_signing_alg_values_supported": ["RS256", "none"],
        "authorization_response_iss_parameter_supported": true
    })
}

fn with(name: &str, value: Value) -> Result<AuthorizationServerMetadata, MetadataError> {
    let mut document = document();
    document[name] = value;
    AuthorizationServerMetadata::parse(document.to_string().as_bytes(), ISSUER)
}

#[test]
fn the_document_of_rfc_8414_section_3_2_is_read() {
    let read = with("introspection_endpoint", json!("ftp://not.ours")).unwrap();
    assert_eq!(read.issuer, ISSUER);
    assert_eq!(read.authorization_endpoint.unwrap().as_str(), "https://server.example.com/authorize");
    assert_eq!(read.token_endpoint.unwrap().as_str(), "https://server.example.com/token");
    assert_eq!(read.jwks_uri.unwrap().as_str(), "https://server.example.com/jwks.json");
    assert_eq!(read.revocation_endpoint, None);
    assert_eq!(
        read.token_endpoint_auth_methods_supported.unwrap(),
        ["client_secret_basic", "private_key_jwt"]
    );
    assert_eq!(read.id_token_signing_alg_values_supported.unwrap(), ["RS256", "none"]);
    assert_eq!(read.code_challenge_methods_supported, None);
    assert!(read.authorization_response_iss_parameter_supported);
}

#[test]
fn the_issuer_must_be_the_one_asked_for_character_by_character() {
    for other in [
        "https://server.example.com/",
        "https://Server.example.com",
        "https://server.example.com:443",
        "https://evil.example",
    ] {
        let fault = with("issuer", json!(other)).unwrap_err();
        assert!(matches!(fault, MetadataError::IssuerMismatch { .. }), "{other}");
        assert!(fault.to_string().contains(other), "{fault}");
    }
    assert_eq!(with("issuer", Value::Null), Err(MetadataError::Member("issuer")));
}

#[test]
fn one_endpoint_that_is_not_allowed_spoils_the_document() {
    for name in ["authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"] {
        for bad in
            ["http://server.example.com/x", "/x", "javascript:alert(1)", "https://u:p@server.example.com/"]
        {
            assert_eq!(with(name, json!(bad)), Err(MetadataError::Endpoint(name)), "{bad}");
        }
        assert_eq!(with(name, json!(1)), Err(MetadataError::Member(name)));
    }
}

#[test]
fn members_of_the_wrong_type_are_refused() {
    assert_eq!(
        with("id_token_signing_alg_values_supported", json!("RS256")),
        Err(MetadataError::Member("id_token_signing_alg_values_supported"))
    );
    assert_eq!(
        with("code_challenge_methods_supported", json!([1])),
        Err(MetadataError::Member("code_challenge_methods_supported"))
    );
    for body in ["", "[]", "<html>", r#"{"issuer":"a","issuer":"a"}"#] {
        let fault = AuthorizationServerMetadata::parse(body.as_bytes(), ISSUER).unwrap_err();
        assert!(matches!(fault, MetadataError::Document(_)), "{body}");
    }
}

#[test]
fn well_known_urls_append_for_openid_connect_and_insert_for_rfc_8414() {
    let urls = |issuer: &str| well_known_urls(issuer).unwrap().iter().map(Url::to_string).collect::<Vec<_>>();
    assert_eq!(
        urls("https://example.com"),
        [
            "https://example.com/.well-known/openid-configuration",
            "https://example.com/.well-known/oauth-authorization-server",
        ]
    );
    for issuer in ["https://example.com/issuer1", "https://example.com/issuer1/"] {
        assert_eq!(
            urls(issuer),
            [
                "https://example.com/issuer1/.well-known/openid-configuration",
                "https://example.com/.well-known/oauth-authorization-server/issuer1",
            ]
        );
    }
}

#[test]
fn an_issuer_is_an_https_url_without_query_and_fragment() {
    for bad in
        ["", "example.com", "http://example.com", "https://example.com?x=1", "https://example.com#x", "urn:x"]
    {
        assert!(matches!(well_known_urls(bad), Err(MetadataError::Issuer(_))), "{bad}");
    }
    assert!(well_known_urls("http://127.0.0.1:4000").is_ok());
}

#[test]
fn plain_http_is_allowed_on_loopback_only() {
    for good in [
        "https://example.com/token?x=1",
        "http://127.0.0.1/t",
        "http://127.9.9.9:81/t",
        "http://[::1]:81/t",
        "http://localhost:81/t",
        "http://2130706433/t", // 127.0.0.1 written as one number
    ] {
        assert!(is_allowed_endpoint(&good.parse().unwrap()), "{good}");
    }
    for bad in [
        "http://example.com/",
        "http://localhost.evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://128.0.0.1/",
        "http://[::2]/",
        "http://0.0.0.0/",
        "https://user@example.com/",
        "https://:pass@example.com/",
        "https://example.com/#x",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "data:text/plain,x",
    ] {
        assert!(!is_allowed_endpoint(&bad.parse().unwrap()), "{bad}");
    }
}
