//! The gateway's configuration for the demo: `config/demo.toml`, with this run's secrets and addresses
//! laid over it as an environment.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use claviger_actors::clock::SystemEntropy;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::state::random_token;
use claviger_actors::store::keyring::SealingKey;
use tempfile::TempDir;

use super::ports::Addresses;
use super::sandbox::state::Client;
use super::{DemoError, PASSWORD};
use crate::caller_auth::hash_secret;

const PERSON_CLIENT: &str = "claviger-demo";
const ROBOT_CLIENT: &str = "claviger-robot";

/// What differs from run to run.
pub(super) struct Settings {
    at: Addresses,
    client_secret: Secret,
    robot_secret: Secret,
    store_key: Secret,
    password_hash: String,
}

impl Settings {
    /// Makes the secrets.
    pub(super) fn generate(at: Addresses) -> Result<Self, DemoError> {
        let password_hash =
            hash_secret(&Secret::new(PASSWORD)).map_err(|_| DemoError::Key("password hash"))?;
        Ok(Self {
            at,
            client_secret: random_token(&SystemEntropy),
            robot_secret: random_token(&SystemEntropy),
            store_key: SealingKey::generate(&SystemEntropy),
            password_hash,
        })
    }

    pub(super) fn issuer(&self) -> String {
        format!("http://{}", self.at.sandbox)
    }

    /// The gateway's two clients, as the sandbox knows them.
    pub(super) fn clients(&self) -> Vec<Client> {
        let redirect_uri = Some(format!("http://{}/callback", self.at.public));
        vec![
            Client { id: PERSON_CLIENT.into(), secret: self.client_secret.clone(), redirect_uri },
            Client { id: ROBOT_CLIENT.into(), secret: self.robot_secret.clone(), redirect_uri: None },
        ]
    }

    /// Writes the configuration into a new folder that only this user can enter.
    pub(super) fn write() -> io::Result<(TempDir, PathBuf)> {
        let folder = tempfile::Builder::new()
            .prefix("claviger-demo-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        let path = folder.path().join("demo.toml");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(include_bytes!("../../config/demo.toml"))?;
        Ok((folder, path))
    }

    /// What the file leaves open, and what differs from its usual addresses.
    pub(super) fn environment(&self, folder: &Path) -> BTreeMap<String, String> {
        let Addresses { proxy, public, admin, calendar, .. } = &self.at;
        let api = format!("http://{calendar}/calendar/v3");
        let secret = |secret: &Secret| secret.expose().to_owned();
        [
            ("DEMO_KEY", secret(&self.store_key)),
            ("DEMO_CLIENT_SECRET", secret(&self.client_secret)),
            ("DEMO_ROBOT_SECRET", secret(&self.robot_secret)),
            ("DEMO_PASSWORD_HASH", self.password_hash.clone()),
            ("CLAVIGER_SERVER__PUBLIC_URL", format!("http://{public}")),
            ("CLAVIGER_LISTENERS__PROXY__BIND", proxy.to_string()),
            ("CLAVIGER_LISTENERS__PUBLIC__BIND", public.to_string()),
            ("CLAVIGER_LISTENERS__ADMIN__BIND", admin.to_string()),
            ("CLAVIGER_STORE__PATH", folder.join("store").to_string_lossy().into_owned()),
            ("CLAVIGER_PROVIDERS__SANDBOX__ISSUER", self.issuer()),
            ("CLAVIGER_ROUTES__CALENDAR__UPSTREAM", api.clone()),
            ("CLAVIGER_ROUTES__ROBOT__UPSTREAM", api),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
