//! Idle connections cost memory: buffers and timers for a request that may never come. Of one that
//! lies idle for a moment only the socket is kept.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stream::CallerStream;

/// How long a connection lies still before it counts as idle, at first. Soon, so that the buffers of
/// one go to the next while many are opened.
const FIRST_WATCH: Duration = Duration::from_millis(100);
/// The same for one that has been in use for a while. One timer goes off so often on it.
const LONGEST_WATCH: Duration = Duration::from_millis(1600);

/// Why nobody speaks on a connection any more.
pub(super) enum Ended<T> {
    /// It is closed.
    Closed(T),
    /// It lies idle between two requests, and can be taken up again.
    Idle,
}

/// Lets `speaking` speak until the connection ends or lies idle.
pub(super) async fn until_idle<F: Future>(
    mut speaking: Pin<Box<F>>,
    stream: &CallerStream,
) -> Ended<F::Output> {
    let mut span = FIRST_WATCH;
    let mut watch = pin!(sleep(span));
    let mut seen = stream.connection().answered();
    poll_fn(move |cx| {
        if let Poll::Ready(output) = speaking.as_mut().poll(cx) {
            return Poll::Ready(Ended::Closed(output));
        }
        while watch.as_mut().poll(cx).is_ready() {
            let now = stream.connection().answered();
            let is_idle = now.is_some_and(|requests| requests > 0) && now == seen;
            if is_idle && stream.is_between_messages() {
                return Poll::Ready(Ended::Idle);
            }
            if now.is_none() || now != seen {
                span = (span * 2).min(LONGEST_WATCH);
            }
            seen = now;
            watch.as_mut().reset(Instant::now() + span);
        }
        Poll::Pending
    })
    .await
}
