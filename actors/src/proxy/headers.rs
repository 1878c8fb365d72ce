//! Which headers pass, in either direction.
//!
//! What is hop-by-hop, what a caller might forge and what carries its credential is dropped first;
//! then ours is added, so that no `Connection` option can name it away (RFC 9110 section 7.6.1).

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use crate::protocol::dpop::DPOP;

/// Names of the gateway's own cookies begin so.
const OWN_COOKIE: &[u8] = b"claviger_";
/// What a browser wants before the name of a cookie that is bound to its host.
const HOST_PREFIX: &[u8] = b"__Host-";
/// Options read from `Connection`; a message that names more is malformed or hostile.
const MAX_CONNECTION_OPTIONS: usize = 32;
/// Longest header name that is looked at for underscores.
const MAX_FOLDED: usize = 64;

const VIA: HeaderValue = HeaderValue::from_static("1.1 claviger");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why headers were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// `Connection` names more options than anybody needs.
    #[error("the Connection header names more than {MAX_CONNECTION_OPTIONS} options")]
    TooManyConnectionOptions,
    /// A name or value that no header can carry.
    #[error("a header cannot be forwarded as it stands")]
    Malformed,
    /// The token's key could not sign: a fault of our own.
    #[error("the proof of possession could not be signed")]
    Unproven,
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestLength {
    /// There is none, and nothing says so.
    Absent,
    /// Just so many bytes (`Content-Length`).
    Exact(u64),
    /// Unknown until its end (`Transfer-Encoding: chunked`).
    Chunked,
}

/// What the gateway adds to a request.
#[derive(Clone, Copy, Debug)]
pub struct Additions<'a> {
    /// The upstream's host and port, as its `Host`.
    pub upstream_host: &'a str,
    /// The header that carries the token: `Authorization`, unless the API has one of its own.
    pub token_header: &'a HeaderName,
    /// The token, as that header's value.
    pub authorization: &'a HeaderValue,
    /// The proof that goes with it, as `DPoP` (RFC 9449), if it needs one.
    pub proof: Option<&'a HeaderValue>,
    /// The caller's address, as `X-Forwarded-For`.
    pub forwarded_for: Option<&'a HeaderValue>,
    /// The `Host` that the caller named.
    pub host: &'a [u8],
    /// Whether the caller came over TLS.
    pub https: bool,
    /// The request's id.
    pub request_id: &'a str,
    /// How long the body is.
    pub length: RequestLength,
}

/// Turns a caller's headers, names in lower case, into the upstream's. `incoming` gives them, and is
/// asked twice. Values are copied into `buffer` once and share it.
pub fn request_headers<'a, I>(
    incoming: impl Fn() -> I,
    added: &Additions<'_>,
    buffer: &mut BytesMut,
) -> Result<HeaderMap, HeaderError>
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let mut options = ConnectionOptions::default();
    let (mut count, mut size) = (0, 0);
    for (name, value) in incoming() {
        count += 1;
        size += value.len();
        if name == b"connection" {
            options.read(value)?;
        }
    }
    // Room for all values, ours among them, so that the buffer never grows.
    buffer.reserve(size + added.host.len() + added.upstream_host.len() + added.request_id.len() + 64);
    let mut headers = HeaderMap::with_capacity(count + 8);
    headers.append(header::HOST, put(buffer, added.upstream_host.as_bytes())?);
    let own_token = (*added.token_header != header::AUTHORIZATION).then(|| added.token_header.as_str());
    for (name, value) in incoming() {
        if name == b"trailer" && added.length == RequestLength::Chunked && !options.name(name) {
            announce(value, added.token_header, &mut headers, buffer)?;
        }
        if !may_pass(name) || options.name(name) || own_token.is_some_and(|own| is_alike(name, own)) {
            continue;
        }
        let value = match name {
            b"cookie" if contains(value, OWN_COOKIE) => match foreign_cookies(value, buffer) {
                Some(rest) => HeaderValue::from_maybe_shared(rest).map_err(|_| HeaderError::Malformed)?,
                None => continue,
            },
            _ => put(buffer, value)?,
        };
        headers.append(HeaderName::from_bytes(name).map_err(|_| HeaderError::Malformed)?, value);
    }
    add(&mut headers, added, buffer)?;
    Ok(headers)
}

fn add(headers: &mut HeaderMap, added: &Additions<'_>, buffer: &mut BytesMut) -> Result<(), HeaderError> {
    headers.insert(added.token_header.clone(), added.authorization.clone());
    if let Some(proof) = added.proof {
        headers.insert(DPOP, proof.clone());
    }
    headers.append(header::VIA, VIA);
    if let Some(peer) = added.forwarded_for {
        headers.insert(FORWARDED_FOR, peer.clone());
    }
    if !added.host.is_empty() {
        headers.insert(FORWARDED_HOST, put(buffer, added.host)?);
    }
    let scheme = if added.https { "https" } else { "http" };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(REQUEST_ID, put(buffer, added.request_id.as_bytes())?);
    match added.length {
        RequestLength::Absent => {}
        RequestLength::Exact(0) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        RequestLength::Exact(length) => {
            headers.insert(header::CONTENT_LENGTH, written(buffer, format_args!("{length}"))?);
        }
        RequestLength::Chunked => {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    Ok(())
}

/// Says which trailers will come (RFC 9110 section 6.6.2): those that pass.
fn announce(
    names: &[u8],
    token_header: &HeaderName,
    headers: &mut HeaderMap,
    buffer: &mut BytesMut,
) -> Result<(), HeaderError> {
    for name in names.split(|byte| *byte == b',') {
        let name = name.trim_ascii().to_ascii_lowercase();
        if !name.is_empty() && may_trail(&name) && !is_alike(&name, token_header.as_str()) {
            headers.append(header::TRAILER, put(buffer, &name)?);
        }
    }
    Ok(())
}

/// A caller's trailers for the upstream, of which one may not be called as the header that carries the
/// token; `None` if nothing is left of them.
pub(super) fn request_trailers(trailers: &HeaderMap, token_header: &HeaderName) -> Option<HeaderMap> {
    only(trailers, |name| {
        let name = name.as_str().as_bytes();
        may_trail(name) && !is_alike(name, token_header.as_str())
    })
}

/// An upstream's trailers for the caller; `None` if nothing is left of them.
pub(super) fn response_trailers(trailers: HeaderMap) -> Option<HeaderMap> {
    only(&trailers, |name| may_trail(name.as_str().as_bytes()))
}

fn only(trailers: &HeaderMap, mut passes: impl FnMut(&HeaderName) -> bool) -> Option<HeaderMap> {
    let mut kept = HeaderMap::with_capacity(trailers.keys_len());
    for (name, value) in trailers.iter().filter(|(name, _)| passes(name)) {
        kept.append(name, value.clone());
    }
    (!kept.is_empty()).then_some(kept)
}

/// Whether a field may come after a body: none that would have had to be known before, for framing,
/// routing, access or the reading of the body (RFC 9110 section 6.5.1).
fn may_trail(name: &[u8]) -> bool {
    let too_late = matches!(
        name,
        b"cookie"
            | b"set-cookie"
            | b"www-authenticate"
            | b"authentication-info"
            | b"via"
            | b"max-forwards"
            | b"cache-control"
            | b"pragma"
            | b"range"
            | b"location"
            | b"retry-after"
            | b"vary"
            | b"age"
            | b"date"
            | b"expires"
    );
    !too_late && !name.starts_with(b"content-") && !name.starts_with(b"if-") && may_pass(name)
}

/// Hands every header of an upstream's answer that may pass to `emit`, and then ours. Framing is
/// the listener's business, so `Content-Length` is not among them.
pub fn response_headers(
    upstream: &HeaderMap,
    mut emit: impl FnMut(&HeaderName, &HeaderValue),
) -> Result<(), HeaderError> {
    let mut options = ConnectionOptions::default();
    for value in upstream.get_all(header::CONNECTION) {
        options.read(value.as_bytes())?;
    }
    for (name, value) in upstream {
        let raw = name.as_str().as_bytes();
        if is_hop_by_hop(raw) || *name == header::CONTENT_LENGTH || options.name(raw) {
            continue;
        }
        // An upstream must not be able to bind a browser to a flow of its choice.
        if *name == header::SET_COOKIE && is_own_cookie(value.as_bytes()) {
            continue;
        }
        emit(name, value);
    }
    emit(&header::VIA, &VIA);
    Ok(())
}

/// Whether a caller's header goes upstream, `Connection` options aside.
fn may_pass(name: &[u8]) -> bool {
    if is_hop_by_hop(name) || is_ours(name) {
        return false;
    }
    if !name.contains(&b'_') {
        return true;
    }
    // Some servers take `_` for `-`, which would let a forged header through.
    let mut folded = [0u8; MAX_FOLDED];
    let Some(folded) = folded.get_mut(..name.len()) else { return true };
    for (to, from) in folded.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    !is_hop_by_hop(folded) && !is_ours(folded)
}

/// Whether a server might take `name` for `own`.
fn is_alike(name: &[u8], own: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.iter().copied().map(folded).eq(own.bytes().map(folded))
}

/// Whether the header `name`, in lower case, can carry a token to an upstream: none that the gateway
/// or the connection needs.
pub fn may_carry_token(name: &str) -> bool {
    let name = name.as_bytes();
    let allowed = matches!(name, b"authorization" | b"x-api-key");
    allowed || may_pass(name) && !matches!(name, b"cookie" | b"via" | b"content-type" | b"content-encoding")
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
            | b"http2-settings"
    ) || name.starts_with(b"proxy-")
}

/// What the gateway answers for itself: framing, caller credentials, and what it tells upstreams.
fn is_ours(name: &[u8]) -> bool {
    matches!(
        name,
        b"host"
            | b"authorization"
            | b"dpop"
            | b"content-length"
            | b"expect"
            | b"x-api-key"
            | b"x-request-id"
            | b"forwarded"
            | b"x-real-ip"
    ) || name.starts_with(b"claviger-")
        || name.starts_with(b"x-forwarded-")
}

/// The options of `Connection`, which name further hop-by-hop headers.
#[derive(Default)]
struct ConnectionOptions<'a> {
    names: Vec<&'a [u8]>,
}

impl<'a> ConnectionOptions<'a> {
    fn read(&mut self, value: &'a [u8]) -> Result<(), HeaderError> {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let common = [b"keep-alive".as_slice(), b"close", b""];
            if common.iter().any(|name| option.eq_ignore_ascii_case(name)) {
                continue;
            }
            if self.names.len() == MAX_CONNECTION_OPTIONS {
                return Err(HeaderError::TooManyConnectionOptions);
            }
            self.names.push(option);
        }
        Ok(())
    }

    fn name(&self, header: &[u8]) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(header))
    }
}

/// A `Cookie` value without the gateway's own cookies, or nothing if no other is left.
fn foreign_cookies(value: &[u8], buffer: &mut BytesMut) -> Option<Bytes> {
    let foreign = || value.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|pair| !is_own_cookie(pair));
    let mut first = true;
    for pair in foreign().filter(|pair| !pair.is_empty()) {
        if !first {
            buffer.put_slice(b"; ");
        }
        buffer.put_slice(pair);
        first = false;
    }
    (!first).then(|| buffer.split().freeze())
}

/// Whether `pair`, the start of a `Set-Cookie` or a part of a `Cookie`, is one of the gateway's.
fn is_own_cookie(pair: &[u8]) -> bool {
    let name = pair.trim_ascii_start();
    let name = match name.get(..HOST_PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(HOST_PREFIX) => &name[HOST_PREFIX.len()..],
        _ => name,
    };
    name.starts_with(OWN_COOKIE)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn put(buffer: &mut BytesMut, value: &[u8]) -> Result<HeaderValue, HeaderError> {
    buffer.put_slice(value);
    HeaderValue::from_maybe_shared(buffer.split().freeze()).map_err(|_| HeaderError::Malformed)
}

fn written(buffer: &mut BytesMut, value: std::fmt::Arguments<'_>) -> Result<HeaderValue, HeaderError> {
    buffer.write_fmt(value).map_err(|_| HeaderError::Malformed)?;
    HeaderValue::from_maybe_shared(buffer.split().freeze()).map_err(|_| HeaderError::Malformed)
}

#[cfg(test)]
mod tests;
