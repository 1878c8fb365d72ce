//! TLS of the listeners: what is spoken, what is shown, and who is let in by a client certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::certificates::{Authority, Certified};
use crate::support::eventually;
use crate::support::gateway::{Finished, Gateway};
use crate::support::gateway_config::{GatewayConfig, PASSWORD};
use crate::support::http::{self, Side};
use crate::support::in_process::InProcess;
use crate::support::scene::ScriptedScene;
use crate::support::tools::{curl, openssl};

/// A gateway's configuration with TLS on the proxy listener: `server.pem` is of the authority in
/// `ca.pem`, which also vouches for callers.
struct Scene {
    scene: ScriptedScene,
    authority: Authority,
}

impl Scene {
    async fn new() -> Self {
        let mut scene = ScriptedScene::machine().await;
        let authority = Authority::new(scene.config.folder());
        authority.certify("server", &["127.0.0.1"]);
        let tls = "tls = { cert = \"server.pem\", key = \"server.key\", client_ca = \"ca.pem\" }";
        scene.config.extend("listeners.proxy", tls);
        Self { scene, authority }
    }

    fn config(&mut self) -> &mut GatewayConfig {
        &mut self.scene.config
    }

    fn file(&self, name: &str) -> String {
        self.scene.config.folder().join(name).display().to_string()
    }

    /// A call with curl, which trusts the authority, with further arguments.
    async fn call(&self, arguments: &[&str]) -> Finished {
        let (ca, url) = (self.file("ca.pem"), format!("https://{}/calendar/x", self.scene.config.proxy));
        curl(&[&["--cacert", &ca, &url], arguments].concat()).await
    }

    /// As [`Scene::call`], with this client certificate.
    async fn call_with(&self, certificate: &Certified, arguments: &[&str]) -> Finished {
        let (cert, key) = (certificate.cert.display().to_string(), certificate.key.display().to_string());
        self.call(&[&["--cert", &cert, "--key", &key], arguments].concat()).await
    }
}

/// `user:password` of the caller with this name.
fn user(name: &str) -> String {
    format!("{name}:{PASSWORD}")
}

/// The status that curl shows, of HTTP/2 or HTTP/1.1. Anything else fails the test.
#[track_caller]
fn status(finished: &Finished) -> &str {
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout.split(' ').nth(1).unwrap()
}

/// Fails the test unless curl had no answer.
#[track_caller]
fn no_answer(finished: &Finished) {
    assert!(!finished.status.success() && finished.stdout.is_empty(), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_speak_http_2_or_http_1_over_tls() {
    let scene = Scene::new().await;
    let _gateway = scene.scene.config.start().await;
    let billing = user("billing");
    for (asked, spoken) in
        [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK"), ("--no-alpn", "HTTP/1.1 200 OK")]
    {
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let version: Vec<&str> = version.split('=').collect();
            let answer = scene.call(&[&[asked, "-u", &billing], &version[..]].concat()).await;
            assert!(answer.stdout.starts_with(spoken), "{asked} {version:?}: {answer:?}");
            let (head, body) = answer.stdout.split_once("\r\n\r\n").unwrap();
            let echo: serde_json::Value = serde_json::from_str(body).unwrap();
            let headers = echo["headers"].as_array().unwrap();
            let proto = headers.iter().find(|field| field[0] == "x-forwarded-proto").unwrap();
            assert_eq!(proto[1], "https");
            // What browsers keep about a host is not ours to say: the answer is the upstream's.
            assert!(!head.to_lowercase().contains("strict-transport-security"), "{head}");
        }
    }
    // Nothing is spoken in clear there.
    let plain = curl(&[&format!("http://{}/calendar/x", scene.scene.config.proxy)]).await;
    no_answer(&plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_can_be_turned_off_over_tls_and_on_in_clear() {
    let mut scene = Scene::new().await;
    scene.config().extend("listeners.proxy", "http2 = false");
    let gateway = scene.scene.config.start().await;
    let billing = user("billing");
    assert!(scene.call(&["--http2", "-u", &billing]).await.stdout.starts_with("HTTP/1.1 200"));
    gateway.stop().await;
    let url = format!("http://{}/calendar/x", scene.scene.config.proxy);
    let bind = format!("bind = \"{}\"", scene.scene.config.proxy);
    scene.config().section("listeners.proxy", &bind);
    let gateway = scene.scene.config.start().await;
    no_answer(&curl(&["--http2-prior-knowledge", "-u", &billing, &url]).await);
    gateway.stop().await;
    scene.config().extend("listeners.proxy", "h2c = true");
    let _gateway = scene.scene.config.start().await;
    let answer = curl(&["--http2-prior-knowledge", "-u", &billing, &url]).await;
    assert!(answer.stdout.starts_with("HTTP/2 200"), "{answer:?}");
    assert!(curl(&["-u", &billing, &url]).await.stdout.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_a_callers_credential() {
    let mut scene = Scene::new().await;
    let config = scene.config();
    config.section(
        "callers.ledger",
        "mtls = { san = [\"ledger.internal\", \"10.1.2.3\"] }\nroutes = [\"calendar\"]",
    );
    config.extend("callers.billing", "mtls = { san = \"billing.internal\" }");
    let _gateway = scene.scene.config.start().await;
    let ledger = scene.authority.certify("ledger", &["other.internal", "Ledger.internal"]);
    let by_address = scene.authority.certify("address", &["10.1.2.3"]);
    let billing = scene.authority.certify("billing", &["billing.internal"]);
    let nobody = scene.authority.certify("nobody", &["*.internal", "nobody.internal"]);
    let (basic, wrong) = (user("billing"), "billing:wrong");
    for version in ["--http1.1", "--http2"] {
        for certificate in [&ledger, &by_address, &billing] {
            assert_eq!(status(&scene.call_with(certificate, &[version]).await), "200");
        }
        // Its certificate and its password are of one caller; those of two are refused.
        assert_eq!(status(&scene.call_with(&billing, &[version, "-u", &basic]).await), "200");
        assert_eq!(status(&scene.call_with(&billing, &[version, "-u", wrong]).await), "401");
        let both = scene.call_with(&ledger, &[version, "-u", &basic]).await;
        assert_eq!(status(&both), "401");
        assert!(both.stdout.contains("one and the same caller"), "{both:?}");
        // A certificate that names no caller is no credential, and none is needed.
        let alone = scene.call_with(&nobody, &[version]).await;
        assert_eq!(status(&alone), "401");
        assert!(alone.stdout.to_lowercase().contains("www-authenticate: basic"), "{alone:?}");
        assert_eq!(status(&scene.call_with(&nobody, &[version, "-u", &basic]).await), "200");
        assert_eq!(status(&scene.call(&[version, "-u", &basic]).await), "200");
        assert_eq!(status(&scene.call(&[version]).await), "401");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_vouches_for_callers() {
    let mut scene = Scene::new().await;
    scene.config().section("callers.ledger", "mtls = { san = \"ledger.internal\" }\nroutes = [\"calendar\"]");
    let gateway = scene.scene.config.start().await;
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new(folder.path()).certify("ledger", &["ledger.internal"]);
    let own = Certified::self_signed(folder.path(), "own", &["ledger.internal"]);
    for certificate in [&other, &own] {
        no_answer(&scene.call_with(certificate, &[]).await);
        // Not even beside a good password: the handshake fails.
        no_answer(&scene.call_with(certificate, &["-u", &user("billing")]).await);
    }
    assert_eq!(scene.scene.upstream.calls(), 0);
    let good = scene.authority.certify("good", &["ledger.internal"]);
    assert_eq!(status(&scene.call_with(&good, &[]).await), "200");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_and_suites_are_refused() {
    let scene = Scene::new().await;
    // An RSA key, so that suites of every key exchange could be chosen if they were offered.
    let (cert, key) = (scene.file("server.pem"), scene.file("server.key"));
    let made = openssl(&[
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa", "-days", "30", "-keyout", &key,
        "-out", &cert,
    ])
    .await;
    assert!(made.status.success(), "{made:?}");
    let _gateway = scene.scene.config.start().await;
    let address = scene.scene.config.proxy.to_string();
    let agreed = async |arguments: &[&str]| {
        let finished = openssl(&[&["s_client", "-connect", &address], arguments].concat()).await;
        let agreed = finished.status.success() && finished.stdout.contains("Verification");
        let refused = finished.stderr.contains("alert");
        assert!(agreed != refused, "{arguments:?}: {finished:?}");
        agreed
    };
    assert!(agreed(&["-tls1_3"]).await);
    for suite in ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"]
    {
        assert!(agreed(&["-tls1_2", "-cipher", suite]).await, "{suite}");
    }
    for suite in [
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA384",
        "AES128-GCM-SHA256",
        "AES256-SHA",
        "DHE-RSA-AES128-GCM-SHA256",
    ] {
        let suite = format!("{suite}:@SECLEVEL=0");
        assert!(!agreed(&["-tls1_2", "-cipher", &suite]).await, "{suite}");
    }
    for version in ["-tls1_1", "-tls1"] {
        assert!(!agreed(&[version, "-cipher", "DEFAULT:@SECLEVEL=0"]).await, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_the_one_whose_fingerprint_is_logged() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.extend("listeners.proxy", "tls = \"self-signed\"");
    let gateway = scene.config.start().await;
    let address = scene.config.proxy.to_string();
    let shown = async || {
        let pem = openssl(&["s_client", "-connect", &address, "-showcerts"]).await.stdout;
        let (_, rest) = pem.split_once("-----BEGIN").unwrap();
        let pem = format!("-----BEGIN{}-----END CERTIFICATE-----\n", rest.split("-----END").next().unwrap());
        let file = scene.config.folder().join("shown.pem");
        std::fs::write(&file, &pem).unwrap();
        let file = file.display().to_string();
        let printed = openssl(&["x509", "-in", &file, "-noout", "-fingerprint", "-sha256"]).await.stdout;
        let url = format!("https://{address}/calendar/x");
        let trusted = curl(&["--cacert", &file, "-u", &user("billing"), &url]).await;
        assert_eq!(status(&trusted), "200");
        printed.trim().split_once('=').unwrap().1.to_owned()
    };
    let first = shown().await;
    assert!(gateway.log().contains(&first), "{first}:\n{}", gateway.log());
    assert!(!gateway.log().contains("PRIVATE KEY"));
    let gateway = gateway.restart().await;
    assert_ne!(shown().await, first, "made anew at each start");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_go_on_is_cut_off() {
    let scene = Scene::new().await;
    let gateway = scene.scene.config.start().await;
    let mut silent = TcpStream::connect(scene.scene.config.proxy).await.unwrap();
    let mut slow = TcpStream::connect(scene.scene.config.proxy).await.unwrap();
    slow.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
    // Others are served meanwhile.
    assert_eq!(status(&scene.call(&["-u", &user("billing")]).await), "200");
    for stream in [&mut silent, &mut slow] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut rest));
        ended.await.expect("it is cut off").ok();
    }
    gateway.stop().await;
}

/// A client that trusts the authority in `ca`.
fn trusting(ca: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A connection that is used for several calls.
struct KeptAlive(BufReader<TlsStream<TcpStream>>);

impl KeptAlive {
    async fn open(config: &GatewayConfig) -> Self {
        let socket = TcpStream::connect(config.proxy).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = trusting(&config.folder().join("ca.pem")).connect(name, socket).await.unwrap();
        Self(BufReader::new(stream))
    }

    fn shown(&self) -> Vec<u8> {
        self.0.get_ref().get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    async fn call(&mut self) {
        let credential = http::basic("billing", PASSWORD);
        let head = format!("GET /calendar/x HTTP/1.1\r\nHost: gw\r\nAuthorization: {credential}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
        let answer = http::read_message(&mut self.0, Side::Client { head: false }).await.unwrap().unwrap();
        assert!(answer.start.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_certificate_is_for_new_connections_and_harms_no_old_one() {
    let scene = Scene::new().await;
    let config = &scene.scene.config;
    let gateway = InProcess::start(config).await;
    let mut old = KeptAlive::open(config).await;
    old.call().await;

    let (cert, key) = (config.folder().join("server.pem"), config.folder().join("server.key"));
    let first = std::fs::read(&cert).unwrap();
    let new = scene.authority.certify("new", &["127.0.0.1"]);
    std::fs::copy(&new.cert, &cert).unwrap();
    let [(listener, fault)] = &gateway.tls().reload()[..] else { panic!("key and certificate do not fit") };
    assert_eq!(*listener, "proxy");
    assert!(fault.to_string().contains("`key` does not belong to the certificate"), "{fault}");
    let mut half = KeptAlive::open(config).await;
    assert_eq!(half.shown(), old.shown());
    half.call().await;

    std::fs::copy(&new.key, &key).unwrap();
    assert!(gateway.tls().reload().is_empty());
    let mut later = KeptAlive::open(config).await;
    assert_eq!(later.shown(), new.der);
    assert_ne!(std::fs::read(&cert).unwrap(), first);
    for connection in [&mut old, &mut half, &mut later] {
        connection.call().await;
    }
    drop((old, half, later));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_listener_over_tls_binds_browsers_by_secure_cookies() {
    let mut scene = ScriptedScene::person().await;
    let authority = Authority::new(scene.config.folder());
    authority.certify("server", &["127.0.0.1"]);
    let public = scene.config.public;
    scene.config.extend("listeners.public", "tls = { cert = \"server.pem\", key = \"server.key\" }");
    scene.config.section("server", &format!("public_url = \"https://{public}\"\nworkers = 2"));
    let gateway = scene.config.start().await;
    let problem = gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
    let link = problem["authorization_url"].as_str().unwrap();
    assert!(link.starts_with(&format!("https://{public}/connect/")), "{link}");
    let ca = scene.config.folder().join("ca.pem").display().to_string();
    // A browser speaks HTTP/2 wherever it can; here it is not offered.
    let answer = curl(&["--http2", "--cacert", &ca, link]).await;
    assert!(answer.stdout.starts_with("HTTP/1.1 302"), "{answer:?}");
    let cookie = answer.stdout.lines().find(|line| line.to_lowercase().starts_with("set-cookie:")).unwrap();
    assert!(cookie.contains("__Host-claviger_browser=") && cookie.contains("; Secure"), "{cookie}");
    let callback = format!("https://{public}/callback");
    let redirect_uri: String = url::form_urlencoded::byte_serialize(callback.as_bytes()).collect();
    assert!(answer.stdout.contains(&redirect_uri), "{answer:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_takes_certificates_in_the_place_of_its_token() {
    let mut scene = ScriptedScene::machine().await;
    let authority = Authority::new(scene.config.folder());
    authority.certify("server", &["127.0.0.1"]);
    let operator = authority.certify("operator", &["operator.internal"]);
    let tls = "tls = { cert = \"server.pem\", key = \"server.key\", client_ca = \"ca.pem\" }";
    scene.config.extend("listeners.admin", tls);
    let ca = scene.config.folder().join("ca.pem").display().to_string();
    let (cert, key) = (operator.cert.display().to_string(), operator.key.display().to_string());
    let base = format!("https://{}", scene.config.admin);
    let ask = async |path: &str, more: &[&str]| {
        curl(&[&["--cacert", &ca, &format!("{base}{path}")], more].concat()).await
    };
    let certified = ["--cert", &cert, "--key", &key];

    let gateway = Gateway::spawn(scene.config.clone());
    eventually("it is ready", async || ask("/readyz", &certified).await.stdout.starts_with("HTTP/1.1 200"))
        .await;
    assert_eq!(status(&ask("/debug/actors", &certified).await), "200");
    no_answer(&ask("/debug/actors", &[]).await);
    no_answer(&ask("/healthz", &[]).await);
    gateway.stop().await;

    scene.config.admin_token("planted-admin-token");
    let gateway = Gateway::spawn(scene.config.clone());
    eventually("it is ready", async || ask("/readyz", &[]).await.stdout.starts_with("HTTP/1.1 200")).await;
    assert_eq!(status(&ask("/debug/actors", &[]).await), "401");
    assert_eq!(status(&ask("/debug/actors", &certified).await), "200");
    let bearer = ["-H", "Authorization: Bearer planted-admin-token"];
    assert_eq!(status(&ask("/debug/actors", &bearer).await), "200");
    // The command line knows the certificate from the configuration, and has the token.
    let listed = scene.config.run_with("connections", &["list"]).await;
    assert!(listed.status.success() && listed.stdout.contains("connections"), "{}", listed.text());
    let other = authority.certify("server", &["127.0.0.1"]);
    assert!(other.cert.exists());
    let refused = scene.config.run_with("connections", &["list"]).await;
    assert!(!refused.status.success() && refused.stderr.contains("cannot be asked"), "{}", refused.text());
    gateway.stop().await;
}
