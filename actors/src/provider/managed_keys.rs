//! Keeps the signing keys that the gateway makes for a profile: from the store into use, and in the
//! store in time. Replicas agree through the store: whoever writes first is followed by all.

use std::sync::Arc;
use std::time::Duration;

use super::context::ProviderContext;
use crate::registration::signing_keys::{KeySchedule, SigningKeys};
use crate::store::{Expected, StoreError};

/// Each replica may be first once, and so may we.
const ATTEMPTS: u32 = 8;

fn schedule(context: &ProviderContext) -> KeySchedule {
    KeySchedule::new(context.profile.registration.signing_key_lifetime)
}

/// How often [`keep`] is due, if the profile has such keys.
pub(super) fn interval(context: &ProviderContext) -> Option<Duration> {
    context.profile.signing_keys().any(SigningKeys::is_managed).then(|| schedule(context).interval())
}

/// Looks after the keys once; what was in use stays in use if the store cannot be had.
pub(super) async fn keep(context: Arc<ProviderContext>) {
    if let Err(error) = maintain(&context).await {
        let profile = &context.profile.registration.profile;
        tracing::warn!(%profile, %error, "the profile's signing keys could not be looked after");
        context.note_error(&error.to_string());
    }
}

/// Makes keys that are due, takes out those that are done, and puts the stored ones into use.
///
/// # Errors
/// The store's; nothing in use was changed then.
pub(crate) async fn maintain(context: &ProviderContext) -> Result<(), StoreError> {
    let managed: Vec<&SigningKeys> =
        context.profile.signing_keys().filter(|keys| keys.is_managed()).collect();
    if managed.is_empty() {
        return Ok(());
    }
    let profile = &context.profile.registration.profile;
    let unusable = |fault: &dyn std::fmt::Display| {
        StoreError::Unavailable(format!("a signing key of profile {profile} {fault}"))
    };
    for _ in 0..ATTEMPTS {
        let (revision, record) = context.records.load_signing_keys(profile).await?.unzip();
        let now = context.now();
        let next = schedule(context).advance(record.as_ref(), now).map_err(|fault| unusable(&fault))?;
        let Some(next) = next else {
            let keys = record.map(|record| record.at(now)).transpose().map_err(|fault| unusable(&fault))?;
            if let Some(keys) = keys.flatten() {
                managed.iter().for_each(|holder| holder.install(&keys));
            }
            return Ok(());
        };
        let expected = revision.map_or(Expected::Absent, Expected::Revision);
        // What is stored is read again, be it ours or that of a replica that was faster.
        match context.records.save_signing_keys(profile, next, expected).await {
            Ok(()) => tracing::info!(%profile, "the profile's signing keys changed"),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Unavailable(format!("the signing keys of profile {profile} change all the time")))
}
