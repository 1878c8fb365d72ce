//! `claviger connections revoke-all`: asks again and again, until nothing is left.

use awc::http::Method;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::Printed;
use super::admin_client::{AdminClient, AdminRequest};
use super::connections::checked;

#[derive(Debug, Default, Deserialize)]
struct Counts {
    revoked: u64,
    failed: u64,
    not_told: u64,
    #[serde(default)]
    more: bool,
}

impl Counts {
    fn forgotten(&self) -> u64 {
        self.revoked.saturating_add(self.not_told)
    }
}

/// Has the gateway revoke every connection of `profile`.
pub(super) fn execute(profile: &str, yes: bool, client: &AdminClient) -> Result<Printed, String> {
    if !yes {
        return Err(format!(
            "this revokes every connection of profile `{profile}`, and its people must consent again; \
             add --yes if that is what you want"
        ));
    }
    let mut url = client.url("/api/connections")?;
    url.query_pairs_mut().append_pair("profile", profile);
    let mut sum = Counts::default();
    loop {
        let request = AdminRequest { method: Method::DELETE, url: url.clone(), body: Bytes::new() };
        let counts: Counts = serde_json::from_value(checked(&client.send(request)?)?)
            .map_err(|_| "the answer is not the admin API's".to_owned())?;
        sum.revoked = sum.revoked.saturating_add(counts.revoked);
        sum.not_told = sum.not_told.saturating_add(counts.not_told);
        // Those that failed are met again, so the last word counts.
        sum.failed = counts.failed;
        sum.more = counts.more;
        if !counts.more || counts.forgotten() == 0 {
            break;
        }
    }
    let Counts { revoked, failed, not_told, more } = sum;
    if failed > 0 || more {
        return Err(format!(
            "{revoked} revoked, {not_told} forgotten without the provider being told, {failed} not forgotten: \
             see the gateway's log, then ask again"
        ));
    }
    let text =
        serde_json::to_string_pretty(&json!({ "revoked": revoked, "failed": 0, "not_told": not_told }));
    text.map(Printed::new).map_err(|error| error.to_string())
}
