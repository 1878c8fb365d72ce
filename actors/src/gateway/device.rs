//! Authorizations on other devices, as listeners start and read them.

use std::sync::Arc;

use super::{ASK_DEADLINE, GatewayHandle};
use crate::flow::error::FlowError;
use crate::flow::messages::{BeginDeviceAuthorization, DeviceView, FindDevice, Opened, TakeConnectLink};
use crate::protocol::identifiers::{ConnectionId, ProfileId};
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::state::random_token;
use crate::protocol::template::CallContext;

impl GatewayHandle {
    /// Whether people consent to this profile on another device (RFC 8628).
    pub fn uses_device(&self, profile: &ProfileId) -> bool {
        self.profile(profile).is_some_and(|profile| profile.grant.uses_device())
    }

    /// Starts an authorization on another device that asks for `scopes` beyond the profile's; gives the
    /// token of its page, `{public_url}/connect/{token}`, and what the person has to enter. `return_to`
    /// must have been checked.
    ///
    /// # Errors
    /// [`FlowError`], if the provider gives no codes or the store fails.
    pub async fn begin_device_authorization(
        &self,
        connection: ConnectionId,
        return_to: Option<String>,
        scopes: ScopeSet,
    ) -> Result<(Secret, DeviceView), FlowError> {
        let page = random_token(self.0.entropy.as_ref());
        let view = self.begin_device(page.clone(), connection, return_to, scopes).await?;
        Ok((page, view))
    }

    async fn begin_device(
        &self,
        page: Secret,
        connection: ConnectionId,
        return_to: Option<String>,
        scopes: ScopeSet,
    ) -> Result<DeviceView, FlowError> {
        let call = Arc::new(CallContext { scopes, ..CallContext::default() });
        let message = BeginDeviceAuthorization { page, connection, return_to, call };
        self.0.registrar.ask(message, ASK_DEADLINE).await?
    }

    /// Uses a connect link up and starts its flow. Where people consent on another device, the link
    /// goes on as the address of the flow's page.
    ///
    /// # Errors
    /// [`FlowError::Invalid`] for a link that is unknown, used or expired.
    pub async fn open_connect_link(
        &self,
        token: Secret,
        browser: Option<Secret>,
    ) -> Result<Opened, FlowError> {
        let page = FindDevice { page: token.clone() };
        if let Some(view) = self.0.registrar.ask_idempotent(page, ASK_DEADLINE).await?? {
            return Ok(Opened::Device(Box::new(view)));
        }
        let link = TakeConnectLink { token: token.clone() };
        let session = self.0.registrar.ask(link, ASK_DEADLINE).await??;
        if self.uses_device(&session.connection.profile) {
            let view = self.begin_device(token, session.connection, session.return_to, session.scopes);
            return Ok(Opened::Device(Box::new(view.await?)));
        }
        let call = Arc::new(CallContext { scopes: session.scopes, ..CallContext::default() });
        let begun = self.begin_authorization(session.connection, session.return_to, browser, call);
        Ok(Opened::Redirect(begun.await?))
    }
}
