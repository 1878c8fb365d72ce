//! Scripted ports for tests: a transport, a clock and a source of randomness that do as told.

pub mod keys;
pub mod profiles;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use url::Url;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::transport::{IncomingResponse, OutgoingRequest, Transport, TransportError};

/// A request as [`ScriptedTransport`] saw it.
#[derive(Clone, Debug)]
pub struct SentRequest {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's form parameters; the last of a name wins.
    pub params: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
    /// Total time allowed.
    pub deadline: Duration,
    /// Largest answer accepted.
    pub max_body: usize,
}

impl SentRequest {
    /// A form parameter, empty if absent.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }
}

/// What a scripted server answers, and how long it takes.
#[derive(Debug)]
pub struct Answer {
    /// How long it takes, on tokio's clock.
    pub after: Duration,
    /// The answer.
    pub result: Result<(StatusCode, HeaderMap, Bytes), TransportError>,
}

impl Answer {
    /// An answer with a JSON body. Statuses that HTTP does not have become 500.
    pub fn json(status: u16, body: impl fmt::Display) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { after: Duration::ZERO, result: Ok((status, headers, Bytes::from(body.to_string()))) }
    }

    /// No answer.
    pub fn failed(error: TransportError) -> Self {
        Self { after: Duration::ZERO, result: Err(error) }
    }

    /// The same with a further header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        if let Ok((_, headers, _)) = &mut self.result {
            headers.insert(name, HeaderValue::from_static(value));
        }
        self
    }

    /// The same, `delay` later. A delay beyond the request's deadline becomes a timeout.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }
}

type Script = dyn Fn(&SentRequest) -> Answer + Send + Sync;

/// A transport whose answers come from a closure, and which remembers what was sent. It keeps to
/// the port's promises: deadline and size limit hold.
pub struct ScriptedTransport {
    script: Box<Script>,
    sent: Mutex<Vec<SentRequest>>,
}

impl ScriptedTransport {
    /// Answers every request with what `script` returns.
    pub fn new(script: impl Fn(&SentRequest) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { script: Box::new(script), sent: Mutex::default() })
    }

    /// Every request so far, oldest first.
    pub fn sent(&self) -> Vec<SentRequest> {
        self.sent.lock().clone()
    }

    /// How many requests were sent so far.
    pub fn count(&self) -> usize {
        self.sent.lock().len()
    }
}

impl Transport for ScriptedTransport {
    fn send(
        &self,
        request: OutgoingRequest,
    ) -> LocalBoxFuture<'static, Result<IncomingResponse, TransportError>> {
        let seen = SentRequest {
            params: url::form_urlencoded::parse(&request.body).into_owned().collect(),
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            deadline: request.deadline,
            max_body: request.max_body,
        };
        self.sent.lock().push(seen.clone());
        let answer = (self.script)(&seen);
        Box::pin(async move {
            let authority = seen.url.authority().to_owned();
            if answer.after > seen.deadline {
                tokio::time::sleep(seen.deadline).await;
                return Err(TransportError::Timeout { authority, after: seen.deadline });
            }
            if !answer.after.is_zero() {
                tokio::time::sleep(answer.after).await;
            }
            let (status, headers, body) = answer.result?;
            if body.len() > seen.max_body {
                return Err(TransportError::TooLarge { authority, limit: seen.max_body });
            }
            Ok(IncomingResponse { status, headers, body })
        })
    }
}

/// A wall clock that moves only when told.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Starts at `start`.
    pub fn new(start: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(start.as_millis())))
    }

    /// Moves on by `delay`.
    pub fn advance(&self, delay: Duration) {
        self.set(self.now().after(delay));
    }

    /// Jumps to `now`, which may be earlier.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Bytes drawn from a seed (splitmix64): the same seed, the same bytes. Never for real secrets.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }

    /// The next number.
    pub fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let drawn = |seed| {
            let mut bytes = [0u8; 21];
            SeededEntropy::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn the_clock_moves_when_told() {
        let clock = ManualClock::new(Timestamp::from_secs(5));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now(), Timestamp::from_millis(6500));
        clock.set(Timestamp::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_secs(1));
    }
}
