//! What the demo prints: things to try, in order. It is a shell script: every line that is not a
//! comment can be pasted, one by one or all at once.

use super::ports::Addresses;
use super::{CALLER, PASSWORD, PERSON};

/// How the guide ends, so that a program that reads it knows.
pub const LAST_LINE: &str = "# Ctrl-C in the first terminal ends the demo and removes all that it stored.";

/// The guide for a demo at `at`.
pub fn guide(at: &Addresses) -> String {
    let Addresses { proxy, public, admin, sandbox, calendar } = at;
    format!(
        r#"# Claviger demo. Everything is on loopback, in memory or in a throw-away folder, and gone at Ctrl-C.
#
#   http://{proxy}   the gateway, for applications
#   http://{public}   the gateway, for browsers
#   http://{admin}   the gateway, for operators
#   http://{sandbox}   sandbox authorization server (not for production)
#   http://{calendar}   sample calendar API: wants a bearer token of the sandbox
#
# Paste these lines into another terminal, in this order.

# 1. An application asks for its calendar. Nobody has consented yet: 403 and an authorization_url.
curl -s -w '\n' -u {CALLER}:{PASSWORD} http://{proxy}/calendar/events

# 2. Consent. Open that authorization_url in a browser, choose a person and press Allow;
#    or let curl be the browser:
JAR=$(mktemp)
LINK=$(curl -s -u {CALLER}:{PASSWORD} http://{proxy}/calendar/events | sed -n 's/.*"authorization_url":"\([^"]*\)".*/\1/p')
ASKED=$(curl -s -L -c "$JAR" -b "$JAR" "$LINK" | sed -n 's/.*name="request" value="\([^"]*\)".*/\1/p')
curl -s -L -c "$JAR" -b "$JAR" -d "request=$ASKED" -d user={PERSON} -d decision=allow -o /dev/null -w 'consent: %{{http_code}}\n' http://{sandbox}/authorize

# 3. The same call again: 200 and {PERSON}'s events. The application never saw a token.
curl -s -w '\n' -u {CALLER}:{PASSWORD} http://{proxy}/calendar/events
curl -s -w '\n' -u {CALLER}:{PASSWORD} -H 'Content-Type: application/json' -d '{{"summary":"Tea"}}' http://{proxy}/calendar/events

# 4. The token lives for a minute. Calls have it refreshed before it ends (wait, call, look again);
#    or refresh it now, and see another access_token_fingerprint:
curl -s -w '\n' http://{admin}/api/connections/calendar/{CALLER}
curl -s -w '\n' -X POST http://{admin}/api/connections/calendar/{CALLER}/refresh

# 5. A program without a person (client_credentials) needs no consent:
curl -s -w '\n' -u {CALLER}:{PASSWORD} http://{proxy}/robot/calendar/events

# 6. What every actor is doing:
curl -s -w '\n' http://{admin}/debug/actors

# 7. Delete the connection: the sandbox is told to revoke, and the next call needs consent again.
curl -s -X DELETE -w 'deleted: %{{http_code}}\n' http://{admin}/api/connections/calendar/{CALLER}
curl -s -w '\n' -u {CALLER}:{PASSWORD} http://{proxy}/calendar/events

{LAST_LINE}
"#
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::process::Command;

    use super::*;

    fn printed() -> String {
        let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        guide(&Addresses {
            proxy: at(8080),
            public: at(8081),
            admin: at(8082),
            sandbox: at(8090),
            calendar: at(8091),
        })
    }

    #[test]
    fn the_whole_guide_is_a_shell_script() {
        let status = Command::new("sh").args(["-n", "-c", &printed()]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn every_line_is_a_comment_or_a_command() {
        for line in printed().lines() {
            let start = ["#", "curl ", "JAR=", "LINK=", "ASKED="];
            assert!(line.is_empty() || start.iter().any(|s| line.starts_with(s)), "{line}");
        }
    }
}
