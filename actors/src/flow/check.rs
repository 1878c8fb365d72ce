//! Whether an authorization response belongs to a flow. Pure, and what fails here uses nothing up.

use subtle::ConstantTimeEq;

use super::record::{FlowRecord, StateHash};
use crate::clock::Timestamp;
use crate::protocol::secret::Secret;

/// Checks time, browser and issuer, in this order. The error is for the log only.
pub(super) fn belongs(
    record: &FlowRecord,
    iss: Option<&str>,
    browser: Option<&Secret>,
    now: Timestamp,
) -> Result<(), &'static str> {
    if now >= record.expires_at {
        return Err("the flow has expired");
    }
    let browser = browser.ok_or("the browser sent no binding cookie")?;
    if !same(&StateHash::of(browser.expose()), &record.browser) {
        return Err("the answer came from another browser");
    }
    // RFC 9207 section 2.4: simple string comparison. It holds for error responses, too. Where
    // endpoints are configured without an issuer there is nothing to compare with.
    match (iss, &record.issuer) {
        (None, _) if record.iss_required => Err("iss is required and missing"),
        (Some(_), None) if record.iss_required => Err("iss is required, and the issuer is not known"),
        (Some(iss), Some(issuer)) if iss != issuer => Err("iss is another issuer's"),
        _ => Ok(()),
    }
}

fn same(one: &StateHash, other: &StateHash) -> bool {
    one.0.ct_eq(&other.0).into()
}
