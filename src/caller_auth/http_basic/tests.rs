#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use actix_web::http::header::{HeaderMap, HeaderValue};
use base64::engine::general_purpose::STANDARD;
use claviger_actors::clock::SystemClock;
use claviger_actors::protocol::identifiers::CallerId;
use claviger_actors::proxy::rate_limit::{Rate, RateLimit};

use super::super::CallerDirectory;
use super::super::jwt::tests::no_transport;
use super::*;

/// Cheap parameters, for the tests' sake.
fn cheap_hash(password: &str) -> Secret {
    let params = Params::new(64, 1, 1, None).unwrap();
    let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Secret::new(argon2.hash_password(password.as_bytes(), &salt).unwrap().to_string())
}

fn caller(name: &str, password: &str) -> ConfiguredCaller {
    let id = CallerId::new(name).unwrap();
    let caller = Caller { id, routes: BTreeSet::new(), may_name_subject: false, rate: None };
    let basic = BasicCredential { username: name.to_owned(), password_hash: cheap_hash(password) };
    ConfiguredCaller { basic: Some(basic), ..ConfiguredCaller::new(caller) }
}

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn basic(user_and_password: &str) -> HeaderMap {
    headers(&[&format!("Basic {}", STANDARD.encode(user_and_password))])
}

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn directory() -> CallerDirectory {
    CallerDirectory::new([caller("billing", "s3cret"), caller("crm", "pa:ss wörd")], &no_transport())
}

async fn who(directory: &CallerDirectory, headers: &HeaderMap) -> Result<String, CallerAuthError> {
    directory.authenticate(headers.into(), NOW).await.map(|found| found.caller.id.to_string())
}

#[actix_web::test]
async fn right_credentials_name_their_caller() {
    let directory = directory();
    for _ in 0..2 {
        assert_eq!(who(&directory, &basic("billing:s3cret")).await.as_deref(), Ok("billing"));
        assert_eq!(who(&directory, &basic("crm:pa:ss wörd")).await.as_deref(), Ok("crm"));
    }
    let unpadded = headers(&["bAsIc  YmlsbGluZzpzM2NyZXQ"]);
    assert_eq!(who(&directory, &unpadded).await.as_deref(), Ok("billing"));
}

#[actix_web::test]
async fn everything_else_is_refused() {
    let directory = directory();
    for wrong in ["billing:", "billing:S3cret", "billing", "nobody:s3cret", ":s3cret", "", "billing:s3cret "]
    {
        assert_eq!(who(&directory, &basic(wrong)).await, Err(CallerAuthError::Refused), "{wrong}");
        assert_eq!(who(&directory, &basic(wrong)).await, Err(CallerAuthError::Refused), "{wrong}, again");
    }
    for wrong in ["Basic %%%", "Basic", "Bearer abc", "Basic  ", &format!("Basic {}", "A".repeat(5000))] {
        assert_eq!(who(&directory, &headers(&[wrong])).await, Err(CallerAuthError::Refused), "{wrong}");
    }
    assert_eq!(who(&directory, &HeaderMap::new()).await, Err(CallerAuthError::Absent));
    let twice = headers(&["Basic YmlsbGluZzpzM2NyZXQ=", "Basic YmlsbGluZzpzM2NyZXQ="]);
    assert_eq!(who(&directory, &twice).await, Err(CallerAuthError::Ambiguous));
    assert_eq!(
        who(&CallerDirectory::new([], &no_transport()), &basic("a:b")).await,
        Err(CallerAuthError::Refused)
    );
}

#[actix_web::test]
async fn verdicts_are_kept_for_a_while_and_no_longer() {
    let (configured, request) = (caller("billing", "s3cret"), basic("billing:s3cret"));
    let shared = Arc::new(configured.caller.clone());
    let method = build(&[(shared, configured)], &no_transport(), &Remembered::holding(10)).unwrap();
    assert!(matches!(method.recall((&request).into(), NOW), Recalled::Unknown));
    method.verify((&request).into(), NOW).await.unwrap();
    let later = |seconds| NOW.after(Duration::from_secs(seconds));
    assert!(matches!(method.recall((&request).into(), later(299)), Recalled::Accepted(_)));
    assert!(matches!(method.recall((&request).into(), later(300)), Recalled::Unknown));
    method.verify((&request).into(), later(300)).await.unwrap();
    assert!(matches!(method.recall((&request).into(), later(599)), Recalled::Accepted(_)));

    let wrong = basic("billing:wrong");
    assert_eq!(method.verify((&wrong).into(), NOW).await.unwrap_err(), CallerAuthError::Refused);
    assert!(matches!(method.recall((&wrong).into(), later(29)), Recalled::Refused));
    assert!(matches!(method.recall((&wrong).into(), later(30)), Recalled::Unknown));
}

#[actix_web::test]
async fn many_at_once_with_one_credential_cost_one_verification() {
    let directory = directory();
    let request = basic("billing:s3cret");
    let all = futures_util::future::join_all((0..500).map(|_| who(&directory, &request))).await;
    assert!(all.iter().all(|answer| answer.as_deref() == Ok("billing")), "none is overloaded");
}

#[actix_web::test]
async fn a_flood_of_new_credentials_is_shed() {
    let directory = directory();
    let requests: Vec<_> = (0..500).map(|n| basic(&format!("billing:{n}"))).collect();
    let all = futures_util::future::join_all(requests.iter().map(|r| who(&directory, r))).await;
    assert!(all.contains(&Err(CallerAuthError::Overloaded)));
    assert!(all.contains(&Err(CallerAuthError::Refused)));
}

#[test]
fn a_hashed_secret_passes_the_check_and_verifies() {
    let secret = Secret::new("correct horse");
    let hash = hash_secret(&secret).unwrap();
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_eq!(check_password_hash(&hash), Ok(()));
    let parsed = PasswordHash::new(&hash).unwrap();
    assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
    assert!(matches!(hash_secret(&Secret::new("")), Err(HashSecretError::Empty)));
    assert_ne!(hash_secret(&secret).unwrap(), hash, "each has its own salt");
}

#[test]
fn only_bounded_argon2id_hashes_are_accepted() {
    let hash = cheap_hash("x").expose().to_owned();
    assert_eq!(check_password_hash("hunter2"), Err(PasswordHashError::NotPhc));
    assert_eq!(
        check_password_hash(&hash.replace("argon2id", "argon2i")),
        Err(PasswordHashError::NotArgon2id)
    );
    assert_eq!(check_password_hash("$argon2id$v=19$m=64,t=1,p=1"), Err(PasswordHashError::Incomplete));
    assert_eq!(check_password_hash(&hash.replace("m=64", "m=4000000")), Err(PasswordHashError::TooCostly));
    assert_eq!(check_password_hash(&hash.replace("t=1", "t=1000")), Err(PasswordHashError::TooCostly));
}

#[test]
fn an_unknown_user_costs_as_much_as_a_known_one() {
    let hashes = [cheap_hash("x").expose().to_owned(), hash_secret(&Secret::new("y")).unwrap()];
    let nobody = hash_of_nobody(hashes.iter().map(String::as_str));
    assert_eq!(check_password_hash(nobody.expose()), Ok(()));
    assert!(nobody.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    let parsed = PasswordHash::new(nobody.expose()).unwrap();
    assert!(Argon2::default().verify_password(b"x", &parsed).is_err());
}

#[actix_web::test]
async fn two_credentials_at_once_are_refused() {
    use super::super::api_key::{ApiKeyHash, X_API_KEY, hash_api_key};
    let key = ApiKeyHash::parse(&hash_api_key(&Secret::new("key-1"))).unwrap();
    let keyed = ConfiguredCaller { api_key: Some(key), ..caller("billing", "s3cret") };
    let directory = CallerDirectory::new([keyed], &no_transport());
    let mut request = basic("billing:s3cret");
    assert_eq!(who(&directory, &request).await.as_deref(), Ok("billing"));
    request.insert(X_API_KEY, HeaderValue::from_static("key-1"));
    assert_eq!(who(&directory, &request).await, Err(CallerAuthError::Ambiguous));
    request.remove(AUTHORIZATION);
    assert_eq!(who(&directory, &request).await.as_deref(), Ok("billing"));
    assert_eq!(directory.challenges(), [CHALLENGE], "no scheme of HTTP's brings an API key");
}

/// What is remembered is that a password is right for a hash, never who anybody is.
#[actix_web::test]
async fn other_callers_take_over_without_verifying_everything_anew() {
    let before = directory();
    assert_eq!(who(&before, &basic("billing:s3cret")).await.as_deref(), Ok("billing"));
    assert_eq!(who(&before, &basic("crm:pa:ss wörd")).await.as_deref(), Ok("crm"));

    let mut renamed = caller("billing", "s3cret");
    renamed.caller.id = CallerId::new("invoices").unwrap();
    let after = before.succeeded_by([renamed.clone(), caller("crm", "changed")], &no_transport());
    let hash = &renamed.basic.as_ref().unwrap().password_hash;
    let passwords = &after.remembered.passwords;
    assert!(passwords.recall(b"s3cret", hash, NOW).is_some());
    assert!(passwords.recall(b"s3cret", hash, NOW.after(ACCEPTED_FOR)).is_none(), "for its time only");
    assert!(passwords.recall(b"S3cret", hash, NOW).is_none());
    assert!(passwords.recall(b"s3cret", &cheap_hash("changed"), NOW).is_none());
    assert_eq!(who(&after, &basic("billing:s3cret")).await.as_deref(), Ok("invoices"));
    assert_eq!(who(&after, &basic("crm:pa:ss wörd")).await, Err(CallerAuthError::Refused));
    assert_eq!(who(&after, &basic("crm:changed")).await.as_deref(), Ok("crm"));

    let gone = after.succeeded_by([caller("crm", "changed")], &no_transport());
    assert_eq!(who(&gone, &basic("billing:s3cret")).await, Err(CallerAuthError::Refused));
}

#[actix_web::test]
async fn no_more_verdicts_are_kept_than_configured() {
    let directory = CallerDirectory::remembering(16, [caller("billing", "s3cret")], &no_transport());
    let kept = || directory.verdicts().map(|(_, verdicts)| verdicts.kept).sum::<usize>();
    assert_eq!(kept(), 0);
    for wrong in 0..100 {
        assert!(who(&directory, &basic(&format!("nobody:{wrong}"))).await.is_err());
    }
    let kept = kept();
    assert!((1..=32).contains(&kept), "{kept}");
}

#[actix_web::test]
async fn a_rate_goes_on_where_callers_are_replaced_and_it_stays() {
    let limited = |requests: u32| {
        let requests = std::num::NonZeroU32::new(requests).unwrap();
        let rate = Rate { requests, per: Duration::from_secs(3600), burst: requests };
        let mut limited = caller("billing", "s3cret");
        limited.caller.rate = Some(Arc::new(RateLimit::new(rate, Arc::new(SystemClock))));
        limited
    };
    async fn take(directory: &CallerDirectory) -> bool {
        let headers = basic("billing:s3cret");
        let caller = directory.authenticate((&headers).into(), Timestamp::from_secs(1)).await.unwrap();
        caller.caller.rate.as_ref().unwrap().take().is_ok()
    }
    let first = CallerDirectory::new([limited(1)], &no_transport());
    assert!(take(&first).await && !take(&first).await);
    let same = first.succeeded_by([limited(1)], &no_transport());
    assert!(!take(&same).await, "another configuration fills no bucket");
    let other = same.succeeded_by([limited(2)], &no_transport());
    assert!(take(&other).await);
}
