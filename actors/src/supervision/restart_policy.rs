//! Backoff, intensity, giving up.

use std::time::Duration;

/// When an actor that ended is started again.
#[derive(Clone, Copy, Debug)]
pub struct RestartPolicy {
    /// Restarts at once that are allowed within `window`; later ones are delayed.
    pub immediate: u32,
    /// The window over which restarts are counted.
    pub window: Duration,
    /// Delay once `immediate` is used up; doubles with each further restart in the window.
    pub first_delay: Duration,
    /// The delay never grows beyond this.
    pub longest_delay: Duration,
    /// Whether a clean stop is also followed by a restart (an actor that should run for ever), or
    /// ends the child (a flow that is finished).
    pub restart_on_stop: bool,
}
