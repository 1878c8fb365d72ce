//! HTTP Basic (RFC 7617) with argon2id hashes.
//!
//! Verifying a password is made to be slow, so it happens on a blocking thread, a few at a time, and
//! its outcome is kept for a while under a keyed digest of the header: neither password nor anything
//! that can be tried offline lies in memory for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header::AUTHORIZATION;
use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHash, PasswordVerifier, Version};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use claviger_actors::clock::{Entropy, SystemEntropy, Timestamp};
use claviger_actors::protocol::secret::Secret;
use claviger_actors::transport::Transport;
use futures_util::future::LocalBoxFuture;
use quick_cache::sync::Cache;
use thiserror::Error;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    AuthenticatedCaller, Caller, CallerAuth, CallerAuthError, ConfiguredCaller, Presented, Recalled,
    Remembered, Verdicts,
};

/// What a caller without a valid credential is told.
pub const CHALLENGE: &str = "Basic realm=\"claviger\", charset=\"UTF-8\"";

/// How long a right credential stays known.
const ACCEPTED_FOR: Duration = Duration::from_secs(300);
/// How long a wrong credential stays known: shorter, for somebody may be mending the configuration.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Passwords verified at once: each takes memory and a core.
const AT_ONCE: usize = 2;
/// Passwords that may wait to be verified.
const MAX_WAITING: usize = 64;
/// Longest wait to be verified.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest header looked at.
const MAX_HEADER: usize = 4096;
/// Most memory that verifying one password may take, in KiB.
const MAX_MEMORY: u32 = 1 << 20;
/// Most passes that verifying one password may take.
const MAX_PASSES: u32 = 64;

/// A user name and the hash of its password.
#[derive(Clone, Debug)]
pub struct BasicCredential {
    /// The user name; no two callers have the same.
    pub username: String,
    /// argon2id, in PHC form.
    pub password_hash: Secret,
}

/// Why a secret was not hashed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HashSecretError {
    /// An empty password would let anybody in.
    #[error("the secret is empty")]
    Empty,
    /// The hash function refused.
    #[error("the secret cannot be hashed: {0}")]
    Hash(argon2::password_hash::Error),
}

/// Why a password hash is not accepted. None of the variants holds the hash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PasswordHashError {
    /// Not in PHC form; perhaps the password itself.
    #[error("is not an argon2id hash in PHC form; make one with `claviger hash-secret`")]
    NotPhc,
    /// Another function, or another variant of argon2.
    #[error("must be an argon2id hash; make one with `claviger hash-secret`")]
    NotArgon2id,
    /// It has no salt or no hash.
    #[error("is cut short; make a new one with `claviger hash-secret`")]
    Incomplete,
    /// Verifying it would take too much memory or time.
    #[error("costs too much to verify: at most m={MAX_MEMORY} and t={MAX_PASSES} are allowed")]
    TooCostly,
}

/// The argon2id hash of `secret` in PHC form, with the parameters that OWASP recommends
/// (19 MiB, 2 passes, 1 lane).
pub fn hash_secret(secret: &Secret) -> Result<String, HashSecretError> {
    if secret.expose().is_empty() {
        return Err(HashSecretError::Empty);
    }
    let mut salt = [0u8; 16];
    SystemEntropy.fill(&mut salt);
    let salt = SaltString::encode_b64(&salt).map_err(HashSecretError::Hash)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
    let hash = argon2.hash_password(secret.expose().as_bytes(), &salt).map_err(HashSecretError::Hash)?;
    Ok(hash.to_string())
}

/// Checks that `hash` is an argon2id hash that can be verified at a bounded cost.
pub fn check_password_hash(hash: &str) -> Result<(), PasswordHashError> {
    let parsed = PasswordHash::new(hash).map_err(|_| PasswordHashError::NotPhc)?;
    if parsed.algorithm != Algorithm::Argon2id.ident() {
        return Err(PasswordHashError::NotArgon2id);
    }
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(PasswordHashError::Incomplete);
    }
    let params = Params::try_from(&parsed).map_err(|_| PasswordHashError::NotPhc)?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES {
        return Err(PasswordHashError::TooCostly);
    }
    Ok(())
}

/// Sets the method up for the callers that have a Basic credential.
pub(super) fn build(
    callers: &[(Arc<Caller>, ConfiguredCaller)],
    _: &Arc<dyn Transport>,
    remembered: &Arc<Remembered>,
) -> Option<Box<dyn CallerAuth>> {
    let users: HashMap<_, _> = callers
        .iter()
        .filter_map(|(caller, configured)| {
            let basic = configured.basic.clone()?;
            Some((basic.username, User { caller: caller.clone(), password_hash: basic.password_hash }))
        })
        .collect();
    (!users.is_empty()).then(|| Box::new(HttpBasic::new(users, remembered.clone())) as Box<dyn CallerAuth>)
}

struct User {
    caller: Arc<Caller>,
    password_hash: Secret,
}

#[derive(Clone)]
struct Verdict {
    caller: Option<Arc<Caller>>,
    until: Timestamp,
}

impl Verdict {
    fn accepted(self) -> Option<AuthenticatedCaller> {
        let until = self.until;
        self.caller.map(|caller| AuthenticatedCaller { until, ..caller.into() })
    }
}

type Digest = [u8; 32];

/// Passwords that were found to be right for a hash, each until when, under a keyed digest of both.
pub(super) struct RightPasswords {
    key: hmac::Key,
    until: Cache<Digest, Timestamp>,
}

impl fmt::Debug for RightPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RightPasswords").finish_non_exhaustive()
    }
}

impl RightPasswords {
    pub(super) fn holding(most: usize) -> Self {
        Self { key: new_key(), until: Cache::new(most) }
    }

    fn digest(&self, password: &[u8], hash: &Secret) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        // A hash has no zero byte in it, so that both have one meaning only.
        context.update(hash.expose().as_bytes());
        context.update(&[0]);
        context.update(password);
        let mut digest = [0u8; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn recall(&self, password: &[u8], hash: &Secret, now: Timestamp) -> Option<Timestamp> {
        self.until.get(&self.digest(password, hash)).filter(|until| now < *until)
    }
}

fn new_key() -> hmac::Key {
    let mut key = Zeroizing::new([0u8; 32]);
    SystemEntropy.fill(&mut *key);
    hmac::Key::new(hmac::HMAC_SHA256, &*key)
}

struct HttpBasic {
    users: HashMap<String, User>,
    remembered: Arc<Remembered>,
    /// What the password of an unknown user is verified against, so that it takes as long.
    nobody: Secret,
    key: hmac::Key,
    verdicts: Cache<Digest, Verdict>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl fmt::Debug for HttpBasic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBasic").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl HttpBasic {
    fn new(users: HashMap<String, User>, remembered: Arc<Remembered>) -> Self {
        Self {
            nobody: hash_of_nobody(users.values().map(|user| user.password_hash.expose())),
            users,
            verdicts: Cache::new(remembered.most),
            remembered,
            key: new_key(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: AtomicUsize::new(0),
        }
    }

    fn digest(&self, header: &[u8]) -> Digest {
        let mut digest = [0u8; 32];
        digest.copy_from_slice(hmac::sign(&self.key, header).as_ref());
        digest
    }

    /// Verifies a header that no verdict is known for. Others who send the same one wait for this.
    async fn decide(&self, header: &[u8], now: Timestamp) -> Result<Verdict, CallerAuthError> {
        let Some(presented) = NameAndPassword::parse(header) else {
            return Ok(Verdict { caller: None, until: now.after(REFUSED_FOR) });
        };
        let user = self.users.get(presented.username());
        let hash = user.map_or(&self.nobody, |user| &user.password_hash).clone();
        let passwords = &self.remembered.passwords;
        if let Some(user) = user
            && let Some(until) = passwords.recall(presented.password(), &hash, now)
        {
            return Ok(Verdict { caller: Some(user.caller.clone()), until });
        }
        let digest = passwords.digest(presented.password(), &hash);
        let _waiting = Waiting::enter(&self.waiting).ok_or(CallerAuthError::Overloaded)?;
        let turn = tokio::time::timeout(LONGEST_WAIT, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(CallerAuthError::Overloaded) };
        let verified = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even if nobody waits for it any more.
            let _turn = turn;
            PasswordHash::new(hash.expose())
                .is_ok_and(|hash| Argon2::default().verify_password(presented.password(), &hash).is_ok())
        });
        let right = verified.await.map_err(|_| CallerAuthError::Overloaded)?;
        let caller = user.filter(|_| right).map(|user| user.caller.clone());
        let kept = if caller.is_some() { ACCEPTED_FOR } else { REFUSED_FOR };
        let until = now.after(kept);
        if caller.is_some() {
            passwords.until.insert(digest, until);
        }
        Ok(Verdict { caller, until })
    }
}

impl CallerAuth for HttpBasic {
    fn challenge(&self) -> &'static str {
        CHALLENGE
    }

    fn verdicts(&self) -> Option<Verdicts> {
        Some(Verdicts::of(self.verdicts.len(), self.verdicts.capacity()))
    }

    fn recall(&self, presented: Presented<'_>, now: Timestamp) -> Recalled {
        let Some(header) = presented.headers.get(AUTHORIZATION).map(|value| value.as_bytes()) else {
            return Recalled::NotPresented;
        };
        if scheme(header).is_none() {
            return Recalled::NotPresented;
        }
        if header.len() > MAX_HEADER {
            return Recalled::Refused;
        }
        match self.verdicts.get(&self.digest(header)) {
            Some(verdict) if now < verdict.until => {
                verdict.accepted().map_or(Recalled::Refused, Recalled::Accepted)
            }
            _ => Recalled::Unknown,
        }
    }

    fn verify<'a>(
        &'a self,
        presented: Presented<'a>,
        now: Timestamp,
    ) -> LocalBoxFuture<'a, Result<AuthenticatedCaller, CallerAuthError>> {
        Box::pin(async move {
            let header = presented.headers.get(AUTHORIZATION);
            let header = header.map(|value| value.as_bytes()).unwrap_or_default();
            let digest = self.digest(header);
            self.verdicts.remove_if(&digest, |verdict| verdict.until <= now);
            let verdict = match self.verdicts.get_value_or_guard_async(&digest).await {
                Ok(verdict) => verdict,
                Err(guard) => {
                    let verdict = self.decide(header, now).await?;
                    // An error only means that the entry was removed meanwhile.
                    let _ = guard.insert(verdict.clone());
                    verdict
                }
            };
            verdict.accepted().ok_or(CallerAuthError::Refused)
        })
    }
}

/// Counts one who waits, up to [`MAX_WAITING`].
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// User name and password as a request brings them, wiped on drop.
struct NameAndPassword {
    decoded: Zeroizing<Vec<u8>>,
    colon: usize,
}

impl NameAndPassword {
    /// RFC 7617 section 2: base64 of the name, a colon and the password.
    fn parse(header: &[u8]) -> Option<Self> {
        const ANY_PADDING: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
        let decoded = Zeroizing::new(ENGINE.decode(scheme(header)?.trim_ascii()).ok()?);
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        std::str::from_utf8(&decoded[..colon]).ok()?;
        Some(Self { decoded, colon })
    }

    fn username(&self) -> &str {
        std::str::from_utf8(&self.decoded[..self.colon]).unwrap_or_default()
    }

    fn password(&self) -> &[u8] {
        &self.decoded[self.colon + 1..]
    }
}

/// What follows `Basic `, whose case does not matter.
fn scheme(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(6)?;
    scheme.eq_ignore_ascii_case(b"basic ").then_some(rest)
}

/// A hash that no password has, as costly to verify as the costliest of `hashes`.
fn hash_of_nobody<'a>(hashes: impl Iterator<Item = &'a str>) -> Secret {
    let costs = hashes.filter_map(|hash| Params::try_from(&PasswordHash::new(hash).ok()?).ok());
    let params = costs.max_by_key(|params| u64::from(params.m_cost()) * u64::from(params.t_cost()));
    let params = params.unwrap_or_default();
    Secret::new(format!(
        "$argon2id$v=19$m={},t={},p={}$bm9ib2R5IGlzIGhlcmU$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        params.m_cost(),
        params.t_cost(),
        params.p_cost()
    ))
}

#[cfg(test)]
mod tests;
