#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::protocol::secret::SecretBytes;
use crate::registration::settings::Setting;
use crate::testing::keys;

fn file(bytes: &[u8]) -> Setting {
    match std::str::from_utf8(bytes) {
        Ok(text) => Setting::Secret(text.into()),
        Err(_) => Setting::Binary(SecretBytes::new(bytes.to_vec())),
    }
}

fn value(value: impl Into<serde_json::Value>) -> Setting {
    Setting::Value(value.into())
}

fn take<const N: usize>(given: [(&str, Setting); N]) -> Result<Option<SigningKeys>, SettingsError> {
    let mut settings = Settings::default();
    for (key, setting) in given {
        settings.insert(key, setting);
    }
    let taken = SigningKeys::take(&mut settings);
    if taken.is_ok() {
        assert_eq!(settings.leftovers().count(), 0);
    }
    taken
}

#[track_caller]
fn refused<const N: usize>(given: [(&str, Setting); N]) -> String {
    take(given).unwrap_err().to_string()
}

#[test]
fn one_key_with_all_that_goes_with_it() {
    let taken = take([
        ("signing_key", file(keys::RSA_ENCRYPTED)),
        ("signing_alg", value("PS256")),
        ("key_id", value("2026")),
        ("signing_key_password", file(keys::PASSWORD.as_bytes())),
        ("certificate", file(keys::RSA_CERTIFICATE)),
    ]);
    let keys = taken.unwrap().unwrap();
    assert_eq!((keys.current().algorithm().name(), keys.current().kid()), ("PS256", "2026"));
    assert!(keys.current().x5t().is_some());
    assert_eq!(keys.published(), [keys.current()]);
    assert!(take([]).unwrap().is_none());
}

#[test]
fn of_several_keys_the_first_signs_and_all_are_published() {
    let list = Setting::List(vec![file(keys::P256), file(keys::RSA_P12), file(keys::RSA_1024)]);
    assert!(refused([("signing_key", list)]).contains("key 2 is encrypted"));
    let list = || Setting::List(vec![file(keys::P256), file(keys::RSA_P12)]);
    let password = || ("signing_key_password", file(keys::PASSWORD.as_bytes()));
    let keys = take([("signing_key", list()), password(), ("signing_alg", value("ES256"))]).unwrap().unwrap();
    let names: Vec<_> = keys.published().iter().map(|key| key.algorithm().name()).collect();
    assert_eq!(names, ["ES256", "RS256"]);
    assert_eq!(keys.current().algorithm().name(), "ES256");

    let named = vec!["new".to_owned(), "old".to_owned()];
    let keys = take([("signing_key", list()), password(), ("key_id", value(named))]).unwrap().unwrap();
    assert_eq!(keys.published().iter().map(SigningKey::kid).collect::<Vec<_>>(), ["new", "old"]);

    // A certificate finds its key.
    let keys = [
        ("signing_key", Setting::List(vec![file(keys::P256), file(keys::RSA)])),
        ("certificate", file(keys::RSA_CERTIFICATE)),
    ];
    let keys = take(keys).unwrap().unwrap().published();
    assert!(keys[0].x5t().is_none() && keys[1].x5t().is_some());
}

#[test]
fn every_fault_names_its_key_and_what_to_do() {
    let key = || ("signing_key", file(keys::RSA));
    let cases = [
        (refused([("signing_key", file(keys::RSA_1024))]), "signing_key: is an RSA key of 1024 bits"),
        (
            refused([("signing_key", file(keys::RSA_ENCRYPTED))]),
            "signing_key: is encrypted; give its password",
        ),
        (
            refused([key(), ("signing_alg", value("ES256"))]),
            "signing_alg: `signing_key` is an RSA key, but ES256",
        ),
        (
            refused([key(), ("signing_alg", value("HS256"))]),
            "signing_alg: \"HS256\" is no signature algorithm",
        ),
        (
            refused([key(), ("certificate", file(keys::CA_CERTIFICATE))]),
            "certificate: does not belong to the signing key",
        ),
        (
            refused([key(), ("key_id", value(vec!["a".to_owned(), "b".to_owned()]))]),
            "key_id: names more keys",
        ),
        (refused([("key_id", value("a"))]), "signing_key: is missing; `key_id` needs it"),
        (
            refused([("signing_key", Setting::List(vec![file(keys::RSA), file(keys::RSA)]))]),
            "signing_key: two keys have the name",
        ),
        (refused([("signing_key", value(true))]), "signing_key: must be a secret"),
    ];
    for (fault, expected) in cases {
        assert!(fault.starts_with(expected), "{fault}");
    }
}
