//! How servers are reached: `tls`, `proxy`, limits and retries, and what is told of a bad one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// The good configuration beside certificates `ca.pem`, `client.pem` with `client.key`, and others
/// that are at fault.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let certificate_until = |end| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        params.not_after = end;
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let certificate = |year: i32| certificate_until(date_time_ymd(year, 1, 1));
    let since_1970 = Duration::from_millis(SystemClock.now().as_millis());
    let tomorrow = date_time_ymd(1970, 1, 1) + since_1970 + Duration::from_secs(86_400);
    let (cert, key) = certificate_until(tomorrow);
    write("soon.pem", &cert);
    write("soon.key", &key);
    let (cert, key) = certificate(4000);
    write("client.pem", &cert);
    write("client.key", &key);
    write("ca.pem", &certificate(4000).0);
    write("other.key", &certificate(4000).1);
    let (cert, key) = certificate(2001);
    write("old.pem", &cert);
    write("old.key", &key);
    write("empty.pem", "nothing\n");
    write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!HUSH!!\n-----END CERTIFICATE-----\n");
    write("wrong.pem", "-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n");
    folder
}

fn write(folder: &Path, provider: &str, profile: &str, route: &str) -> PathBuf {
    let text = good()
        .replace("[profiles.books]", &format!("{provider}\n[profiles.books]\n{profile}"))
        .replace("[routes.books]", &format!("[routes.books]\n{route}"));
    let path = folder.join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn loaded(folder: &Path, provider: &str, profile: &str, route: &str) -> GatewayConfig {
    load(&write(folder, provider, profile, route), &Variables::new()).unwrap_or_else(|e| panic!("{e}"))
}

/// Every fault, without the folder.
fn told(folder: &Path, provider: &str, profile: &str, route: &str) -> Vec<String> {
    let path = write(folder, provider, profile, route);
    let errors = load(&path, &Variables::new()).expect_err("the configuration is bad").to_string();
    assert!(!errors.contains("HUSH"), "{errors}");
    let place = format!("{}/", folder.display());
    errors.lines().map(|line| line.replace(&place, "").replace("gateway.toml: ", "")).collect()
}

const CLIENT: &str = "tls = { cert = \"client.pem\", key = \"client.key\" }";

#[test]
fn a_provider_is_reached_as_its_keys_say() {
    let folder = folder();
    let usual = loaded(folder.path(), "", "", "");
    let outbound = &usual.profiles[0].registration.provider.outbound;
    assert!(outbound.tls.is_none() && outbound.proxy.is_none() && !outbound.redirects);
    assert!(usual.routing.iter().all(|route| route.tls.is_none()));

    let keys = "tls = { ca = \"ca.pem\" }\nproxy = \"http://us%65r:p%3Aw@[::1]:3128\"\nredirects = true\n\
                connect_timeout = \"1s\"\nrequest_timeout = \"3s\"\nretry_statuses = [\"429\", \"502 - 504\"]\n\
                retries = 0";
    let config = loaded(folder.path(), keys, "", "");
    let registration = &config.profiles[0].registration;
    let outbound = &registration.provider.outbound;
    assert!(outbound.tls.is_some() && outbound.redirects && !outbound.shows_certificate);
    let proxy = outbound.proxy.as_ref().unwrap();
    assert_eq!((proxy.host.as_str(), proxy.port, proxy.is_loopback), ("[::1]", 3128, true));
    // "user:p:w"
    assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic dXNlcjpwOnc=");
    assert!(!format!("{outbound:?}").contains("dXNl"));
    assert_eq!(outbound.connect_timeout, Duration::from_secs(1));
    assert_eq!(outbound.request_timeout, Some(Duration::from_secs(3)));
    assert_eq!(registration.retry.request_timeout, Duration::from_secs(3));
    assert_eq!(registration.retry.attempts, 1);
    let passing: Vec<u16> = (400..600).filter(|status| outbound.retry_statuses.contains(*status)).collect();
    assert_eq!(passing, [429, 502, 503, 504]);
}

#[test]
fn a_client_certificate_is_shown_to_the_provider_and_bound_tokens_show_it_upstream() {
    let folder = folder();
    let profile = |more: &str| format!("{CLIENT}\n{more}");
    let config = loaded(folder.path(), "", &profile(""), "");
    let outbound = &config.profiles[0].registration.provider.outbound;
    assert!(
        outbound.shows_certificate && outbound.tls.as_ref().unwrap().client_auth_cert_resolver.has_certs()
    );
    assert!(config.routing.iter().all(|route| route.tls.is_none()), "only the provider is shown it");

    let bound = loaded(folder.path(), "", &profile("certificate_bound_tokens = true"), "");
    let shown = bound.routing.iter().next().unwrap().tls.clone().unwrap();
    assert!(shown.config.client_auth_cert_resolver.has_certs());
    let route = "tls = { ca = \"ca.pem\" }";
    let private = loaded(folder.path(), "", &profile("certificate_bound_tokens = true"), route);
    let private = private.routing.iter().next().unwrap().tls.clone().unwrap();
    assert!(private.config.client_auth_cert_resolver.has_certs());
    assert_ne!(private.identity, shown.identity);

    let route = "tls = { ca = \"ca.pem\", cert = \"client.pem\", key = { file = \"client.key\" } }";
    let own = loaded(folder.path(), "", "", route).routing.iter().next().unwrap().tls.clone().unwrap();
    assert_eq!(own.identity, private.identity, "the same authorities and certificate");
    let trusting = loaded(folder.path(), "", "", "tls = { ca = \"ca.pem\" }");
    let trusting = trusting.routing.iter().next().unwrap().tls.clone().unwrap();
    assert!(!trusting.config.client_auth_cert_resolver.has_certs());
    assert_ne!(trusting.identity, own.identity);
}

#[test]
fn a_client_certificate_that_has_ended_is_told_and_keeps_nothing_from_starting() {
    let folder = folder();
    let old = "tls = { cert = \"old.pem\", key = \"old.key\" }";
    for (profile, route, place) in [
        (format!("{old}\ncertificate_bound_tokens = true"), "", "profiles.books.tls.cert"),
        (String::new(), old, "routes.books.tls.cert"),
    ] {
        let config = loaded(folder.path(), "", &profile, route);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let [expired] = config.invalid_certificates.as_slice() else {
            panic!("{:?}", config.invalid_certificates)
        };
        let text = format!(
            "{place}: the certificate in old.pem ended at 2001-01-01T00:00:00Z; put a new one in its place"
        );
        assert!(expired.to_string().ends_with(&text), "{expired}");
    }
    let soon = "tls = { cert = \"soon.pem\", key = \"soon.key\" }";
    let config = loaded(folder.path(), "", soon, "");
    assert!(config.invalid_certificates.is_empty(), "{:?}", config.invalid_certificates);
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(warning.to_string().contains("profiles.books.tls.cert: the certificate in soon.pem ends at "));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_with_place_and_remedy() {
    let folder = folder();
    for (keys, fault) in [
        ("cert = \"none.pem\", key = \"client.key\"", "tls.cert: file none.pem cannot be read: No such file"),
        ("cert = \"empty.pem\", key = \"client.key\"", "tls.cert: file empty.pem has no certificate in it"),
        ("cert = \"broken.pem\", key = \"client.key\"", "tls.cert: file broken.pem is no PEM file"),
        ("cert = \"wrong.pem\", key = \"client.key\"", "tls.cert: file wrong.pem holds no X.509 certificate"),
        (
            "cert = \"client.pem\", key = \"none.key\"",
            "tls.key: secret file none.key cannot be read: No such file",
        ),
        ("cert = \"client.pem\", key = \"client.pem\"", "tls.key: has no private key in it"),
        ("cert = \"client.pem\", key = { env = \"NO\" }", "tls.key: environment variable NO is not set"),
        (
            "cert = \"client.pem\", key = \"other.key\"",
            "tls: `key` does not belong to the certificate in `cert`",
        ),
        ("cert = \"client.pem\"", "tls.key: is missing; a client certificate needs `cert` and `key`"),
        ("key = \"client.key\"", "tls.cert: is missing; a client certificate needs `cert` and `key`"),
        (
            "cert = \"client.pem\", key = \"client.key\", kye = \"\"",
            "tls.kye: unknown key; did you mean `key`?",
        ),
    ] {
        for (place, profile, route) in [
            ("profiles.books.", format!("tls = {{ {keys} }}"), String::new()),
            ("routes.books.", String::new(), format!("tls = {{ {keys} }}")),
        ] {
            let faults = told(folder.path(), "", &profile, &route);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(&format!("{place}{fault}")), "{faults:?}\n{place}{fault}");
        }
        // Told once, where it stands, although the route needs it too.
        let profile = format!("tls = {{ {keys} }}\ncertificate_bound_tokens = true");
        assert_eq!(told(folder.path(), "", &profile, "").len(), 1);
    }
    let faults = told(folder.path(), "tls = { ca = \"wrong.pem\" }", "", "tls = { ca = \"none.pem\" }");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!(faults[0], "providers.acme.tls.ca: wrong.pem is no certificate authority");
    assert!(faults[1].starts_with("routes.books.tls.ca: file none.pem cannot be read"), "{faults:?}");
}

#[test]
fn a_certificate_is_asked_for_where_one_is_needed() {
    let folder = folder();
    let mutual = "client_auth = \"tls_client_auth\"";
    let public = |text: &str| text.replace("client_secret = \"HUSH\"", "");
    let check = |profile: &str, route: &str| {
        let path = write(folder.path(), "", profile, route);
        let text = std::fs::read_to_string(&path).unwrap();
        if profile.contains("client_auth") {
            std::fs::write(&path, public(&text)).unwrap();
        }
        load(&path, &Variables::new()).map(|_| ()).map_err(|errors| errors.to_string())
    };
    let error = check(mutual, "").unwrap_err();
    assert!(
        error.contains("profiles.books.tls: is missing; client_auth = \"tls_client_auth\" needs `tls = {"),
        "{error}"
    );
    check(&format!("{mutual}\n{CLIENT}"), "").unwrap();
    let error = check("certificate_bound_tokens = true", "").unwrap_err();
    assert!(error.contains("profiles.books.certificate_bound_tokens: needs the certificate"), "{error}");
    let bound = format!("{CLIENT}\ncertificate_bound_tokens = true");
    let error = check(&bound, CLIENT).unwrap_err();
    assert!(error.contains("routes.books.tls.cert: is of no use"), "{error}");
}

#[test]
fn limits_retries_and_proxies_are_checked() {
    let folder = folder();
    for (keys, fault) in [
        ("connect_timeout = \"0s\"", "connect_timeout: must be longer than nothing"),
        ("request_timeout = \"6m\"", "request_timeout: must be longer than nothing, and at most 5 minutes"),
        ("retries = 11", "retries: must be at most 10"),
        ("retry_statuses = [\"399\"]", "retry_statuses: \"399\" must be a status from 402 to 599"),
        ("retry_statuses = [\"504-502\"]", "retry_statuses: \"504-502\" must be a status"),
        ("retry_statuses = [\"400-499\"]", "retry_statuses: \"400-499\" has 400 or 401 in it"),
        ("proxy = \"https://HUSH@p:1\"", "proxy: must be a URL such as \"http://proxy.example:3128\""),
        ("proxy = \"http://a:HUSH@p/path\"", "proxy: must be a URL"),
        ("proxy = \"http://a%3Ab:HUSH@p\"", "proxy: has a user name with `:` in it"),
        ("proxy = { env = \"NO\" }", "proxy: environment variable NO is not set"),
        ("redirects = \"yes\"", "redirects: must be true or false"),
    ] {
        let faults = told(folder.path(), keys, "", "");
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(&format!("providers.acme.{fault}")), "{faults:?}");
    }
}
