//! A registration and the strategies built from its settings.

use std::sync::Arc;

use crate::client_auth::ClientAuthentication;
use crate::connection::OriginSet;
use crate::grants::Grant;
use crate::protocol::template::{CallNeeds, Placeholder};
use crate::registration::ClientRegistration;

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
    /// What has to be gathered of a call for a token request, beyond its subject.
    pub fn call_needs(&self) -> CallNeeds {
        let params = self.registration.further_params(true);
        let of_params = params.flat_map(|(_, template)| template.placeholders()).cloned();
        let all = of_params.chain(self.grant.placeholders());
        CallNeeds {
            values: all.filter(|placeholder| *placeholder != Placeholder::Subject).collect(),
            caller_token: self.grant.needs_caller_token(),
            assertion: self.grant.needs_assertion(),
        }
    }
}
