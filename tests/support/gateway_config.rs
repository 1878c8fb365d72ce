//! The configuration of a gateway under test: sections of TOML, and the facts that every test needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::gateway::Gateway;
use super::oidc_provider::CLIENT_SECRET;
use super::ports::free_address;
use super::upstream::Upstream;

/// The password of every caller.
pub const PASSWORD: &str = "planted-password-of-the-caller";

/// A configuration being put together.
#[derive(Clone)]
pub struct GatewayConfig {
    /// Where internal applications call.
    pub proxy: SocketAddr,
    /// Where browsers go.
    pub public: SocketAddr,
    /// Where operators ask.
    pub admin: SocketAddr,
    /// Environment of the process.
    pub env: BTreeMap<String, String>,
    /// What no log may show.
    pub secrets: Vec<String>,
    sections: BTreeMap<String, String>,
    folder: Arc<TempDir>,
}

impl GatewayConfig {
    /// Free ports, a store in a folder of its own that goes with the test, one encryption key.
    pub fn new() -> Self {
        let folder = Arc::new(TempDir::new().expect("a temporary folder"));
        let (proxy, public, admin) = (free_address(), free_address(), free_address());
        let mut config = Self {
            proxy,
            public,
            admin,
            env: BTreeMap::new(),
            secrets: vec![PASSWORD.to_owned(), CLIENT_SECRET.to_owned()],
            sections: BTreeMap::new(),
            folder,
        };
        let store = config.folder().join("tokens");
        config.section("server", &format!("public_url = \"http://{public}\"\nworkers = 2"));
        config.section("listeners.proxy", &format!("bind = \"{proxy}\""));
        config.section("listeners.public", &format!("bind = \"{public}\""));
        config.section("listeners.admin", &format!("bind = \"{admin}\""));
        config.section("store", &format!("backend = \"sled\"\npath = {:?}", store.display().to_string()));
        config.section("store.encryption", "active = \"k1\"");
        config.section("store.encryption.keys", "k1 = { env = \"TEST_KEY_K1\" }");
        config.key("TEST_KEY_K1", 1);
        config
    }

    /// The redirection endpoint.
    pub fn callback(&self) -> String {
        format!("http://{}/callback", self.public)
    }

    /// Sets a section, replacing an earlier one of this name.
    pub fn section(&mut self, name: &str, body: &str) -> &mut Self {
        self.sections.insert(name.to_owned(), body.to_owned());
        self
    }

    /// Adds lines to a section.
    pub fn extend(&mut self, name: &str, lines: &str) -> &mut Self {
        let body = self.sections.entry(name.to_owned()).or_default();
        body.push('\n');
        body.push_str(lines);
        self
    }

    /// Takes a section out.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.sections.remove(name);
        self
    }

    /// Adds a profile whose client has [`CLIENT_SECRET`].
    pub fn profile(
        &mut self,
        name: &str,
        provider: &str,
        client: &str,
        grant: &str,
        scopes: &str,
    ) -> &mut Self {
        self.env.insert("TEST_CLIENT_SECRET".into(), CLIENT_SECRET.into());
        let body = format!(
            "provider = \"{provider}\"\nclient_id = \"{client}\"\ngrant = \"{grant}\"\nscopes = {scopes}\n\
             client_secret = {{ env = \"TEST_CLIENT_SECRET\" }}\nclient_auth = \"client_secret_basic\""
        );
        self.section(&format!("profiles.{name}"), &body)
    }

    /// Adds a caller with [`PASSWORD`] who may call these routes.
    pub fn caller(&mut self, name: &str, routes: &str) -> &mut Self {
        let hash = password_hash(PASSWORD);
        let body =
            format!("basic = {{ username = \"{name}\", password_hash = \"{hash}\" }}\nroutes = {routes}");
        self.section(&format!("callers.{name}"), &body)
    }

    /// Adds the caller `billing` and the route `/NAME`, to `upstream` with the caller's token of
    /// profile NAME.
    pub fn call_through(&mut self, name: &str, upstream: &Upstream) -> &mut Self {
        let route = format!(
            "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"{name}\"\nsubject = \"caller\"",
            upstream.url()
        );
        self.section(&format!("routes.{name}"), &route);
        self.caller("billing", &format!("[\"{name}\"]"))
    }

    /// Puts an encryption key into the environment.
    pub fn key(&mut self, variable: &str, seed: u8) -> &mut Self {
        let key = STANDARD.encode([seed; 32]);
        self.secrets.push(key.clone());
        self.env.insert(variable.to_owned(), key);
        self
    }

    /// Requires a token on the admin listener.
    pub fn admin_token(&mut self, token: &str) -> &mut Self {
        self.env.insert("TEST_ADMIN_TOKEN".into(), token.into());
        self.secrets.push(token.to_owned());
        self.extend("listeners.admin", "token = { env = \"TEST_ADMIN_TOKEN\" }")
    }

    /// The folder of this gateway's files. It goes when the last user of it does.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration as TOML.
    pub fn toml(&self) -> String {
        let mut text = String::new();
        for (name, body) in &self.sections {
            let _ = writeln!(text, "[{name}]\n{body}\n");
        }
        text
    }

    /// Starts the gateway and waits until it is ready.
    pub async fn start(&self) -> Gateway {
        Gateway::start(self.clone()).await
    }
}

/// A hash that is cheap to verify: these are no real passwords.
fn password_hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).expect("argon2's least");
    let salt = SaltString::from_b64("c2FsdHNhbHRzYWx0").expect("base64");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password.as_bytes(), &salt)
        .expect("hashes")
        .to_string()
}
