//! A client that registers itself (RFC 7591): what it asks for, and what is kept of the answer.

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use super::ClientRegistration;
use crate::clock::Timestamp;
use crate::protocol::client_registration::{ClientMetadata, Management, RegisteredClient};
use crate::protocol::identifiers::ProfileId;
use crate::protocol::secret::{self, Secret};

/// A secret is not used for so long before it ends, or for a tenth of its life, if that is less.
const LONGEST_MARGIN: Duration = Duration::from_secs(60);

/// How a profile registers its client.
#[derive(Clone, Debug)]
pub struct DynamicRegistration {
    /// Lets us register, where not everybody may (RFC 7591 section 3).
    pub initial_access_token: Option<Secret>,
    /// What is registered.
    pub metadata: ClientMetadata,
}

/// The grants of a profile's grant `name`, and whether it has an authorization response
/// (RFC 7591 section 2.1).
pub fn grant_types(name: &str) -> (&[&'static str], bool) {
    match name {
        "authorization_code" => (&["authorization_code", "refresh_token"], true),
        "client_credentials" => (&["client_credentials"], false),
        "password" => (&["password", "refresh_token"], false),
        "device_code" => (&["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"], false),
        "jwt_bearer" => (&["urn:ietf:params:oauth:grant-type:jwt-bearer"], false),
        "saml2_bearer" => (&["urn:ietf:params:oauth:grant-type:saml2-bearer"], false),
        "token_exchange" => (&["urn:ietf:params:oauth:grant-type:token-exchange"], false),
        _ => (&[], false),
    }
}

impl DynamicRegistration {
    /// What the profile `registration` with this grant and client authentication registers.
    /// `further` are members that do not follow from it; `jwks_uri` is where our keys are.
    pub fn new(
        registration: &ClientRegistration,
        grant: &str,
        client_auth: &str,
        jwks_uri: Option<&Url>,
        further: Map<String, Value>,
    ) -> Self {
        let (grants, redirects) = grant_types(grant);
        let redirect_uris: &[&str] = if redirects { &[registration.redirect_uri.as_str()] } else { &[] };
        let response_types: &[&str] = if redirects { &["code"] } else { &[] };
        let mut members = further;
        let mut member = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
        member("redirect_uris", json!(redirect_uris));
        member("response_types", json!(response_types));
        if !grants.is_empty() {
            member("grant_types", json!(grants));
        }
        member("token_endpoint_auth_method", client_auth.into());
        if !registration.scopes.is_empty() {
            member("scope", registration.scopes.to_string().into());
        }
        if let Some(uri) = jwks_uri.filter(|_| client_auth == "private_key_jwt") {
            member("jwks_uri", uri.as_str().into());
        }
        Self { initial_access_token: None, metadata: ClientMetadata { members, software_statement: None } }
    }

    /// Names what is registered, and where: another provider or other metadata is another client.
    pub fn key(&self, profile: &ProfileId, provider: &str) -> ClientKey {
        let mut hash = digest::Context::new(&digest::SHA256);
        let statement = self.metadata.software_statement.as_ref().map_or("", Secret::expose);
        // Members are in the order of their names.
        let members = Value::Object(self.metadata.members.clone()).to_string();
        for part in [provider, statement, &members] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut fingerprint = String::with_capacity(64);
        for byte in hash.finish().as_ref() {
            let _ = write!(fingerprint, "{byte:02x}");
        }
        ClientKey { profile: profile.clone(), fingerprint }
    }
}

/// Names a registered client's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// The profile.
    pub profile: ProfileId,
    /// SHA-256 of provider and metadata, in hexadecimal.
    pub fingerprint: String,
}

/// What is kept in the store of a registered client, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// Its secret, if it has one.
    pub client_secret: Option<SealedSecret>,
    /// When the secret ends; `None` for never.
    pub client_secret_expires_at: Option<Timestamp>,
    /// The authentication method that the server has decided on, if it said so.
    pub token_endpoint_auth_method: Option<String>,
    /// Where it is managed (RFC 7592), if it can be.
    pub registration_client_uri: Option<String>,
    /// With what it is managed.
    pub registration_access_token: Option<SealedSecret>,
    /// When it was registered, or its secret last changed.
    pub registered_at: Timestamp,
    /// When it took the place of a client that the provider no longer knew.
    pub replaced_at: Option<Timestamp>,
}

/// A secret within a record that is sealed before it leaves memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedSecret(#[serde(with = "secret::sealed")] pub Secret);

impl ClientRecord {
    /// The record of a client registered just now.
    pub fn new(client: RegisteredClient, registered_at: Timestamp, replaced_at: Option<Timestamp>) -> Self {
        let (uri, token) = client.management.map(|it| (it.uri.to_string(), SealedSecret(it.token))).unzip();
        Self {
            client_id: client.client_id,
            client_secret: client.client_secret.map(SealedSecret),
            client_secret_expires_at: client.client_secret_expires_at,
            token_endpoint_auth_method: client.token_endpoint_auth_method,
            registration_client_uri: uri,
            registration_access_token: token,
            registered_at,
            replaced_at,
        }
    }

    /// The record after the server said `client` of it (RFC 7592 section 2). What an answer leaves
    /// out stays.
    #[must_use]
    pub fn updated(&self, client: RegisteredClient, now: Timestamp) -> Self {
        let secret_changed = client.client_secret.is_some() && client.client_secret.as_ref() != self.secret()
            || client.client_secret_expires_at != self.client_secret_expires_at;
        let registered_at = if secret_changed { now } else { self.registered_at };
        let (said, kept) = (Self::new(client, registered_at, self.replaced_at), self.clone());
        Self {
            client_secret: said.client_secret.or(kept.client_secret),
            token_endpoint_auth_method: said.token_endpoint_auth_method.or(kept.token_endpoint_auth_method),
            registration_client_uri: said.registration_client_uri.or(kept.registration_client_uri),
            registration_access_token: said.registration_access_token.or(kept.registration_access_token),
            ..said
        }
    }

    /// Its secret, if it has one.
    pub fn secret(&self) -> Option<&Secret> {
        self.client_secret.as_ref().map(|secret| &secret.0)
    }

    /// Where and with what it is managed, if it can be.
    pub fn management(&self) -> Option<Management> {
        let token = self.registration_access_token.as_ref()?.0.clone();
        Some(Management { uri: self.registration_client_uri.as_ref()?.parse().ok()?, token })
    }

    /// Whether both are the same client with the same secret.
    pub fn is_same_client(&self, other: &Self) -> bool {
        self.client_id == other.client_id && self.client_secret == other.client_secret
    }

    /// Whether the secret has ended at `now`, or is so near its end that a request may meet it there.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.client_secret_expires_at.is_some_and(|end| {
            let lifetime = end.since(self.registered_at);
            let margin = (lifetime / 10).min(LONGEST_MARGIN);
            now.after(margin) >= end
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::profiles::{registration, url};

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn registered(secret: &str, end: Option<u64>) -> RegisteredClient {
        RegisteredClient {
            client_id: "c".into(),
            client_secret: Some(secret.into()),
            client_secret_expires_at: end.map(Timestamp::from_secs),
            token_endpoint_auth_method: None,
            management: Some(Management { uri: url("https://as.example/c"), token: "t".into() }),
        }
    }

    #[test]
    fn what_is_registered_follows_from_the_profile() {
        let jwks = url("https://gateway.example/jwks.json");
        let of = |grant, method| {
            let further = json!({ "policy_uri": "https://gateway.example/policy" });
            let further = further.as_object().unwrap().clone();
            let made = DynamicRegistration::new(&registration("p"), grant, method, Some(&jwks), further);
            Value::Object(made.metadata.members)
        };
        assert_eq!(
            of("authorization_code", "private_key_jwt"),
            json!({
                "redirect_uris": ["https://gateway.example/callback"],
                "response_types": ["code"],
                "grant_types": ["authorization_code", "refresh_token"],
                "token_endpoint_auth_method": "private_key_jwt",
                "jwks_uri": "https://gateway.example/jwks.json",
                "policy_uri": "https://gateway.example/policy",
            })
        );
        let machine = of("client_credentials", "client_secret_basic");
        assert_eq!(machine["redirect_uris"], json!([]));
        assert_eq!(machine["response_types"], json!([]));
        assert_eq!(machine["grant_types"], json!(["client_credentials"]));
        assert_eq!(machine.get("jwks_uri"), None, "no key of ours is needed");
    }

    #[test]
    fn every_grant_is_registered_under_its_name() {
        for row in crate::grants::GRANTS {
            assert!(!grant_types(row.name).0.is_empty(), "{}", row.name);
        }
    }

    #[test]
    fn another_provider_profile_or_member_is_another_client() {
        let made = |scope: &str, statement: Option<&str>| {
            let mut given = registration("p");
            given.scopes = crate::protocol::scope::ScopeSet::parse(scope).unwrap();
            let method = "client_secret_basic";
            let mut made = DynamicRegistration::new(&given, "client_credentials", method, None, Map::new());
            made.metadata.software_statement = statement.map(Secret::from);
            made
        };
        let (profile, other) = (ProfileId::new("p").unwrap(), ProfileId::new("q").unwrap());
        let key = made("a", None).key(&profile, "https://as.example");
        assert_eq!(key, made("a", None).key(&profile, "https://as.example"));
        assert_ne!(key, made("b", None).key(&profile, "https://as.example"));
        assert_ne!(key, made("a", Some("s")).key(&profile, "https://as.example"));
        assert_ne!(key, made("a", None).key(&profile, "https://other.example"));
        assert_ne!(key, made("a", None).key(&other, "https://as.example"));
        let mut with_token = made("a", None);
        with_token.initial_access_token = Some("t".into());
        assert_eq!(key, with_token.key(&profile, "https://as.example"), "it may change any time");
    }

    #[test]
    fn a_secret_ends_a_little_before_its_time() {
        let record = |end| ClientRecord::new(registered("s", end), NOW, None);
        assert!(!record(None).has_ended(NOW.after(Duration::from_secs(1 << 30))));
        let hour = record(Some(1_003_600));
        assert!(!hour.has_ended(NOW.after(Duration::from_secs(3_500))));
        assert!(hour.has_ended(NOW.after(Duration::from_secs(3_550))));
        let short = record(Some(1_000_010));
        assert!(!short.has_ended(NOW.after(Duration::from_secs(8))), "short lives are used, too");
        assert!(record(Some(999_999)).has_ended(NOW));
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let record = ClientRecord::new(registered("s", Some(1_003_600)), NOW, Some(NOW));
        let later = NOW.after(Duration::from_secs(60));
        let bare =
            RegisteredClient { client_secret: None, management: None, ..registered("s", Some(1_003_600)) };
        assert_eq!(record.updated(bare, later), record);
        let renewed = record.updated(registered("new", Some(1_009_999)), later);
        assert!(!renewed.is_same_client(&record));
        assert_eq!(renewed.registered_at, later);
        assert_eq!(renewed.replaced_at, Some(NOW));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<ClientRecord>(&text).unwrap(), record);
        assert!(!format!("{record:?}").contains("\"s\""));
    }
}
