//! Makes what a configuration needs: password hashes and keys.

use std::io::{self, BufRead, Read as _};

use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use claviger_actors::clock::{Entropy as _, SystemEntropy};
use claviger_actors::store::keyring::SealingKey;
use zeroize::Zeroizing;

use super::Printed;

/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 1024;
const SALT_BYTES: usize = 16;

/// A new key for `[store.encryption.keys]`.
pub(super) fn generate_key() -> Printed {
    Printed::new(SealingKey::generate(&SystemEntropy).expose())
}

/// The argon2id hash, in PHC form, of the line that `input` holds.
pub(super) fn hash(input: &mut dyn BufRead) -> Result<Printed, String> {
    let password = line(input).map_err(|error| format!("the password cannot be read: {error}"))?;
    if password.is_empty() {
        return Err("the password is empty: give it as one line on standard input".to_owned());
    }
    let mut salt = [0u8; SALT_BYTES];
    SystemEntropy.fill(&mut salt);
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    // The library's defaults are what RFC 9106 and OWASP recommend for servers.
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| Printed::new(hash.to_string()))
        .map_err(|error| format!("the password cannot be hashed: {error}"))
}

fn line(input: &mut dyn BufRead) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    input.take(MAX_PASSWORD + 3).read_line(&mut text)?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.len() as u64 > MAX_PASSWORD {
        return Err(io::Error::other(format!("it is longer than {MAX_PASSWORD} bytes")));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
