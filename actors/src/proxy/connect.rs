//! New connections to upstreams.

use std::io;
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::RequestBody;
use super::route::UpstreamOrigin;

/// Largest head of an answer, and most bytes read at a time.
const READ_BUFFER: usize = 128 * 1024;

/// Why no TLS client could be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// The system has no certificates to trust: install `ca-certificates`.
    #[error("the system's certificate store is empty or cannot be read: {0}")]
    NoRoots(String),
    /// No TLS version in common with the crypto library.
    #[error("TLS cannot be set up: {0}")]
    Config(#[from] rustls::Error),
}

/// TLS towards upstreams: the system's roots and HTTP/1.1. Made once and shared by all workers, so
/// that sessions are resumed across them.
pub fn tls_client_config() -> Result<Arc<ClientConfig>, TlsSetupError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsSetupError::NoRoots(causes.join("; ")));
    }
    Ok(tls_config(roots)?)
}

/// As [`tls_client_config`], with the given roots only.
pub fn tls_client_config_with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsSetupError> {
    Ok(tls_config(roots)?)
}

fn tls_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Opens a connection to `origin` and drives it in a task of its own.
pub(super) async fn connect(
    origin: &UpstreamOrigin,
    tls: &Arc<ClientConfig>,
) -> io::Result<SendRequest<RequestBody>> {
    let host = origin.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, origin.port)).await?;
    // Small writes must not wait for the acknowledgement of earlier ones.
    stream.set_nodelay(true)?;
    if !origin.tls {
        return handshake(stream).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    handshake(TlsConnector::from(tls.clone()).connect(name, stream).await?).await
}

async fn handshake<T>(stream: T) -> io::Result<SendRequest<RequestBody>>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(READ_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Host and port as an upstream's `Host` header says them: the default port is left out.
pub fn host_header(origin: &UpstreamOrigin) -> &str {
    origin.serialized.split_once("://").map_or(&*origin.serialized, |(_, authority)| authority)
}
