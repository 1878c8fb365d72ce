//! A registration and the strategies built from its settings.

use std::sync::Arc;

use crate::client_auth::ClientAuthentication;
use crate::connection::OriginSet;
use crate::grants::Grant;
use crate::registration::ClientRegistration;
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
    /// How we prove ourselves.
    pub client_auth: Arc<dyn ClientAuthentication>,
    /// The client authentication method's name, as configured.
    pub client_auth_name: &'static str,
    /// The origins of all routes that use this profile: what a new token set is bound to.
    pub origins: OriginSet,
}

impl Profile {
    /// The keys that this profile signs with, of its client authentication and its grant.
    pub fn signing_keys(&self) -> impl Iterator<Item = &SigningKeys> {
        self.client_auth.signing_keys().into_iter().chain(self.grant.signing_keys())
    }
}
