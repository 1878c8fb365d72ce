//! What systemd is told, if it started us (`sd_notify`). Nobody is told otherwise.

use sd_notify::NotifyState;

/// Serving, from now on or again.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// About to take another configuration.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the time of a reload cannot be told"),
    }
}

/// About to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The process of that number serves instead of this one.
pub(super) fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told: {states:?}");
    }
}
