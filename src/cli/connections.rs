//! `claviger connections`: a client of the admin API.

use std::io::{BufRead, Read as _};
use std::path::Path;

use awc::http::Method;
use bytes::Bytes;
use clap::{Args, Subcommand};
use claviger_actors::protocol::secret::wiped_bytes;
use url::Url;

use super::Printed;
use super::admin_client::{AdminAnswer, AdminClient, AdminRequest};
use super::revoke_all;
use crate::config;
use crate::config::environment::Environment;

/// Largest token set read from standard input, in bytes.
const MAX_INPUT: u64 = 1 << 20;

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
    /// Ask the provider about its access token.
    Introspect(Target),
    /// Revoke all connections of a profile at the provider, and forget them.
    RevokeAll {
        /// The profile.
        #[arg(long)]
        profile: String,
        /// Yes, all of them: their people have to consent again.
        #[arg(long)]
        yes: bool,
    },
    /// Take in a token set, read as JSON from standard input.
    Import(Target),
    /// Ask the provider who the person is (OpenID Connect UserInfo).
    Userinfo(Target),
    /// Move it under another subject.
    Rekey {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        to: NewSubject,
        /// Replace the connection that is there.
        #[arg(long)]
        replace: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Target {
    /// The profile.
    profile: String,
    /// Whose connection it is.
    subject: String,
}

/// Whose a connection becomes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct NewSubject {
    /// Its new subject.
    #[arg(long, value_name = "SUBJECT")]
    to: Option<String>,
    /// The subject of its ID token.
    #[arg(long)]
    to_id_token_sub: bool,
}

impl NewSubject {
    fn body(self, replace: bool) -> Bytes {
        let to = match self.to {
            Some(subject) => serde_json::json!({ "subject": subject, "replace": replace }),
            None => serde_json::json!({ "to": "id_token_sub", "replace": replace }),
        };
        Bytes::from(to.to_string())
    }
}

/// Asks the gateway that the configuration at `path` describes, and gives its answer.
pub(super) fn execute(
    command: ConnectionsCommand,
    path: &Path,
    environment: &dyn Environment,
    input: &mut dyn BufRead,
) -> Result<Printed, String> {
    let endpoint = config::load_admin_endpoint(path, environment).map_err(|errors| errors.to_string())?;
    let client = AdminClient::new(endpoint)?;
    if let ConnectionsCommand::RevokeAll { profile, yes } = command {
        return revoke_all::execute(&profile, yes, &client);
    }
    let url = client.url("/api/connections")?;
    result(&client.send(request(command, url, input)?)?)
}

fn request(
    command: ConnectionsCommand,
    mut url: Url,
    input: &mut dyn BufRead,
) -> Result<AdminRequest, String> {
    let (method, target, last, body) = match command {
        ConnectionsCommand::RevokeAll { .. } => return Err("it takes several requests".to_owned()),
        ConnectionsCommand::List { profile, subject, limit, cursor } => {
            let limit = limit.map(|limit| limit.to_string());
            let given = [("profile", profile), ("subject", subject), ("limit", limit), ("cursor", cursor)];
            for (name, value) in given {
                if let Some(value) = value {
                    url.query_pairs_mut().append_pair(name, &value);
                }
            }
            return Ok(AdminRequest { method: Method::GET, url, body: Bytes::new() });
        }
        ConnectionsCommand::Show(target) => (Method::GET, target, None, Bytes::new()),
        ConnectionsCommand::Refresh(target) => (Method::POST, target, Some("refresh"), Bytes::new()),
        ConnectionsCommand::Introspect(target) => (Method::POST, target, Some("introspect"), Bytes::new()),
        ConnectionsCommand::Delete(target) => (Method::DELETE, target, None, Bytes::new()),
        ConnectionsCommand::Import(target) => (Method::PUT, target, None, token_set(input)?),
        ConnectionsCommand::Userinfo(target) => (Method::GET, target, Some("userinfo"), Bytes::new()),
        ConnectionsCommand::Rekey { target, to, replace } => {
            (Method::POST, target, Some("rekey"), to.body(replace))
        }
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
    Ok(AdminRequest { method, url, body })
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
    if body.trim_ascii().is_empty() {
        return Err("standard input is empty: give the token set there, as JSON".to_owned());
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
        Ok(_) => Ok(body),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            Err(format!("standard input is not JSON: fault at line {line}, column {column}"))
        }
    }
}

fn result(answer: &AdminAnswer) -> Result<Printed, String> {
    if answer.status.is_success() && answer.body.is_empty() {
        return Ok(Printed::new(""));
    }
    serde_json::to_string_pretty(&checked(answer)?).map(Printed::new).map_err(|error| error.to_string())
}

/// The JSON of an answer, if it says that all went well.
pub(super) fn checked(answer: &AdminAnswer) -> Result<serde_json::Value, String> {
    let json: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    if !answer.status.is_success() {
        let detail = json.as_ref().and_then(|problem| problem.get("detail")?.as_str());
        return Err(format!(
            "the gateway answered {}: {}",
            answer.status,
            detail.unwrap_or("no further word")
        ));
    }
    json.ok_or_else(|| "the answer is not whole, or not the admin API's: it is not JSON".to_owned())
}
