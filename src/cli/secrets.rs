//! Makes what a configuration needs: password hashes and keys.

use std::io::{self, BufRead, Read as _};

use claviger_actors::clock::SystemEntropy;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::store::keyring::SealingKey;
use zeroize::Zeroizing;

use super::Printed;
use crate::caller_auth::hash_secret;

/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 1024;

/// A new key for `[store.encryption.keys]`.
pub(super) fn generate_key() -> Printed {
    Printed::new(SealingKey::generate(&SystemEntropy).expose())
}

/// The argon2id hash, in PHC form, of the line that `input` holds.
pub(super) fn hash(input: &mut dyn BufRead) -> Result<Printed, String> {
    let password = line(input).map_err(|error| format!("the password cannot be read: {error}"))?;
    if password.expose().is_empty() {
        return Err("the password is empty: give it as one line on standard input".to_owned());
    }
    hash_secret(&password).map(Printed::new).map_err(|error| error.to_string())
}

fn line(input: &mut dyn BufRead) -> io::Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    input.take(MAX_PASSWORD + 3).read_line(&mut text)?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.len() as u64 > MAX_PASSWORD {
        return Err(io::Error::other(format!("it is longer than {MAX_PASSWORD} bytes")));
    }
    Ok(Secret::new(line))
}
