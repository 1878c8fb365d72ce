#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fetch;
mod goaway;
mod http2;
mod raw;
mod trailers;
mod upgrade;

use std::future::poll_fn;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::proxy::connect::tls_client_config_with_roots;

/// Signed by itself, for `localhost`, for a hundred years; used nowhere else.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUCgAwIBAgIUB7qWacoIuRifSqxBjjWYcaq3F+owCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNdXBzdHJlYW0gdGVzdDAgFw0yNjExMjQwNzQ0MTZaGA8yMTI2
MTAzMTA3NDQxNlowGDEWMBQGA1UEAwwNdXBzdHJlYW0gdGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABLiGiMeWzUR++oYWillAlq8kutYiLExCy4VYIZJjsitN
t1bNuZygsFnSvdGnRleAFtleOoukDZQszC/fYi7G4HqjZjBkMB0GA1UdDgQWBBST
A4vmCZUpmd2t6JJKO6bHNYGVZjAfBgNVHSMEGDAWgBSTA4vmCZUpmd2t6JJKO6bH
NYGVZjAUBgNVHREEDTALgglsb2NhbGhvc3QwDAYDVR0TAQH/BAIwADAKBggqhkjO
PQQDAgNIADBFAiBlJoObYde9Vyj+rnKk1XDAg7wBgm/kN+1iXl4SEgSIhwIhAIin
nsj7rKLfwinXb8TUnpMfAmBFFl4x3lNmwAB3hlz+
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg92VQYKFcDJN5kXWg
UALhFIp9HXmCeWNCTVtK4ObQuQmhRANCAAS4hojHls1EfvqGFopZQJavJLrWIixM
QsuFWCGSY7IrTbdWzbmcoLBZ0r3Rp0ZXgBbZXjqLpA2ULMwv32IuxuB6
-----END PRIVATE KEY-----
";

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()
}

fn origin(tls: bool, host: &str, port: u16) -> Arc<UpstreamOrigin> {
    let scheme = if tls { "https" } else { "http" };
    Arc::new(UpstreamOrigin {
        tls,
        host: host.to_owned(),
        port,
        serialized: Arc::from(format!("{scheme}://{host}:{port}")),
    })
}

fn settings(trusted: bool) -> UpstreamSettings {
    let mut roots = RootCertStore::empty();
    if trusted {
        roots.add(certificate()).unwrap();
    }
    UpstreamSettings::new(tls_client_config_with_roots(roots).unwrap())
}

/// Answers 200 to every request on a connection.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut seen = Vec::new();
    let mut chunk = [0u8; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        seen.extend_from_slice(&chunk[..read]);
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    }
}

static TOKEN_HEADER: HeaderName = http::header::AUTHORIZATION;

/// A GET of nothing in particular.
fn exchange<'a>(origin: &'a Arc<UpstreamOrigin>, body: &'a BodySource) -> Exchange<'a> {
    Exchange {
        origin,
        tls: None,
        protocol: UpstreamProtocol::Auto,
        body,
        token_header: &TOKEN_HEADER,
        takes_trailers: false,
        upgrade: None,
        idempotent: true,
        timeout: Duration::from_secs(5),
        connect_timeout: None,
        make: &|body| Ok(Request::new(body)),
    }
}

/// Shows the certificate, and chooses of `protocols`.
fn acceptor(protocols: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn upstream(tls: bool) -> u16 {
    let acceptor = acceptor(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                if !tls {
                    answer(stream).await;
                } else if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream).await;
                }
            });
        }
    });
    port
}

async fn get(pool: &Rc<UpstreamPool>, origin: &Arc<UpstreamOrigin>) -> Result<String, UpstreamError> {
    get_as(pool, origin, None).await
}

async fn get_as(
    pool: &Rc<UpstreamPool>,
    origin: &Arc<UpstreamOrigin>,
    tls: Option<&UpstreamTls>,
) -> Result<String, UpstreamError> {
    let body = BodySource::empty();
    let exchange = Exchange { tls, ..exchange(origin, &body) };
    let fetched = fetch::fetch(pool, &exchange).await?;
    Ok(String::from_utf8(fetched.body).unwrap())
}

#[tokio::test]
async fn tls_is_spoken_with_servers_that_prove_their_name_only() {
    LocalSet::new()
        .run_until(async {
            let (secure, plain) = (upstream(true).await, upstream(false).await);
            let trusting = UpstreamPool::new(Arc::new(settings(true)));
            let localhost = origin(true, "localhost", secure);
            for _ in 0..3 {
                assert_eq!(get(&trusting, &localhost).await.unwrap(), "ok");
            }
            assert_eq!(trusting.opened_connections(), 1);

            let refused = |result: Result<String, UpstreamError>| {
                assert!(matches!(result, Err(UpstreamError::Connect { .. })), "{result:?}");
            };
            refused(get(&trusting, &origin(true, "127.0.0.1", secure)).await);
            let hasty = UpstreamSettings { connect_timeout: Duration::from_millis(300), ..settings(true) };
            let answer = get(&UpstreamPool::new(Arc::new(hasty)), &origin(true, "localhost", plain)).await;
            assert!(answer.unwrap_err().is_timeout(), "no TLS is spoken there");
            let strict = UpstreamPool::new(Arc::new(settings(false)));
            refused(get(&strict, &localhost).await);
            assert_eq!((strict.opened_connections(), strict.idle_connections()), (0, 0));
        })
        .await;
}

#[tokio::test]
async fn a_connection_opened_with_one_identity_is_never_used_for_another() {
    LocalSet::new()
        .run_until(async {
            let origin = origin(true, "localhost", upstream(true).await);
            let pool = UpstreamPool::new(Arc::new(settings(false)));
            let of = |shown: &'static [u8]| UpstreamTls {
                config: settings(true).tls,
                identity: TlsIdentity::of([certificate().as_ref()], [shown]),
            };
            let (ours, theirs) = (of(b"ours"), of(b"theirs"));
            for (tls, opened) in [(&ours, 1), (&theirs, 2), (&ours, 2), (&theirs, 2), (&ours, 2)] {
                assert_eq!(get_as(&pool, &origin, Some(tls)).await.unwrap(), "ok");
                assert_eq!(pool.opened_connections(), opened);
            }
            assert_eq!(pool.idle_connections(), 2);
            // The common way trusts nobody here: an idle connection must not help it.
            assert!(get(&pool, &origin).await.is_err());
            assert_eq!(pool.idle_connections(), 2);
        })
        .await;
}

#[test]
fn an_identity_is_whom_we_trust_and_what_we_show() {
    let of =
        |trusted: &[&[u8]], shown: &[&[u8]]| TlsIdentity::of(trusted.iter().copied(), shown.iter().copied());
    let one = of(&[b"ca"], &[b"cert"]);
    assert_eq!(one, of(&[b"ca"], &[b"cert"]));
    for other in
        [of(&[b"ca"], &[]), of(&[], &[b"cert"]), of(&[], &[b"ca", b"cert"]), of(&[b"cac"], &[b"ert"])]
    {
        assert_ne!(one, other);
    }
    assert_ne!(of(&[], &[]), TlsIdentity::default());
}

#[tokio::test]
async fn small_writes_wait_for_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stream = crate::proxy::connect::connect_tcp("127.0.0.1", port).await.unwrap();
    assert!(stream.nodelay().unwrap());
}

#[tokio::test]
async fn idle_connections_are_bounded_in_number_and_age() {
    LocalSet::new()
        .run_until(async {
            let port = upstream(false).await;
            let bounded = UpstreamSettings {
                max_idle_per_origin: 2,
                idle_timeout: Duration::from_millis(200),
                ..settings(true)
            };
            let pool = UpstreamPool::new(Arc::new(bounded));
            let origin = origin(false, "127.0.0.1", port);
            let calls = (0..5).map(|_| get(&pool, &origin));
            assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
            assert_eq!((pool.opened_connections(), pool.idle_connections()), (5, 2));
            pool.sweep();
            assert_eq!(pool.idle_connections(), 2);
            tokio::time::sleep(Duration::from_millis(250)).await;
            assert!(get(&pool, &origin).await.is_ok());
            assert_eq!(pool.opened_connections(), 6, "one that is too old is not used");
            tokio::time::sleep(Duration::from_millis(250)).await;
            pool.sweep();
            assert_eq!(pool.idle_connections(), 0);
        })
        .await;
}

#[tokio::test]
async fn an_address_that_swallows_packets_is_given_up_in_time() {
    let silent = UpstreamSettings { connect_timeout: Duration::from_millis(200), ..settings(true) };
    LocalSet::new()
        .run_until(async {
            // A listener whose handshake never comes: TLS is spoken to it, and it says nothing.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = origin(true, "localhost", listener.local_addr().unwrap().port());
            let error = get(&UpstreamPool::new(Arc::new(silent)), &origin).await.unwrap_err();
            assert!(error.is_timeout(), "{error:?}");
        })
        .await;
}
