//! Certificates that are not valid now, or soon no longer. They end nothing here: it is the other side
//! that looks at them, and a gateway must start again whatever the date is.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_actors::clock::Timestamp;
use claviger_actors::profile::Profile;
use claviger_actors::registration::signing_keys::SigningKeys;

use super::error::{ConfigError, Faults, Place};
use super::file::ProfileFile;

/// A certificate that ends within this is told of: time enough to have it signed anew.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Notes what is amiss with a certificate that is valid in this time. `what` names it.
pub(super) fn check(
    place: &Place,
    what: &str,
    (from, until): (Timestamp, Timestamp),
    now: Timestamp,
    faults: &mut Faults,
) {
    let dated = faults.dated();
    let (list, problem) = if until <= now {
        (&mut dated.invalid, format!("ended at {until}; put a new one in its place"))
    } else if from > now {
        (&mut dated.invalid, format!("begins at {from}, which is not yet; use the one before until then"))
    } else if until <= now.after(SOON) {
        (&mut dated.ending, format!("ends at {until}; put a new one in its place before"))
    } else {
        return;
    };
    list.push(ConfigError { place: place.clone(), problem: format!("the certificate {what} {problem}") });
}

/// Looks at the certificates of signing keys.
pub(super) fn of_signing_keys(
    files: &BTreeMap<String, ProfileFile>,
    profiles: &[Profile],
    now: Timestamp,
    faults: &mut Faults,
) {
    for profile in profiles {
        let Some(file) = files.get(profile.registration.profile.as_str()) else { continue };
        let own = if file.settings.contains_key("certificate") { "certificate" } else { "signing_key" };
        let all = |keys: Option<&SigningKeys>| keys.map(SigningKeys::published).unwrap_or_default();
        let of_client = all(profile.client.auth().and_then(|auth| auth.signing_keys()));
        let of_grant = all(profile.grant.signing_keys());
        let keys =
            of_client.iter().map(|key| (own, key)).chain(of_grant.iter().map(|key| ("assertion", key)));
        for (place, key) in keys {
            let Some(validity) = key.certificate_validity() else { continue };
            check(&file.at.join(place), &format!("of signing key {:?}", key.kid()), validity, now, faults);
        }
    }
}
