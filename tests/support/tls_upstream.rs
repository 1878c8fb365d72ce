//! An API that demands client certificates, and says which one the connection was opened with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::{Authority, Certified, thumbprint};
use super::http::{self, Side};

/// A running API. Ends when it is dropped.
pub struct TlsUpstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl TlsUpstream {
    /// Starts it with this certificate. It takes clients that `authority` vouches for.
    pub async fn start(own: &Certified, authority: &Authority) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().into()).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(
                vec![CertificateDer::from(own.der.clone())],
                PrivateKeyDer::from_pem_file(&own.key).expect("a key"),
            )
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, Arc::clone(&opened)));
            }
        });
        Self { address, connections, task }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How many connections were opened to it, with a certificate that it took.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for TlsUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, opened: Arc<AtomicUsize>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    opened.fetch_add(1, Ordering::SeqCst);
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|der| thumbprint(der));
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = http::read_message(&mut stream, Side::Server).await {
        let echo = json!({ "shown": shown, "authorization": request.headers.get("authorization") });
        let bytes = http::response_bytes(200, &[], echo.to_string().as_bytes());
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
