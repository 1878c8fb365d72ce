//! The gateway's configuration for the demo, with secrets made for this run.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_actors::clock::{Entropy as _, SystemEntropy};
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::state::random_token;
use tempfile::TempDir;

use super::ports::Addresses;
use super::sandbox::state::Client;
use super::{CALLER, DemoError, PASSWORD};

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
        let mut salt = [0u8; 16];
        SystemEntropy.fill(&mut salt);
        let failed = |_| DemoError::Key("password hash");
        let salt = SaltString::encode_b64(&salt).map_err(failed)?;
        let hash = Argon2::default().hash_password(PASSWORD.as_bytes(), &salt).map_err(failed)?;
        let mut key = [0u8; 32];
        SystemEntropy.fill(&mut key);
        Ok(Self {
            at,
            client_secret: random_token(&SystemEntropy),
            robot_secret: random_token(&SystemEntropy),
            store_key: Secret::new(STANDARD.encode(key)),
            password_hash: hash.to_string(),
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
    pub(super) fn write(&self) -> io::Result<(TempDir, PathBuf)> {
        let folder = tempfile::Builder::new()
            .prefix("claviger-demo-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        let path = folder.path().join("demo.toml");
        let store = folder.path().join("store");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(self.toml(&store.to_string_lossy()).as_bytes())?;
        Ok((folder, path))
    }

    fn toml(&self, store: &str) -> String {
        let Addresses { proxy, public, admin, calendar, .. } = &self.at;
        let issuer = self.issuer();
        let (client_secret, robot_secret) = (self.client_secret.expose(), self.robot_secret.expose());
        let (store_key, password_hash) = (self.store_key.expose(), &self.password_hash);
        // A JSON string is a TOML basic string too: a folder's name may have any character.
        let store = serde_json::Value::from(store);
        format!(
            r#"[server]
public_url = "http://{public}"
workers = 1

[listeners.proxy]
bind = "{proxy}"
[listeners.public]
bind = "{public}"
[listeners.admin]
bind = "{admin}"

[store]
backend = "sled"
path = {store}
[store.encryption]
active = "demo"
[store.encryption.keys]
demo = "{store_key}"

[providers.sandbox]
issuer = "{issuer}"

[profiles.calendar]
provider = "sandbox"
client_id = "{PERSON_CLIENT}"
client_secret = "{client_secret}"
client_auth = "client_secret_basic"
grant = "authorization_code"
scopes = ["openid", "calendar.read", "calendar.write"]

[profiles.robot]
provider = "sandbox"
client_id = "{ROBOT_CLIENT}"
client_secret = "{robot_secret}"
client_auth = "client_secret_post"
grant = "client_credentials"
scopes = ["calendar.read"]

[callers.{CALLER}]
basic = {{ username = "{CALLER}", password_hash = "{password_hash}" }}
routes = ["calendar", "robot"]

[routes.calendar]
path = "/calendar"
upstream = "http://{calendar}/calendar/v3"
profile = "calendar"
subject = "caller"

[routes.robot]
path = "/robot/calendar"
upstream = "http://{calendar}/calendar/v3"
profile = "robot"
subject = "shared"
"#
        )
    }
}
