//! `claviger connections`: a client of the admin API.

use std::io::{BufRead, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use claviger_actors::protocol::secret::{Secret, wiped_bytes};
use claviger_actors::transport::{IncomingResponse, OutgoingRequest, Transport as _};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use super::Printed;
use crate::client_tls;
use crate::config;
use crate::config::environment::Environment;
use crate::http_client::HttpTransport;

/// Largest token set read from standard input, in bytes.
const MAX_INPUT: u64 = 1 << 20;
/// Largest answer read, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// A refresh waits for the provider, so the gateway may take a while.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(super) enum ConnectionsCommand {
    /// List connections.
    List {
        /// Only those of this profile.
        #[arg(long)]
        profile: Option<String>,
        /// Only those of this subject.
        #[arg(long)]
        subject: Option<String>,
        /// At most this many.
        #[arg(long)]
        limit: Option<u32>,
        /// Go on where an earlier list ended.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show one connection.
    Show(Target),
    /// Refresh its token now.
    Refresh(Target),
    /// Revoke it at the provider and forget it.
    Delete(Target),
    /// Take in a token set, read as JSON from standard input.
    Import(Target),
}

#[derive(Debug, Args)]
pub(super) struct Target {
    /// The profile.
    profile: String,
    /// Whose connection it is.
    subject: String,
}

/// Asks the gateway that the configuration at `path` describes, and gives its answer.
pub(super) fn execute(
    command: ConnectionsCommand,
    path: &Path,
    environment: &dyn Environment,
    input: &mut dyn BufRead,
) -> Result<Printed, String> {
    let listeners = config::load_listeners(path, environment).map_err(|errors| errors.to_string())?;
    let base = reachable(listeners.admin);
    let (method, url, body) = request(command, base, input)?;
    let outgoing = OutgoingRequest {
        headers: headers(listeners.admin_token.as_ref(), &body)?,
        method,
        url,
        body,
        deadline: DEADLINE,
        max_body: MAX_ANSWER,
    };
    let tls = client_tls::trusting_the_system().map_err(|error| error.to_string())?;
    let transport = HttpTransport::new(tls);
    let answer = actix_rt::System::new()
        .block_on(async move { transport.send(outgoing).await })
        .map_err(|error| format!("the gateway's admin listener does not answer: {error}"))?;
    result(&answer)
}

/// An address to connect to: a listener on every address is also on loopback.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn request(
    command: ConnectionsCommand,
    base: SocketAddr,
    input: &mut dyn BufRead,
) -> Result<(Method, Url, Bytes), String> {
    let mut url = Url::parse(&format!("http://{base}/api/connections")).map_err(|error| error.to_string())?;
    let (method, target, last, body) = match command {
        ConnectionsCommand::List { profile, subject, limit, cursor } => {
            let limit = limit.map(|limit| limit.to_string());
            let given = [("profile", profile), ("subject", subject), ("limit", limit), ("cursor", cursor)];
            for (name, value) in given {
                if let Some(value) = value {
                    url.query_pairs_mut().append_pair(name, &value);
                }
            }
            return Ok((Method::GET, url, Bytes::new()));
        }
        ConnectionsCommand::Show(target) => (Method::GET, target, None, Bytes::new()),
        ConnectionsCommand::Refresh(target) => (Method::POST, target, Some("refresh"), Bytes::new()),
        ConnectionsCommand::Delete(target) => (Method::DELETE, target, None, Bytes::new()),
        ConnectionsCommand::Import(target) => (Method::PUT, target, None, token_set(input)?),
    };
    for name in [&target.profile, &target.subject] {
        // A URL would take these for a way up the path.
        if matches!(name.as_str(), "" | "." | "..") {
            return Err(format!("{name:?} is no name of a profile or subject"));
        }
    }
    if let Ok(mut path) = url.path_segments_mut() {
        path.push(&target.profile).push(&target.subject).extend(last);
    }
    Ok((method, url, body))
}

/// What `input` holds, if it is JSON. What is wrong with it is told without quoting it.
fn token_set(input: &mut dyn BufRead) -> Result<Bytes, String> {
    let mut text = Vec::new();
    let read = input.take(MAX_INPUT + 1).read_to_end(&mut text);
    let body = wiped_bytes(text);
    read.map_err(|error| format!("the token set cannot be read: {error}"))?;
    if body.len() as u64 > MAX_INPUT {
        return Err(format!("the token set is larger than {MAX_INPUT} bytes"));
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
        Ok(_) => Ok(body),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            Err(format!("standard input is not JSON: fault at line {line}, column {column}"))
        }
    }
}

fn headers(token: Option<&Secret>, body: &Bytes) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(token) = token {
        let bytes = wiped_bytes([b"Bearer ", token.expose().as_bytes()].concat());
        let mut value = HeaderValue::from_maybe_shared(bytes)
            .map_err(|_| "the admin token cannot be sent in a header".to_owned())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn result(answer: &IncomingResponse) -> Result<Printed, String> {
    let text = String::from_utf8_lossy(&answer.body);
    let json: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    if answer.status.is_success() {
        let pretty = json.as_ref().and_then(|json| serde_json::to_string_pretty(json).ok());
        return Ok(Printed::new(pretty.unwrap_or_else(|| text.into_owned())));
    }
    let detail = json.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    Err(format!("the gateway answered {}: {}", answer.status, detail.unwrap_or("no further word")))
}
