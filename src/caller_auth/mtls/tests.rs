#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use claviger_actors::protocol::identifiers::CallerId;
use claviger_actors::protocol::secret::Secret;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::super::jwt::tests::no_transport;
use super::super::{ApiKeyHash, CallerAuthError, CallerDirectory, PeerCertificate, X_API_KEY, hash_api_key};
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A caller with certificates of these names, and its name as its API key.
fn caller(name: &str, names: &[&str]) -> ConfiguredCaller {
    let id = CallerId::new(name).unwrap();
    let caller = Caller { id, routes: BTreeSet::new(), may_name_subject: false, rate: None };
    let api_key = Some(ApiKeyHash::parse(&hash_api_key(&Secret::new(name))).unwrap());
    let mtls = names.iter().map(|name| SubjectAltName::parse(name).unwrap()).collect();
    ConfiguredCaller { api_key, mtls, ..ConfiguredCaller::new(caller) }
}

fn directory() -> CallerDirectory {
    let callers =
        [caller("billing", &["billing.internal", "spiffe://acme/billing"]), caller("crm", &["crm.internal"])];
    CallerDirectory::new(callers, &no_transport())
}

fn certificate(names: &[&str], last_year: i32) -> PeerCertificate {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = date_time_ymd(last_year, 1, 1);
    PeerCertificate::read(params.self_signed(&key).unwrap().der())
}

/// Who comes with a certificate of these names, and with this API key.
async fn who(names: Option<&[&str]>, key: Option<&str>) -> Result<String, CallerAuthError> {
    let certificate = names.map(|names| certificate(names, 4000));
    ask(certificate.as_ref(), key).await
}

async fn ask(certificate: Option<&PeerCertificate>, key: Option<&str>) -> Result<String, CallerAuthError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        headers.insert(X_API_KEY, HeaderValue::from_str(key).unwrap());
    }
    let presented = Presented { headers: &headers, certificate };
    directory().authenticate(presented, NOW).await.map(|found| found.caller.id.to_string())
}

#[actix_web::test]
async fn a_certificate_says_who_its_caller_is() {
    assert_eq!(who(Some(&["billing.internal"]), None).await.unwrap(), "billing");
    assert_eq!(who(Some(&["other.example", "CRM.internal"]), None).await.unwrap(), "crm");
    assert_eq!(who(None, Some("crm")).await.unwrap(), "crm", "others need none");
    assert_eq!(who(None, None).await, Err(CallerAuthError::Absent));
}

#[actix_web::test]
async fn a_certificate_that_names_nobody_is_no_credential_and_no_harm() {
    for names in [&["other.internal"][..], &["*.internal"], &[]] {
        assert_eq!(who(Some(names), None).await, Err(CallerAuthError::Refused), "{names:?}");
        assert_eq!(who(Some(names), Some("crm")).await.unwrap(), "crm", "{names:?}");
    }
    let ended = certificate(&["billing.internal"], 2020);
    assert_eq!(ask(Some(&ended), None).await, Err(CallerAuthError::Refused));
    assert_eq!(ask(Some(&ended), Some("crm")).await.unwrap(), "crm");
}

#[actix_web::test]
async fn credentials_must_agree() {
    let billing: Option<&[&str]> = Some(&["billing.internal"]);
    assert_eq!(who(billing, Some("billing")).await.unwrap(), "billing");
    assert_eq!(who(billing, Some("crm")).await, Err(CallerAuthError::Conflicting));
    assert_eq!(who(billing, Some("wrong")).await, Err(CallerAuthError::Refused));
    let two: Option<&[&str]> = Some(&["billing.internal", "crm.internal"]);
    assert_eq!(who(two, None).await, Err(CallerAuthError::Conflicting));
    assert_eq!(who(two, Some("crm")).await, Err(CallerAuthError::Conflicting));
}

#[actix_web::test]
async fn a_credential_that_nothing_understands_is_wrong_beside_a_certificate_too() {
    let shown = certificate(&["billing.internal"], 4000);
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Digest x"));
    let presented = Presented { headers: &headers, certificate: Some(&shown) };
    let refused = directory().authenticate(presented, NOW).await.map(|found| found.caller.id.to_string());
    assert_eq!(refused, Err(CallerAuthError::Refused));
}

#[test]
fn a_challenge_is_made_even_if_certificates_are_all_there_is() {
    let mut only = caller("billing", &["billing.internal"]);
    only.api_key = None;
    assert_eq!(CallerDirectory::new([only], &no_transport()).challenges(), [CHALLENGE]);
}
