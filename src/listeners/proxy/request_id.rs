//! Names for requests: unique, cheap, and no secret.

use std::cell::Cell;

use claviger_actors::clock::Entropy;

const PREFIX: usize = 9;
const LENGTH: usize = PREFIX + 12;

/// One request's name, which finds it in the log.
#[derive(Clone, Copy)]
pub(super) struct RequestId([u8; LENGTH]);

impl RequestId {
    pub(super) fn as_str(&self) -> &str {
        // Only hexadecimal digits and a hyphen are ever written.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<&RequestId> for String {
    fn from(id: &RequestId) -> Self {
        id.as_str().to_owned()
    }
}

/// Makes names: one random prefix for each worker and start, and a counter.
pub(super) struct RequestIds {
    prefix: [u8; PREFIX],
    next: Cell<u64>,
}

impl RequestIds {
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        let mut random = [0u8; 8];
        entropy.fill(&mut random);
        let mut prefix = [b'-'; PREFIX];
        write_hex(&mut prefix[..PREFIX - 1], u64::from_le_bytes(random));
        Self { prefix, next: Cell::new(1) }
    }

    pub(super) fn next(&self) -> RequestId {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut id = [0u8; LENGTH];
        id[..PREFIX].copy_from_slice(&self.prefix);
        write_hex(&mut id[PREFIX..], number);
        RequestId(id)
    }
}

fn write_hex(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use claviger_actors::clock::SystemEntropy;

    use super::RequestIds;

    #[test]
    fn names_share_a_prefix_and_count_on() {
        let ids = RequestIds::new(&SystemEntropy);
        let (first, second) = (String::from(&ids.next()), String::from(&ids.next()));
        assert_eq!(first.len(), 21);
        assert!(first.ends_with("-000000000001") && second.ends_with("-000000000002"), "{first} {second}");
        assert_eq!(first[..9], second[..9]);
    }
}
