//! New connections: to upstreams, and, for whoever implements the transport port, to authorization
//! servers.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, StatusCode, Uri};
use http_body::Body;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::route::UpstreamOrigin;

/// Largest head of an answer, and most bytes read at a time.
pub(super) const READ_BUFFER: usize = 128 * 1024;
/// Names of protocols in TLS (RFC 7301, RFC 9113 section 3.2).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// The TLS stack refuses its own defaults, which is our fault, or a client certificate.
#[derive(Debug, Clone, Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsSetupError(#[from] pub rustls::Error);

/// TLS that trusts `roots` and speaks HTTP/1.1, unless a connection is opened for another protocol. Made
/// once and shared by all threads, so that sessions are resumed across them.
///
/// # Errors
/// [`TlsSetupError`].
pub fn tls_client_config_with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsSetupError> {
    tls_client_config(Arc::new(roots), None)
}

/// A client certificate, with the chain up to whoever signed it, and its private key.
#[derive(Debug)]
pub struct ClientIdentity {
    /// Our certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What it certifies the public half of.
    pub key: PrivateKeyDer<'static>,
}

/// As [`tls_client_config_with_roots`], with a client certificate to show to servers that ask for one
/// (RFC 8705).
///
/// # Errors
/// [`TlsSetupError`], also if key and certificate do not belong together.
pub fn tls_client_config(
    roots: Arc<RootCertStore>,
    identity: Option<ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(ClientIdentity { chain, key }) => config.with_client_auth_cert(chain, key)?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = Wanted::Http1.alpn();
    Ok(Arc::new(config))
}

/// What a new connection is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Http1,
    Http2,
    /// What the server chooses.
    Either,
}

impl Wanted {
    /// As TLS says it (RFC 7301).
    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http1 => &[HTTP1],
            Self::Http2 => &[HTTP2],
            Self::Either => &[HTTP2, HTTP1],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// A way to an upstream, before anything was said on it.
pub(super) enum Way {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a way to `origin`, and says whether HTTP/2 is spoken on it.
pub(super) async fn connect(
    origin: &UpstreamOrigin,
    tls: &Arc<ClientConfig>,
    wanted: Wanted,
) -> io::Result<(Way, bool)> {
    let stream = connect_tcp(&origin.host, origin.port).await?;
    if !origin.tls {
        return Ok((Way::Plain(stream), wanted == Wanted::Http2));
    }
    let connector = TlsConnector::from(tls.clone());
    let stream = connector.with_alpn(wanted.alpn()).connect(server_name(&origin.host)?, stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    if wanted == Wanted::Http2 && !http2 {
        return Err(io::Error::other(
            "it does not choose HTTP/2 (ALPN h2), which the route's `protocol` asks for",
        ));
    }
    Ok((Way::Tls(Box::new(stream)), http2))
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

/// Asks the HTTP proxy at the other end of `stream` for a way to `authority`, a host and a port
/// (RFC 9110 section 9.3.6). What comes back leads there.
///
/// # Errors
/// The operating system's, or what the proxy refuses.
pub async fn tunnel(
    stream: TcpStream,
    authority: &str,
    authorization: Option<&HeaderValue>,
) -> io::Result<TcpStream> {
    let (mut sender, connection) = speak_http(stream).await.map_err(io::Error::other)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse::<Uri>().map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority).map_err(io::Error::other)?);
    if let Some(authorization) = authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    let asking = async move {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(io::Error::other),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(io::Error::other("the proxy refuses our credentials (status 407)"))
            }
            status => Err(io::Error::other(format!("the proxy answers with status {status}"))),
        }
    };
    let (mut asking, mut connection) = (pin!(asking), pin!(connection.with_upgrades()));
    let upgraded = tokio::select! {
        biased;
        upgraded = asking.as_mut() => upgraded?,
        // Its fault, if any, comes with the answer.
        _ = connection.as_mut() => asking.await?,
    };
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .map_err(|_| io::Error::other("the way through the proxy is lost"))?;
    if !parts.read_buf.is_empty() {
        return Err(io::Error::other("the proxy speaks before the server was asked anything"));
    }
    Ok(parts.io.into_inner())
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
    TlsConnector::from(tls.clone()).connect(server_name(host)?, stream).await
}

fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(unbracketed(host).to_owned()).map_err(io::Error::other)
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
