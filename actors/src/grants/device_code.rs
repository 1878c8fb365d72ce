//! The device authorization grant (RFC 8628): a person consents on another device.

use std::sync::Arc;

use super::{Grant, GrantContext, GrantError};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

pub(super) const NAME: &str = "device_code";

/// A person enters a code at the provider; the token endpoint is asked until they have decided.
#[derive(Debug)]
pub struct DeviceCode;

pub(super) fn build(_: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    Ok(Arc::new(DeviceCode))
}

impl Grant for DeviceCode {
    fn needs_person(&self) -> bool {
        true
    }

    fn uses_device(&self) -> bool {
        true
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let redemption = context.redemption.ok_or(GrantError::ConsentNeeded)?;
        let mut request = TokenRequest::new("urn:ietf:params:oauth:grant-type:device_code");
        request.param("device_code", &redemption.code);
        // Section 3.4: it must be named unless the client authenticates, and does no harm then.
        request.param("client_id", context.registration.client_id.as_str());
        Ok(request)
    }
}
