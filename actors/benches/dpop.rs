//! What a DPoP proof costs the worker that sends it with a call (RFC 9449).
#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;

use claviger_actors::clock::{SystemEntropy, Timestamp};
use claviger_actors::protocol::dpop::{ALGORITHMS, AccessTokenHash, DpopKey, Proof};
use criterion::{Criterion, criterion_group, criterion_main};

fn prove(criterion: &mut Criterion) {
    let hash = AccessTokenHash::of("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
    let now = Timestamp::from_secs(1_700_000_000);
    for algorithm in ALGORITHMS {
        let key = DpopKey::generate(algorithm).expect("a key");
        let proof = Proof {
            method: "GET",
            url: "https://resource.example.org/protectedresource",
            nonce: Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"),
            access_token: Some(&hash),
        };
        criterion.bench_function(&format!("dpop/prove/{}", algorithm.name()), |bench| {
            bench.iter(|| key.prove(black_box(proof), now, &SystemEntropy).expect("a proof"));
        });
    }
}

/// A stored connection is read once, then it is in memory.
fn read(criterion: &mut Criterion) {
    let key = DpopKey::generate(ALGORITHMS[0]).expect("a key");
    let text = serde_json::to_string(&key).expect("text");
    criterion.bench_function("dpop/read/ES256", |bench| {
        bench.iter(|| serde_json::from_str::<DpopKey>(black_box(&text)).expect("a key"));
    });
}

criterion_group!(benches, prove, read);
criterion_main!(benches);
