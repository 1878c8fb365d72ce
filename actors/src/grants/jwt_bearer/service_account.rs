//! Google's service account keys, read as they are downloaded: a JSON file with a key and what the
//! assertion must say.

use serde_json::Value;

use super::error;
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::{SignatureAlgorithm, SigningKey};
use crate::protocol::strict_json;
use crate::registration::settings::SettingsError;

/// What of such a file an assertion needs.
#[derive(Debug)]
pub(super) struct ServiceAccount {
    pub(super) client_email: String,
    pub(super) token_uri: String,
    pub(super) key: SigningKey,
}

impl ServiceAccount {
    pub(super) fn read(file: &Secret) -> Result<Self, SettingsError> {
        let refused = |problem: String| error("service_account", problem);
        let members = strict_json::object(file.expose().as_bytes())
            .map_err(|fault| refused(format!("{fault}; give it the JSON file of the key, as downloaded")))?;
        let text = |name: &str| {
            members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(|| {
                refused(format!("has no `{name}`; give it the JSON file of the key, as downloaded"))
            })
        };
        let key = SigningKey::load(text("private_key")?.as_bytes(), None, Some(SignatureAlgorithm::Rs256))
            .map_err(|fault| refused(format!("`private_key` in it {fault}")))?;
        Ok(Self {
            client_email: text("client_email")?.to_owned(),
            token_uri: text("token_uri")?.to_owned(),
            key: key.with_kid(text("private_key_id")?),
        })
    }
}
