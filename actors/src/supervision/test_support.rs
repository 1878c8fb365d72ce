//! A clock and systems to run actors on, for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use actix_rt::System;

use crate::clock::{Clock, Timestamp};

/// The wall clock, tied to tokio's so that paused time moves both.
#[derive(Debug)]
pub(crate) struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub(crate) fn shared() -> Arc<dyn Clock> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000_000).after(self.0.elapsed())
    }
}

/// Runs `test` on a system whose time is real.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    System::new().block_on(test);
}

/// Runs `test` on a system whose time moves only when everything waits.
pub(crate) fn run_paused<F: Future<Output = ()>>(test: F) {
    System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    })
    .block_on(test);
}
