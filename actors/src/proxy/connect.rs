//! New connections: to upstreams, and, for whoever implements the transport port, to authorization
//! servers.

use std::io;
use std::sync::Arc;

use http_body::Body;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::body::RequestBody;
use super::route::UpstreamOrigin;

/// Largest head of an answer, and most bytes read at a time.
const READ_BUFFER: usize = 128 * 1024;

/// The TLS stack refuses its own defaults. Our fault: it cannot happen with a good build.
#[derive(Debug, Clone, Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsSetupError(#[from] rustls::Error);

/// TLS that trusts `roots` and speaks HTTP/1.1. Made once and shared by all threads, so that sessions
/// are resumed across them.
///
/// # Errors
/// [`TlsSetupError`].
pub fn tls_client_config_with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsSetupError> {
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
    let stream = connect_tcp(&origin.host, origin.port).await?;
    if origin.tls { spawn(connect_tls(stream, &origin.host, tls).await?).await } else { spawn(stream).await }
}

async fn spawn<T>(stream: T) -> io::Result<SendRequest<RequestBody>>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = speak_http(stream).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Opens a TCP connection to `host`: a name, or an IP address as URLs write it.
///
/// # Errors
/// The operating system's or its resolver's.
pub async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((unbracketed(host), port)).await?;
    // Small writes must not wait for the acknowledgement of earlier ones.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Speaks TLS on `stream` with a server that proves to be `host`.
///
/// # Errors
/// What rustls refuses has no operating system's number; what ends the connection has one.
pub async fn connect_tls(
    stream: TcpStream,
    host: &str,
    tls: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(unbracketed(host).to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(tls.clone()).connect(name, stream).await
}

/// Speaks HTTP/1.1 on `stream`, with a bounded answer head. The connection works while it is polled.
///
/// # Errors
/// None that the network can cause.
pub async fn speak_http<T, B>(stream: T) -> hyper::Result<(SendRequest<B>, Connection<TokioIo<T>, B>)>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    http1::Builder::new().max_buf_size(READ_BUFFER).handshake(TokioIo::new(stream)).await
}

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Host and port as an upstream's `Host` header says them: the default port is left out.
pub fn host_header(origin: &UpstreamOrigin) -> &str {
    origin.serialized.split_once("://").map_or(&*origin.serialized, |(_, authority)| authority)
}
