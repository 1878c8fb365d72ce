//! Reference numbers: one for each request that the gateway itself answers, in the answer and in
//! the log.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::clock::Entropy;

/// Makes a reference number of 12 characters.
pub fn new_request_id(entropy: &dyn Entropy) -> String {
    let mut bytes = [0u8; 9];
    entropy.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
