//! Makes what a configuration needs: password hashes and keys.

use std::io::{self, BufRead, Read as _};

use claviger_actors::clock::SystemEntropy;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::store::keyring::SealingKey;
use zeroize::Zeroizing;

use super::Printed;
use crate::caller_auth::{hash_api_key, hash_secret};

/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 1024;

/// A new key for `[store.encryption.keys]`.
pub(super) fn generate_key() -> Printed {
    Printed::new(SealingKey::generate(&SystemEntropy).expose())
}

/// The hash of the line that `input` holds: argon2id in PHC form, or the SHA-256 of an API key.
pub(super) fn hash(input: &mut dyn BufRead, api_key: bool) -> Result<Printed, String> {
    let what = if api_key { "key" } else { "password" };
    let password = line(input).map_err(|error| format!("the {what} cannot be read: {error}"))?;
    if password.expose().is_empty() {
        return Err(format!("the {what} is empty: give it as one line on standard input"));
    }
    if api_key {
        return Ok(Printed::new(hash_api_key(&password)));
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
