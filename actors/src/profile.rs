//! A registration and the strategies built from its settings.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client_auth::{self, ClientAuthRow, ClientAuthentication};
use crate::connection::OriginSet;
use crate::grants::Grant;
use crate::protocol::secret::Secret;
use crate::protocol::template::{CallNeeds, Placeholder};
use crate::protocol::token_error::TokenAnswerError;
use crate::registration::ClientRegistration;
use crate::registration::dynamic::DynamicRegistration;
use crate::registration::settings::{Setting, Settings, SettingsError};
use crate::registration::signing_keys::SigningKeys;

/// Everything a `ProviderActor` needs to know of its profile.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What we are to the authorization server.
    pub registration: ClientRegistration,
    /// How a token is first obtained.
    pub grant: Arc<dyn Grant>,
    /// The grant's name, as configured.
    pub grant_name: &'static str,
    /// Which client we are, and how we prove it. Ask `ProviderContext::client` for it: it may have to
    /// be registered first.
    pub client: ClientSource,
    /// The client authentication method's name, as configured.
    pub client_auth_name: &'static str,
    /// The origins of all routes that use this profile: what a new token set is bound to.
    pub origins: OriginSet,
    /// Stands for all that the profile was made of; `None` is like no other.
    pub made_of: Option<ProfileDigest>,
}

/// A keyed digest of everything that a profile was made of, its secrets and files among them. It says
/// nothing about them without the key, and is equal only for what was made of the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProfileDigest(pub [u8; 32]);

impl fmt::Debug for ProfileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProfileDigest(***)")
    }
}

impl Profile {
    /// Whether `other` was made of the same, so that either may stand for both.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.made_of.is_some() && self.made_of == other.made_of && self.origins == other.origins
    }

    /// What has to be gathered of a call for a token request, beyond its subject.
    pub fn call_needs(&self) -> CallNeeds {
        let params = [true, false].into_iter().flat_map(|refresh| self.registration.further_params(refresh));
        let of_params = params.flat_map(|(_, template)| template.placeholders()).cloned();
        // A person's request has them, which asks nothing of a call.
        let details = (!self.grant.needs_person()).then(|| self.registration.authorization.placeholders());
        let all = of_params.chain(self.grant.placeholders()).chain(details.into_iter().flatten());
        CallNeeds {
            values: all.filter(|placeholder| *placeholder != Placeholder::Subject).collect(),
            callers_word_names_subject: self
                .grant
                .subject_placeholders()
                .iter()
                .any(Placeholder::is_callers_word),
            caller_token: self.grant.needs_caller_token(),
            assertion: self.grant.needs_assertion(),
        }
    }

    /// The keys that this profile signs with, of its client authentication, its grant and its request
    /// objects.
    pub fn signing_keys(&self) -> impl Iterator<Item = &SigningKeys> {
        let of_client = self.client.auth().and_then(|auth| auth.signing_keys());
        let of_requests = self.registration.authorization.request_object.as_ref();
        of_client.into_iter().chain(self.grant.signing_keys()).chain(of_requests)
    }
}

/// A client of an authorization server (RFC 6749 section 2).
#[derive(Debug)]
pub struct Client {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// How we prove ourselves.
    pub auth: Arc<dyn ClientAuthentication>,
    refused: AtomicBool,
}

impl Client {
    /// The client `client_id`, which proves itself by `auth`.
    pub fn new(client_id: impl Into<String>, auth: Arc<dyn ClientAuthentication>) -> Self {
        Self { client_id: client_id.into(), auth, refused: AtomicBool::new(false) }
    }

    /// Whether the token endpoint did not know the client, or its proof, when it was last asked.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes whether the token endpoint, or one that is as trustworthy, knows the client.
    pub fn note<T>(&self, answer: &Result<T, TokenAnswerError>) {
        let refused = answer.as_ref().is_err_and(TokenAnswerError::is_unknown_client);
        self.refused.store(refused, Ordering::Relaxed);
    }
}

/// Where a profile's client comes from.
#[derive(Clone, Debug)]
pub enum ClientSource {
    /// The configuration names it.
    Given(Arc<Client>),
    /// It registers itself on first use (RFC 7591).
    Registered(Arc<DynamicClient>),
}

impl ClientSource {
    /// The client `client_id`, which proves itself by `auth`.
    pub fn given(client_id: impl Into<String>, auth: Arc<dyn ClientAuthentication>) -> Self {
        Self::Given(Arc::new(Client::new(client_id, auth)))
    }

    /// The method by which the client proves itself, unless it waits for the registration's secret.
    pub fn auth(&self) -> Option<&Arc<dyn ClientAuthentication>> {
        match self {
            Self::Given(client) => Some(&client.auth),
            Self::Registered(dynamic) => match &dynamic.auth {
                RegisteredAuth::Own { auth, .. } => Some(auth),
                RegisteredAuth::Secret { .. } => None,
            },
        }
    }
}

/// A client that registers itself.
#[derive(Debug)]
pub struct DynamicClient {
    /// What is registered.
    pub registration: DynamicRegistration,
    /// How it proves itself.
    pub auth: RegisteredAuth,
}

/// How a registered client proves itself.
pub enum RegisteredAuth {
    /// With what the configuration has for it, such as a key, or not at all.
    Own {
        /// The configured method's name.
        name: &'static str,
        /// The method.
        auth: Arc<dyn ClientAuthentication>,
    },
    /// With the secret that the registration brings.
    Secret {
        /// The configured method.
        row: &'static ClientAuthRow,
        /// The method's other settings.
        settings: Settings,
    },
}

impl fmt::Debug for RegisteredAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { auth, .. } => f.debug_tuple("Own").field(auth).finish(),
            Self::Secret { row, .. } => f.debug_tuple("Secret").field(&row.name).finish(),
        }
    }
}

impl RegisteredAuth {
    /// The setting that a registration brings.
    pub const SECRET: &str = "client_secret";

    /// What stands in for it while a method is tried out: long enough for any.
    const STAND_IN: &str = "what the registration brings, as long as any method may want a secret to be";

    /// Builds the method `row` from a profile's `settings`, as far as that is possible without a
    /// registration. Says what is wrong with them.
    pub fn build(row: &'static ClientAuthRow, settings: &mut Settings) -> Result<Self, SettingsError> {
        let before = settings.clone();
        settings.insert(Self::SECRET, Setting::Secret(Secret::from(Self::STAND_IN)));
        let auth = (row.build)(settings);
        // Left over: the method knows no such setting.
        let own = settings.take_secret(Self::SECRET)?.is_some();
        let auth = auth?;
        Ok(if own { Self::Own { name: row.name, auth } } else { Self::Secret { row, settings: before } })
    }

    /// The method with the registration's `secret`. `decided` is the method that the server has
    /// decided on, if it says so (RFC 7591 section 3.2.1).
    pub fn with(
        &self,
        secret: Option<&Secret>,
        decided: Option<&str>,
    ) -> Result<Arc<dyn ClientAuthentication>, String> {
        match self {
            Self::Own { name, .. } if decided.is_some_and(|decided| decided != *name) => {
                let decided = decided.unwrap_or_default();
                Err(format!("the provider has registered it for client_auth = \"{decided}\"; configure that"))
            }
            Self::Own { auth, .. } => Ok(auth.clone()),
            Self::Secret { row, settings } => {
                let name = decided.unwrap_or(row.name);
                let row = client_auth::find(name).ok_or_else(|| {
                    format!("the provider has registered it for client_auth = \"{name}\", not known here")
                })?;
                let mut settings = settings.clone();
                if let Some(secret) = secret {
                    settings.insert(Self::SECRET, Setting::Secret(secret.clone()));
                }
                (row.build)(&mut settings).map_err(|error| {
                    format!("the registration does not fit client_auth = \"{name}\": {error}")
                })
            }
        }
    }
}
