//! A registration and the strategies built from its settings.

use std::sync::Arc;

use crate::client_auth::ClientAuthentication;
use crate::connection::OriginSet;
use crate::grants::Grant;
use crate::protocol::signing_key::SigningKey;
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
    /// The keys that this profile signs with, of its client authentication, its grant and its request
    /// objects.
    pub fn signing_keys(&self) -> impl Iterator<Item = SigningKey> {
        let request_object = self.registration.authorization.request_object.as_ref();
        let request_object = request_object.map(SigningKeys::published).unwrap_or_default();
        self.client_auth.signing_keys().into_iter().chain(self.grant.signing_keys()).chain(request_object)
    }
}
