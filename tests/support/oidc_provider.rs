//! panva's `oidc-provider`, started by one test and dying with it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::http;
use super::npm;
use super::ports::free_port;

/// The secret of every confidential client here.
pub const CLIENT_SECRET: &str = "planted-client-secret-of-the-gateway:%+ 1";

/// A running authorization server that we did not write.
pub struct OidcProvider {
    /// Its issuer, which is also its base URL.
    pub issuer: String,
    /// Where the side-channel is.
    side: String,
    // Killed on drop; it also exits when the pipe to its standard input closes.
    _child: Child,
}

/// How it is started.
pub struct OidcProviderBuilder {
    config: Value,
}

impl OidcProvider {
    /// Clients `confidential` (`client_secret_basic`), `posting` (`client_secret_post`), `public`
    /// (`none`) and `machine` (`client_credentials`), sent back to `redirect_uri`.
    pub fn builder(redirect_uri: &str) -> OidcProviderBuilder {
        let person = |id: &str, method: &str| {
            let mut client = json!({
                "client_id": id,
                "redirect_uris": [redirect_uri],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": method,
            });
            if method != "none" {
                client["client_secret"] = CLIENT_SECRET.into();
            }
            client
        };
        let machine = json!({
            "client_id": "machine",
            "client_secret": CLIENT_SECRET,
            "redirect_uris": [],
            "response_types": [],
            "grant_types": ["client_credentials"],
            "token_endpoint_auth_method": "client_secret_basic",
        });
        OidcProviderBuilder {
            config: json!({
                "port": free_port(),
                "clients": [
                    person("confidential", "client_secret_basic"),
                    person("posting", "client_secret_post"),
                    person("public", "none"),
                    machine,
                ],
            }),
        }
    }

    /// How many token requests of this kind arrived: a grant type, `total`, `injected`, `revocation`,
    /// `introspection` or `registration`.
    pub async fn count(&self, kind: &str) -> u64 {
        self.side_channel("counts").await[kind].as_u64().unwrap_or(0)
    }

    /// Whether the access token lives, and whose it is: `{ live, account, client, scope }`.
    pub async fn describe_token(&self, token: &str) -> Value {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("value", token).finish();
        self.side_channel(&format!("token?{query}")).await
    }

    /// How many grants live.
    pub async fn grants(&self) -> usize {
        self.side_channel("grants").await.as_array().map_or(0, Vec::len)
    }

    /// The parameters of every authorization request so far, as it understood them.
    pub async fn asked(&self) -> Vec<Value> {
        self.side_channel("asked").await.as_array().cloned().unwrap_or_default()
    }

    /// The clients that registered themselves and live, with all their metadata.
    pub async fn registered_clients(&self) -> Vec<Value> {
        self.side_channel("clients").await.as_array().cloned().unwrap_or_default()
    }

    /// Forgets the clients that registered themselves.
    pub async fn forget_registered_clients(&self) {
        http::request("POST", &format!("{}/test/forget-clients", self.side)).send().await.expect_status(200);
    }

    /// Revokes all grants, as people do in their account settings.
    pub async fn revoke_all_grants(&self) {
        http::request("POST", &format!("{}/test/revoke", self.side)).send().await.expect_status(200);
    }

    /// Sets the lifetime of the access tokens issued from now on.
    pub async fn access_token_seconds(&self, seconds: u64) {
        let lifetime = json!({ "seconds": seconds });
        http::request("POST", &format!("{}/test/lifetime", self.side))
            .json(&lifetime)
            .send()
            .await
            .expect_status(200);
    }

    /// Makes the token endpoint fail: `{ times, status?, body?, headers?, delayMs?, hang?, reset? }`.
    pub async fn fail(&self, how: Value) {
        http::request("POST", &format!("{}/test/fail", self.side)).json(&how).send().await.expect_status(200);
    }

    async fn side_channel(&self, what: &str) -> Value {
        http::get(&format!("{}/test/{what}", self.side)).send().await.expect_status(200).json()
    }
}

impl OidcProviderBuilder {
    /// Lifetime of access tokens.
    #[must_use]
    pub fn access_token_seconds(self, seconds: u64) -> Self {
        self.with("accessTokenSeconds", json!(seconds))
    }

    /// Leaves `iss` out of authorization responses, while the metadata still announces it.
    #[must_use]
    pub fn omit_iss(self) -> Self {
        self.with("omitIss", json!(true))
    }

    /// The scopes it knows.
    #[must_use]
    pub fn scopes(self, scopes: Value) -> Self {
        self.with("scopes", scopes)
    }

    /// The APIs that it issues tokens for (RFC 8707).
    #[must_use]
    pub fn resources(self, resources: Value) -> Self {
        self.with("resources", resources)
    }

    /// The types of authorization details that it knows (RFC 9396).
    #[must_use]
    pub fn detail_types(self, types: Value) -> Self {
        self.with("detailTypes", types)
    }

    /// Leaves `expires_in` out of token answers.
    #[must_use]
    pub fn omit_expires_in(self) -> Self {
        self.with("omitExpiresIn", json!(true))
    }

    /// Gives DPoP nonces, and demands them (RFC 9449 section 8).
    #[must_use]
    pub fn dpop_nonces(self) -> Self {
        self.with("dpopNonces", json!("required"))
    }

    /// Speaks TLS with this certificate and key, and asks for client certificates of this authority at
    /// its aliases (RFC 8705 section 5): paths of PEM files.
    #[must_use]
    pub fn tls(self, cert: &Path, key: &Path, ca: &Path) -> Self {
        let ports = [free_port(), free_port()];
        let tls = json!({ "cert": cert, "key": key, "ca": ca, "mtlsPort": ports[0], "sidePort": ports[1] });
        self.with("tls", tls)
    }

    /// Turns features of the server on or off, as its own configuration names them.
    #[must_use]
    pub fn features(self, features: Value) -> Self {
        self.with("features", features)
    }

    /// Further members of the server's own configuration.
    #[must_use]
    pub fn options(self, options: Value) -> Self {
        self.with("options", options)
    }

    /// One more client, with the members of RFC 7591 section 2.
    #[must_use]
    pub fn client(mut self, client: Value) -> Self {
        if let Some(clients) = self.config["clients"].as_array_mut() {
            clients.push(client);
        }
        self
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Starts it and waits until it listens.
    pub async fn start(self) -> OidcProvider {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/oidc-provider");
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        npm::install(&folder, "oidc-provider", &INSTALLED).await;
        let mut child = Command::new("node")
            .arg("server.mjs")
            .arg(self.config.to_string())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.expect("readable") {
                if line.starts_with("listening ") {
                    return;
                }
            }
            panic!("oidc-provider ended before it listened; config: {}", self.config);
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("oidc-provider starts in a minute");
        // What it says afterwards must not fill the pipe and block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let at = |port: &Value| format!("http://127.0.0.1:{port}");
        let (issuer, side) = match &self.config["tls"] {
            Value::Null => (at(&self.config["port"]), at(&self.config["port"])),
            tls => (at(&self.config["port"]).replace("http:", "https:"), at(&tls["sidePort"])),
        };
        OidcProvider { issuer, side, _child: child }
    }
}
