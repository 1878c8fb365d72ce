//! Deterministic simulation of the engine: the real `ProviderActor`, `TokenStoreActor`, registrar
//! and `FlowActor`s under a seeded schedule of calls, consents, delays, failures, panics, clock
//! steps and crashes, against a model of an authorization server that rotates refresh tokens.
//!
//! Invariants: one use of one state; at most one token request in flight a connection; no token
//! for another subject; no live grant dropped; no acknowledged consent lost.
//!
//! `CLAVIGER_SIM_SEEDS=10000` sets how many seeds are run (default 200), `CLAVIGER_SIM_SEED=77`
//! replays one, with its story on stderr.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod driver;
mod provider_model;
mod rng;
mod world;

/// Runs seeds on both cores and names each that failed, with how to replay it.
#[test]
fn no_seed_breaks_an_invariant() {
    quiet_injected_panics();
    if let Some(seed) = setting("CLAVIGER_SIM_SEED") {
        let story = driver::run(seed);
        eprintln!("{}", story.lines.join("\n"));
        assert!(story.faults.is_empty(), "seed {seed}: {:#?}", story.faults);
        return;
    }
    let seeds = setting("CLAVIGER_SIM_SEEDS").unwrap_or(200);
    let next = std::sync::atomic::AtomicU64::new(0);
    let failures = parking_lot::Mutex::new(Vec::new());
    let requests = std::sync::atomic::AtomicU64::new(0);
    let calls = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let story = driver::run(seed);
                    requests.fetch_add(story.token_requests, std::sync::atomic::Ordering::Relaxed);
                    calls.fetch_add(story.lines.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    if !story.faults.is_empty() {
                        failures.lock().push((seed, story.faults));
                    }
                }
            });
        }
    });
    eprintln!("{seeds} seeds, {calls:?} events, {requests:?} token requests");
    let failures = failures.into_inner();
    let replay = failures.first().map(|(seed, _)| format!("replay with CLAVIGER_SIM_SEED={seed}"));
    assert!(failures.is_empty(), "{} of {seeds} seeds failed; {replay:?}\n{failures:#?}", failures.len());
}

/// The same seed tells the same story, to the letter.
#[test]
fn a_seed_replays_exactly() {
    quiet_injected_panics();
    for seed in 0..10 {
        let (first, second) = (driver::run(seed), driver::run(seed));
        assert!(first.lines.len() > 20, "seed {seed} did next to nothing: {:#?}", first.lines);
        assert_eq!(first.lines, second.lines, "seed {seed}");
    }
}

/// Panics that are made on purpose are no news; their backtraces would take most of the time.
fn quiet_injected_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("injected by a test") {
                loud(info);
            }
        }));
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}
