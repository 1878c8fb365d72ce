//! Whom is trusted, and what TLS adds to the end of an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use claviger_actors::proxy::connect::tls_client_config_with_roots;
use rustls::RootCertStore;

use super::get;
use crate::provider_client::*;

const CA: &[u8] = include_bytes!("../../../tests/fixtures/tls/ca.der");
const CERTIFICATE: &[u8] = include_bytes!("../../../tests/fixtures/tls/localhost.der");
const CERTIFICATE_KEY: &[u8] = include_bytes!("../../../tests/fixtures/tls/localhost.key.der");

const LENGTH_TOLD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure";
const NO_LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nsecure";

/// A TLS server for `localhost` that gives one answer, and may say that it ends; then it tells whether
/// it was asked anything.
pub(super) fn tls_server(
    answer: &'static [u8],
    says_end: bool,
) -> (SocketAddr, std::thread::JoinHandle<bool>) {
    use std::io::{Read as _, Write as _};
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(CERTIFICATE_KEY.into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CERTIFICATE.into()], key)
        .unwrap();
    // It would rather speak HTTP/2, which the client does not offer.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let mut buffer = [0u8; 4096];
        let seen = stream.read(&mut buffer).is_ok_and(|count| count > 0);
        if seen {
            assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            stream.write_all(answer).unwrap();
            if says_end {
                stream.conn.send_close_notify();
            }
            stream.flush().unwrap();
        }
        seen
    });
    (address, seen)
}

pub(super) fn test_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CA.into()).unwrap();
    roots
}

#[actix_web::test]
async fn a_trusted_server_is_spoken_to_over_tls() {
    let (address, seen) = tls_server(LENGTH_TOLD, false);
    let transport = ProviderClient::new(tls_client_config_with_roots(test_roots()).unwrap());
    let url = format!("https://localhost:{}/token", address.port());
    let answer = transport.send(get(url)).await.unwrap();
    assert_eq!(&answer.body[..], b"secure");
    assert!(seen.join().unwrap());
}

#[actix_web::test]
async fn an_untrusted_server_or_another_name_gets_no_request() {
    let by_name = |address: SocketAddr| format!("https://localhost:{}/", address.port());
    let by_address = |address: SocketAddr| format!("https://{address}/");
    let cases: [(RootCertStore, &dyn Fn(SocketAddr) -> String); 2] =
        [(RootCertStore::empty(), &by_name), (test_roots(), &by_address)];
    for (roots, url) in cases {
        let (address, seen) = tls_server(LENGTH_TOLD, false);
        let transport = ProviderClient::new(tls_client_config_with_roots(roots).unwrap());
        let error = transport.send(get(url(address))).await.err().unwrap();
        assert!(
            matches!(&error, TransportError::Tls { cause, .. } if cause.contains("certificate")),
            "{error:?}"
        );
        assert!(error.never_sent());
        assert!(!seen.join().unwrap());
    }
}

#[actix_web::test]
async fn an_answer_without_length_is_whole_only_if_tls_says_its_end() {
    for says_end in [true, false] {
        let (address, seen) = tls_server(NO_LENGTH, says_end);
        let transport = ProviderClient::new(tls_client_config_with_roots(test_roots()).unwrap());
        let answer = transport.send(get(format!("https://localhost:{}/", address.port()))).await;
        match answer {
            Ok(answer) => assert!(says_end && &answer.body[..] == b"secure"),
            Err(error) => assert!(!says_end && matches!(error, TransportError::Broken { .. }), "{error:?}"),
        }
        assert!(seen.join().unwrap());
    }
}
