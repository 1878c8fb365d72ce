//! What one signed JWT costs, which every token request with an assertion pays once.

// A benchmark fails by panicking.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use claviger_actors::protocol::jws::{Jwt, MacAlgorithm, Signer};
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::signing_key::SigningKey;
use claviger_actors::testing::keys;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};

fn claims() -> Map<String, Value> {
    let claims = json!({ "iss": "s6BhdRkqt3", "sub": "s6BhdRkqt3", "aud": "https://as.example",
        "iat": 1_700_000_000, "exp": 1_700_000_060, "jti": "7mYq1vNHxQ2bWc5pTz8kLg" });
    claims.as_object().unwrap().clone()
}

fn sign(criterion: &mut Criterion) {
    let load = |material| SigningKey::load(material, None, None).unwrap();
    let (es256, rs256, eddsa) = (load(keys::P256), load(keys::RSA), load(keys::ED25519));
    let secret = Secret::from("a client secret that is long enough for HS256");
    let signers = [
        ("ES256", Signer::Key(&es256)),
        ("RS256", Signer::Key(&rs256)),
        ("EdDSA", Signer::Key(&eddsa)),
        ("HS256", Signer::Secret(MacAlgorithm::Hs256, &secret)),
    ];
    let mut group = criterion.benchmark_group("sign a JWT");
    for (name, signer) in signers {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Jwt::new(black_box(claims())).sign(signer).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, sign);
criterion_main!(benches);
