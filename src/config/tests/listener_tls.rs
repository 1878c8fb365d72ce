//! TLS of listeners, and the client certificates of callers.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::super::listener_tls::ListenerTlsSettings;
use super::{HASH, Variables, good, load, variables};
use crate::caller_auth::SubjectAltName;

/// A folder with `gw.pem` and `gw.key`, which fit, `other.key`, which fits nothing, `ca.pem`, an
/// authority, `ended.pem` and `ended.key`, and `no.pem`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.certify("gw", (2020, 4000));
        folder.certify("ended", (2000, 2001));
        folder.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
        folder.write("no.pem", "no certificate\n");
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        folder.write("ca.pem", &params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem());
        folder
    }

    fn certify(&self, name: &str, (from, until): (i32, i32)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["gw.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        self.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn load(&self, text: &str, environment: &Variables) -> Result<super::GatewayConfig, Vec<String>> {
        let path = self.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let place = format!("{}/", self.path().display());
        let lines = |text: String| text.lines().map(|line| line.replace(&place, "")).collect::<Vec<_>>();
        load(&path, environment).map_err(|errors| {
            lines(errors.to_string())
                .into_iter()
                .map(|line| line.trim_start_matches("gateway.toml: ").to_owned())
                .collect()
        })
    }

    fn good(&self, lines: &str) -> super::GatewayConfig {
        self.load(&with(lines), &Variables::new()).unwrap()
    }

    fn faults(&self, lines: &str) -> Vec<String> {
        self.load(&with(lines), &Variables::new()).expect_err("it is bad")
    }
}

/// The good configuration with these lines at the top of `[listeners.proxy]` and further sections.
fn with(lines: &str) -> String {
    good().replace("[store]", &format!("[listeners.proxy]\n{lines}\n[store]"))
}

const FILES: &str = r#"tls = { cert = "gw.pem", key = "gw.key", client_ca = "ca.pem" }"#;

#[test]
fn listeners_speak_tls_as_they_are_told() {
    let folder = Folder::new();
    let plain = folder.good("").listeners;
    assert!(plain.proxy_tls.is_none() && plain.public_tls.is_none() && plain.admin_tls.is_none());
    assert!(!plain.http2.over_tls && !plain.http2.in_clear);
    assert!(folder.good("h2c = true").listeners.http2.in_clear);

    let listeners = folder.good(FILES).listeners;
    assert!(listeners.http2.over_tls && !listeners.http2.in_clear);
    let Some(ListenerTlsSettings::Files(files)) = &listeners.proxy_tls else { panic!("{listeners:?}") };
    let names = ["gw.pem", "gw.key", "ca.pem"].map(|name| folder.path().join(name));
    assert_eq!(files.paths(), names);
    assert_eq!(files.identity().client_authorities.as_ref().unwrap().len(), 1);
    assert!(!folder.good(&format!("http2 = false\n{FILES}")).listeners.http2.over_tls);

    let text = "[listeners.public]\ntls = \"self-signed\"\n[listeners.proxy]\ntls = \"self-signed\"";
    let listeners = folder.load(&with("").replace("[listeners.proxy]", text), &Variables::new()).unwrap();
    let both = (&listeners.listeners.proxy_tls, &listeners.listeners.public_tls);
    assert!(matches!(both, (Some(ListenerTlsSettings::SelfSigned), Some(ListenerTlsSettings::SelfSigned))));
}

#[test]
fn every_fault_of_a_listeners_tls_is_told() {
    let folder = Folder::new();
    for (lines, wanted) in [
        ("tls = \"selfsigned\"", &["tls: must be { cert = \"…\", key = \"…\" } or \"self-signed\""][..]),
        ("tls = true", &["tls: must be { cert"]),
        ("tls = {}", &["tls.cert: is missing; TLS needs `cert` and `key`", "tls.key: is missing"]),
        ("tls = { cert = \"gw.pem\" }", &["tls.key: is missing"]),
        (
            "tls = { cert = \"none.pem\", key = \"none.key\", client_ca = \"no.pem\" }",
            &[
                "tls.cert: file none.pem cannot be read",
                "tls.client_ca: file no.pem has no certificate in it",
                "tls.key: secret file none.key cannot be read",
            ],
        ),
        (
            "tls = { cert = \"no.pem\", key = \"gw.pem\" }",
            &["tls.cert: file no.pem has no", "tls.key: has no"],
        ),
        (
            "tls = { cert = \"gw.pem\", key = \"other.key\" }",
            &["tls: `key` does not belong to the certificate"],
        ),
        ("tls = { cert = \"gw.pem\", key = \"gw.key\", ca = \"x\" }", &["tls.ca: unknown key"]),
        ("h2c = true\ntls = \"self-signed\"", &["h2c: is HTTP/2 without TLS, and the listener has `tls`"]),
        ("http2 = true", &["http2: is HTTP/2 over TLS, and the listener has no `tls`"]),
    ] {
        let told = folder.faults(lines);
        assert_eq!(told.len(), wanted.len(), "{lines}: {told:?}");
        for (line, wanted) in told.iter().zip(wanted) {
            let line = line.strip_prefix("listeners.proxy.").unwrap();
            assert!(line.starts_with(wanted), "{lines}: {told:?}");
        }
    }
    for other in ["public", "admin"] {
        let text = with("").replace("[listeners.proxy]", &format!("[listeners.{other}]\nh2c = true"));
        let text = text.replacen("[listeners.admin]\n        bind", "# bind", 1);
        let told = folder.load(&text, &Variables::new()).unwrap_err();
        assert!(told[0].starts_with(&format!("listeners.{other}.h2c: unknown key")), "{told:?}");
    }
}

#[test]
fn a_certificate_that_has_ended_keeps_nothing_from_starting() {
    let folder = Folder::new();
    let config = folder.good("tls = { cert = \"ended.pem\", key = \"ended.key\" }");
    let [told] = &config.invalid_certificates[..] else { panic!("{:?}", config.invalid_certificates) };
    assert!(
        told.to_string().contains("listeners.proxy.tls.cert: the certificate in ended.pem ended at 2001")
    );
}

#[test]
fn a_key_may_come_from_a_variable_and_stays_known() {
    let folder = Folder::new();
    let key = std::fs::read_to_string(folder.path().join("gw.key")).unwrap();
    let text = with("tls = { cert = \"gw.pem\", key = { env = \"GW_KEY\" } }");
    let config = folder.load(&text, &variables(&[("GW_KEY", &key)])).unwrap();
    assert!(!format!("{config:?}").contains("PRIVATE"));
    let Some(ListenerTlsSettings::Files(files)) = &config.listeners.proxy_tls else { panic!() };
    assert_eq!(files.paths(), [folder.path().join("gw.pem")]);
    // The variable is not in this process's environment.
    files.read_again().unwrap();
}

#[test]
fn the_admin_listener_may_demand_certificates_instead_of_a_token() {
    let folder = Folder::new();
    let admin = |tls: &str| good().replace("\"127.0.0.1:9000\"", &format!("\"0.0.0.0:9000\"\n{tls}"));
    assert!(folder.load(&admin(FILES), &Variables::new()).is_ok());
    for tls in ["", "tls = \"self-signed\"", "tls = { cert = \"gw.pem\", key = \"gw.key\" }"] {
        let told = folder.load(&admin(tls), &Variables::new()).unwrap_err();
        assert!(told[0].starts_with("listeners.admin.token: is missing"), "{tls}: {told:?}");
    }
}

#[test]
fn a_public_url_that_contradicts_its_listener_is_noticed() {
    let folder = Folder::new();
    let warnings = |public_url: &str, public: &str| {
        let text = good().replace("https://gw.example/base/", public_url);
        let text = text.replace("[store]", &format!("[listeners.public]\n{public}\n[store]"));
        let config = folder.load(&text, &Variables::new()).unwrap();
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let told = warnings("http://127.0.0.1:8081", "tls = \"self-signed\"");
    assert!(told.len() == 1 && told[0].contains("server.public_url: is http, and"), "{told:?}");
    for url in ["https://127.0.0.1:8081", "https://localhost:8081/"] {
        let told = warnings(url, "");
        assert!(told.len() == 1 && told[0].contains("server.public_url: is https, and"), "{told:?}");
    }
    assert!(warnings("https://127.0.0.1:8081", "tls = \"self-signed\"").is_empty());
    // Another server ends TLS, and what comes to us from it is plain.
    assert!(warnings("https://gw.example", "").is_empty());
    assert!(warnings("https://127.0.0.1:8443", "").is_empty());
}

/// The good configuration with a client CA and these lines for its caller, and further sections.
fn caller(lines: &str, sections: &str) -> String {
    with(FILES).replace("[callers.billing]", &format!("[callers.billing]\n{lines}\n")) + sections
}

#[test]
fn callers_are_known_by_names_in_certificates() {
    let folder = Folder::new();
    let names = |lines: &str| {
        let config = folder.load(&caller(lines, ""), &Variables::new()).unwrap();
        config.callers[0].mtls.clone()
    };
    assert!(names("").is_empty());
    let dns = SubjectAltName::Dns("billing.internal".to_owned());
    assert_eq!(names("mtls = { san = \"Billing.Internal\" }"), std::slice::from_ref(&dns));
    let several = names("mtls = { san = [\"billing.internal\", \"spiffe://acme/billing\", \"::1\"] }");
    let uri = SubjectAltName::Uri("spiffe://acme/billing".to_owned());
    assert_eq!(several, [dns, uri, SubjectAltName::Ip("::1".parse().unwrap())]);
    // It needs no other credential.
    let only = caller("mtls = { san = \"a\" }", "").replace("basic = {", "# basic = {");
    assert!(folder.load(&only, &Variables::new()).is_ok());
}

#[test]
fn faults_of_callers_certificates_are_told() {
    let folder = Folder::new();
    let second = format!(
        "[callers.crm]\nroutes = [\"books\"]\nbasic = {{ username = \"crm\", password_hash = \"{HASH}\" }}\n\
         mtls = {{ san = [\"x\", \"BILLING.internal\"] }}\n"
    );
    for (text, wanted) in [
        (caller("mtls = {}", ""), "callers.billing.mtls.san: is missing"),
        (caller("mtls = { san = [] }", ""), "callers.billing.mtls.san: must not be empty"),
        (caller("mtls = { san = \"a b\" }", ""), "callers.billing.mtls.san: \"a b\" must be a DNS name"),
        (
            caller("mtls = { san = \"billing.internal\" }", &second),
            "callers.crm.mtls.san: billing.internal is also that of callers.billing",
        ),
        (
            caller("mtls = { san = \"a\" }", "").replace(FILES, "tls = \"self-signed\""),
            "callers.billing.mtls: needs a proxy listener that takes client certificates",
        ),
    ] {
        let told = folder.load(&text, &Variables::new()).expect_err("it is bad");
        assert!(told.len() == 1 && told[0].starts_with(wanted), "{wanted}: {told:?}");
    }
}
