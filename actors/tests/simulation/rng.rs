//! A small seeded generator: the one source of chance in a simulation.

use std::sync::Arc;

use claviger_actors::clock::Entropy;
use parking_lot::Mutex;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A generator of its own, so that one part's draws do not shift another's.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// The engine's randomness, seeded.
#[derive(Clone, Debug)]
pub struct SimEntropy(Arc<Mutex<Rng>>);

impl SimEntropy {
    pub fn new(rng: Rng) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut rng = self.0.lock();
        for chunk in out.chunks_mut(8) {
            let bytes = rng.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
