//! `client_secret_basic`: HTTP Basic with the client's password (RFC 6749 section 2.3.1).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use super::{ClientAuthContext, ClientAuthError, ClientAuthentication, ClientSecrets};
use crate::protocol::secret::wiped_bytes;
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

pub(super) const NAME: &str = "client_secret_basic";

/// Everything but the unreserved characters of RFC 3986. A space becomes `%20`, not `+`: form
/// decoders read both, plain percent decoders only the former.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug)]
struct ClientSecretBasic {
    secrets: ClientSecrets,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    Ok(Arc::new(ClientSecretBasic { secrets: ClientSecrets::take(settings, NAME)? }))
}

impl ClientAuthentication for ClientSecretBasic {
    fn credentials(&self) -> usize {
        self.secrets.len()
    }

    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        let secret = self.secrets.of(context).expose();
        let room = context.client_id.len() + secret.len();
        let mut pair = Zeroizing::new(String::with_capacity(room.saturating_mul(3) + 1));
        if context.quirks.raw_basic_credentials {
            if context.client_id.contains(':') {
                let problem = "a client_id with a colon cannot be sent without encoding".into();
                return Err(ClientAuthError { method: NAME, problem });
            }
            pair.push_str(context.client_id);
            pair.push(':');
            pair.push_str(secret);
        } else {
            // Encoded before they are joined, so that a colon in the identifier cannot move the border.
            pair.extend(utf8_percent_encode(context.client_id, ENCODED));
            pair.push(':');
            pair.extend(utf8_percent_encode(secret, ENCODED));
        }
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let header = wiped_bytes([b"Basic ", encoded.as_bytes()].concat());
        let mut value = HeaderValue::from_maybe_shared(header).map_err(|_| ClientAuthError {
            method: NAME,
            problem: "client_id and client_secret make no header value".into(),
        })?;
        value.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}
