#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use claviger_actors::clock::SystemClock;
use rcgen::{BasicConstraints, CertifiedIssuer, IsCa, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme};
use tempfile::TempDir;

use super::*;
use crate::caller_auth::PeerCertificate;
use crate::config;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Believes everybody: what is looked at here is the other side.
#[derive(Debug)]
struct Credulous(CryptoProvider);

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A client with these protocols, which shows `certificate` if it is asked.
fn client(alpn: &[&[u8]], certificate: Option<(CertificateDer<'static>, KeyPair)>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous(default_provider())));
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Both ends after a handshake in memory.
fn handshake(
    client: &Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("gw.example").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets()?;
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok((client, server))
}

fn issuer(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn client_certificate(issuer: &Issuer, name: &str) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap().der().clone(), key)
}

/// PEM of a new certificate and of its key.
fn pair(last_year: i32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["gw.example".to_owned()]).unwrap();
    params.not_after = date_time_ymd(last_year, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

struct Scene {
    folder: TempDir,
    issuer: Issuer,
    tls: ListenersTls,
}

impl Scene {
    /// Listeners of this configuration: beside it are `gw.pem`, `gw.key` and `ca.pem`.
    fn new(listeners: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issuer = issuer("one");
        let (cert, key) = pair(4000);
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        std::fs::write(folder.path().join("gw.pem"), cert).unwrap();
        std::fs::write(folder.path().join("gw.key"), key).unwrap();
        let text = format!(
            "[server]\npublic_url = \"https://gw.example\"\n{listeners}\n[store]\nbackend = \"sled\"\n\
             path = \"data\"\n[store.encryption]\nactive = \"k1\"\nkeys = {{ k1 = \"{KEY}\" }}\n"
        );
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let config = config::load(&path, &std::collections::BTreeMap::new()).unwrap();
        let tls = ListenersTls::open(&config.listeners, &config.server.public_url, &SystemClock).unwrap();
        Self { folder, issuer, tls }
    }

    fn write(&self, name: &str, text: &str) {
        // Another file is moved into its place, as those do who renew certificates.
        let (new, place) = (self.path().join("new"), self.path().join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, place).unwrap();
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn proxy(&self) -> &ListenerTls {
        self.tls.proxy.as_ref().unwrap()
    }

    /// What a new connection is shown.
    fn shown(&self) -> CertificateDer<'static> {
        let (client, _) = handshake(&client(&[], None), self.proxy().current()).unwrap();
        client.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

const FILES: &str = "tls = { cert = \"gw.pem\", key = \"gw.key\", client_ca = \"ca.pem\" }";

#[test]
fn only_the_proxy_listener_offers_http_2() {
    let self_signed = "tls = \"self-signed\"";
    let scene = Scene::new(&format!(
        "[listeners.proxy]\n{FILES}\n[listeners.public]\n{self_signed}\n[listeners.admin]\n{self_signed}"
    ));
    let chosen = |tls: &Option<Arc<ListenerTls>>, alpn: &[&[u8]]| {
        let (client, _) = handshake(&client(alpn, None), tls.as_ref().unwrap().current())?;
        Ok::<_, rustls::Error>(client.alpn_protocol().map(<[u8]>::to_vec))
    };
    let both: &[&[u8]] = &[H2, HTTP_1_1];
    assert_eq!(chosen(&scene.tls.proxy, both).unwrap().unwrap(), H2);
    assert_eq!(chosen(&scene.tls.proxy, &[HTTP_1_1]).unwrap().unwrap(), HTTP_1_1);
    assert_eq!(chosen(&scene.tls.proxy, &[]).unwrap(), None);
    for other in [&scene.tls.public, &scene.tls.admin] {
        assert_eq!(chosen(other, both).unwrap().unwrap(), HTTP_1_1);
        assert!(chosen(other, &[H2]).is_err(), "it is not spoken without having been agreed on");
    }
    let without = Scene::new(&format!("[listeners.proxy]\nhttp2 = false\n{FILES}"));
    assert_eq!(chosen(&without.tls.proxy, both).unwrap().unwrap(), HTTP_1_1);
}

#[test]
fn a_certificate_of_our_own_is_good_for_every_name_of_ours() {
    let self_signed = "tls = \"self-signed\"";
    let scene = Scene::new(&format!(
        "[listeners.proxy]\nbind = \"127.0.0.2:1\"\n{self_signed}\n[listeners.public]\nbind = \"0.0.0.0:2\"\n\
         {self_signed}"
    ));
    let certificate = scene.proxy().certificate().unwrap();
    assert_eq!(scene.tls.public.as_ref().unwrap().certificate().unwrap(), certificate, "one for all");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let trusting = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let trusting = Arc::new(trusting);
    let reached_as = |name: &'static str| {
        let mut client =
            ClientConnection::new(trusting.clone(), ServerName::try_from(name).unwrap()).unwrap();
        let mut server = ServerConnection::new(scene.proxy().current()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets().unwrap();
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets().is_ok()
    };
    for name in ["localhost", "127.0.0.1", "::1", "127.0.0.2", "gw.example"] {
        assert!(reached_as(name), "{name}");
    }
    assert!(!reached_as("0.0.0.0") && !reached_as("other.example"));
    let again = Scene::new(&format!("[listeners.proxy]\n{self_signed}"));
    assert_ne!(again.proxy().certificate().unwrap(), certificate, "a new one at each start");
    assert!(!scene.proxy().reload().unwrap());
    assert!(fingerprint(&certificate).split(':').count() == 32);
}

#[test]
fn an_exchanged_certificate_is_shown_once_it_is_whole() {
    let scene = Scene::new(&format!("[listeners.proxy]\n{FILES}"));
    let before = scene.shown();
    let config = scene.proxy().current();
    assert!(!scene.proxy().reload().unwrap(), "nothing has changed");
    assert!(Arc::ptr_eq(&config, &scene.proxy().current()), "so sessions can still be resumed");

    let (cert, key) = pair(4000);
    scene.write("gw.pem", &cert);
    let error = scene.proxy().reload().unwrap_err().to_string();
    assert!(error.contains("listeners.proxy.tls: `key` does not belong"), "{error}");
    assert_eq!(scene.shown(), before);
    scene.write("gw.pem", &cert[..cert.len() / 2]);
    assert_eq!(scene.tls.reload().len(), 1);
    assert_eq!(scene.shown(), before);
    std::fs::remove_file(scene.path().join("gw.pem")).unwrap();
    assert!(scene.proxy().reload().is_err());
    assert_eq!(scene.shown(), before);

    scene.write("gw.pem", &cert);
    scene.write("gw.key", &key);
    assert!(scene.tls.reload().is_empty());
    assert_ne!(scene.shown(), before);
}

#[test]
fn a_certificate_that_has_ended_takes_the_place_of_none() {
    let scene = Scene::new(&format!("[listeners.proxy]\n{FILES}"));
    let before = scene.shown();
    let (cert, key) = pair(2001);
    scene.write("gw.pem", &cert);
    scene.write("gw.key", &key);
    let error = scene.proxy().reload().unwrap_err().to_string();
    assert!(error.contains("the certificate in gw.pem ended at 2001"), "{error}");
    assert_eq!(scene.shown(), before);
}

#[test]
fn a_client_certificate_is_taken_if_the_authority_vouches_for_it() {
    let scene = Scene::new(&format!("[listeners.proxy]\n{FILES}\n[listeners.admin]\n{FILES}"));
    let peer = |tls: &Option<Arc<ListenerTls>>, shown| {
        let (_, server) = handshake(&client(&[], shown), tls.as_ref().unwrap().current())?;
        Ok::<_, rustls::Error>(PeerCertificate::of(&server))
    };
    let good = client_certificate(&scene.issuer, "billing.internal");
    let certificate = peer(&scene.tls.proxy, Some(good)).unwrap().unwrap();
    assert_eq!(certificate.names()[0].to_string(), "billing.internal");
    assert_eq!(peer(&scene.tls.proxy, None).unwrap(), None);
    let stranger = || client_certificate(&issuer("two"), "billing.internal");
    assert!(peer(&scene.tls.proxy, Some(stranger())).is_err());
    // Nothing else lets an operator in here.
    assert!(peer(&scene.tls.admin, None).is_err());
    assert!(peer(&scene.tls.admin, Some(client_certificate(&scene.issuer, "op"))).unwrap().is_some());

    // Another authority: what it did not sign is refused, also where a session is resumed.
    let resuming = client(&[], Some(client_certificate(&scene.issuer, "billing.internal")));
    assert!(handshake(&resuming, scene.proxy().current()).is_ok());
    let (_, resumed) = handshake(&resuming, scene.proxy().current()).unwrap();
    assert_eq!(resumed.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    assert!(PeerCertificate::of(&resumed).is_some());
    scene.write("ca.pem", &issuer("three").pem());
    assert!(scene.proxy().reload().unwrap());
    assert!(handshake(&resuming, scene.proxy().current()).is_err());
}

#[test]
fn every_suite_has_forward_secrecy_and_authenticated_encryption() {
    for suite in CIPHER_SUITES {
        let name = format!("{:?}", suite.suite());
        let modern = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
        assert!(modern && (name.contains("_GCM_") || name.contains("CHACHA20_POLY1305")), "{name}");
    }
    let sets = Scene::new(&format!("[listeners.proxy]\n{FILES}"));
    assert_eq!(sets.proxy().current().crypto_provider().cipher_suites.len(), CIPHER_SUITES.len());
}
