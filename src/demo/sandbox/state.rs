//! What the sandbox remembers: clients, pending requests, codes and tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::clock::{Clock, Entropy, Timestamp};
use claviger_actors::protocol::pkce::CodeVerifier;
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::state::random_token;
use parking_lot::Mutex;

use super::keys::SigningKey;

/// What may be asked for.
pub const SCOPES: [&str; 3] = ["openid", "calendar.read", "calendar.write"];

/// Who may log in: name and full name.
pub const PEOPLE: [(&str, &str); 2] = [("alice", "Alice Adams"), ("bob", "Bob Brown")];

/// Short, so that a refresh can be watched.
pub const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(60);
const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const CODE_LIFETIME: Duration = Duration::from_secs(60);
const LOGIN_LIFETIME: Duration = Duration::from_secs(600);

/// Most entries of each kind; the oldest to end make room.
const MAX_ENTRIES: usize = 10_000;

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    /// RFC 6749 section 2.2.
    pub id: String,
    /// RFC 6749 section 2.3.1.
    pub secret: Secret,
    /// The one redirection endpoint, compared byte for byte; `None` for a client without people.
    pub redirect_uri: Option<String>,
}

/// A checked authorization request, waiting for the person.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest {
    /// Who asks.
    pub client_id: String,
    /// Where the answer goes.
    pub redirect_uri: String,
    /// Echoed.
    pub state: Option<String>,
    /// What is asked for.
    pub scope: ScopeSet,
    /// RFC 7636 section 4.2, `S256`.
    pub code_challenge: String,
    /// For the ID token.
    pub nonce: Option<String>,
}

/// What an access or refresh token, or a code, stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// All that came from one consent; revoked together.
    pub family: u64,
    /// Whose it is.
    pub client_id: String,
    /// Who consented; the client itself when nobody did.
    pub user: String,
    /// What was granted.
    pub scope: ScopeSet,
}

/// An access token and what came with it.
#[derive(Debug)]
pub struct Issued {
    /// The access token.
    pub access_token: Secret,
    /// A refresh token, when a person consented.
    pub refresh_token: Option<Secret>,
    /// What both stand for.
    pub grant: Grant,
    /// For the ID token, when a code was redeemed.
    pub nonce: Option<String>,
}

struct Code {
    request: AuthorizationRequest,
    grant: Grant,
    used: bool,
}

struct RefreshToken {
    grant: Grant,
    used: bool,
}

/// Entries that end by themselves.
struct Expiring<T>(BTreeMap<String, (Timestamp, T)>);

impl<T> Expiring<T> {
    fn insert(&mut self, key: &Secret, value: T, now: Timestamp, lifetime: Duration) {
        self.0.retain(|_, (end, _)| now < *end);
        if self.0.len() >= MAX_ENTRIES {
            let first = self.0.iter().min_by_key(|(_, (end, _))| *end).map(|(key, _)| key.clone());
            first.map(|key| self.0.remove(&key));
        }
        self.0.insert(key.expose().to_owned(), (now.after(lifetime), value));
    }

    fn get(&mut self, key: &str, now: Timestamp) -> Option<&mut T> {
        self.0.get_mut(key).filter(|(end, _)| now < *end).map(|(_, value)| value)
    }
}

#[derive(Default)]
struct Memory {
    families: u64,
    logins: Expiring<AuthorizationRequest>,
    codes: Expiring<Code>,
    access: Expiring<Grant>,
    refresh: Expiring<RefreshToken>,
}

impl<T> Default for Expiring<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl Memory {
    fn new_family(&mut self) -> u64 {
        self.families = self.families.wrapping_add(1);
        self.families
    }

    fn revoke(&mut self, family: u64) {
        self.access.0.retain(|_, (_, grant)| grant.family != family);
        self.refresh.0.retain(|_, (_, token)| token.grant.family != family);
    }
}

/// The sandbox authorization server.
pub struct Sandbox {
    issuer: String,
    clients: Vec<Client>,
    keys: SigningKey,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    memory: Mutex<Memory>,
}

impl Sandbox {
    /// A sandbox that knows `clients` and nobody's consent.
    pub fn new(
        issuer: String,
        clients: Vec<Client>,
        keys: SigningKey,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { issuer, clients, keys, clock, entropy, memory: Mutex::default() }
    }

    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The signing key.
    pub fn keys(&self) -> &SigningKey {
        &self.keys
    }

    /// The clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A registered client.
    pub fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    /// Remembers a request while its person decides, under a name that cannot be guessed.
    pub fn remember_login(&self, request: AuthorizationRequest) -> Secret {
        let name = random_token(self.entropy.as_ref());
        self.memory.lock().logins.insert(&name, request, self.now(), LOGIN_LIFETIME);
        name
    }

    /// The request that a person decided on; once only.
    pub fn take_login(&self, name: &str) -> Option<AuthorizationRequest> {
        let now = self.now();
        let (end, request) = self.memory.lock().logins.0.remove(name)?;
        (now < end).then_some(request)
    }

    /// A code for a request that `user` allowed.
    pub fn issue_code(&self, request: AuthorizationRequest, user: &str) -> Secret {
        let code = random_token(self.entropy.as_ref());
        let mut memory = self.memory.lock();
        let grant = Grant {
            family: memory.new_family(),
            client_id: request.client_id.clone(),
            user: user.to_owned(),
            scope: request.scope.clone(),
        };
        memory.codes.insert(&code, Code { request, grant, used: false }, self.now(), CODE_LIFETIME);
        code
    }

    /// Redeems a code; a second time revokes all that came of it (RFC 6749 section 4.1.2).
    pub fn redeem_code(
        &self,
        client_id: &str,
        code: &str,
        redirect_uri: &str,
        code_verifier: &str,
    ) -> Option<Issued> {
        let now = self.now();
        let mut memory = self.memory.lock();
        let found = memory.codes.get(code, now).filter(|found| found.grant.client_id == client_id)?;
        if found.used {
            let family = found.grant.family;
            memory.revoke(family);
            return None;
        }
        let challenge = CodeVerifier::from_secret(Secret::new(code_verifier)).challenge();
        if found.request.redirect_uri != redirect_uri || found.request.code_challenge != challenge {
            return None;
        }
        found.used = true;
        let (grant, nonce) = (found.grant.clone(), found.request.nonce.clone());
        Some(self.issue(&mut memory, grant, true, nonce))
    }

    /// A token for the client itself.
    pub fn issue_to_client(&self, client_id: &str, scope: ScopeSet) -> Issued {
        let mut memory = self.memory.lock();
        let family = memory.new_family();
        let grant = Grant { family, client_id: client_id.to_owned(), user: client_id.to_owned(), scope };
        self.issue(&mut memory, grant, false, None)
    }

    /// Rotates a refresh token; an old one revokes its whole family (RFC 9700 section 4.14.2).
    pub fn refresh(&self, client_id: &str, token: &str) -> Option<Issued> {
        let now = self.now();
        let mut memory = self.memory.lock();
        let found = memory.refresh.get(token, now).filter(|found| found.grant.client_id == client_id)?;
        let grant = found.grant.clone();
        if found.used {
            memory.revoke(grant.family);
            return None;
        }
        found.used = true;
        Some(self.issue(&mut memory, grant, true, None))
    }

    fn issue(&self, memory: &mut Memory, grant: Grant, refreshable: bool, nonce: Option<String>) -> Issued {
        let now = self.now();
        let access_token = random_token(self.entropy.as_ref());
        memory.access.insert(&access_token, grant.clone(), now, ACCESS_TOKEN_LIFETIME);
        let refresh_token = refreshable.then(|| {
            let token = random_token(self.entropy.as_ref());
            let held = RefreshToken { grant: grant.clone(), used: false };
            memory.refresh.insert(&token, held, now, REFRESH_TOKEN_LIFETIME);
            token
        });
        Issued { access_token, refresh_token, grant, nonce }
    }

    /// Revokes a token of this client and all that came of the same consent (RFC 7009).
    pub fn revoke(&self, client_id: &str, token: &str) {
        let now = self.now();
        let mut memory = self.memory.lock();
        let grant = memory
            .refresh
            .get(token, now)
            .map(|found| found.grant.clone())
            .or_else(|| memory.access.get(token, now).cloned());
        if let Some(grant) = grant.filter(|grant| grant.client_id == client_id) {
            memory.revoke(grant.family);
        }
    }

    /// What a live access token stands for: the calendar API asks this.
    pub fn introspect(&self, access_token: &str) -> Option<Grant> {
        let now = self.now();
        self.memory.lock().access.get(access_token, now).cloned()
    }
}
