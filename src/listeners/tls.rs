//! TLS of listeners: versions 1.3 (RFC 8446) and 1.2, the latter with ECDHE and AEAD suites alone
//! (RFC 9325 section 4.2).
//!
//! Each new connection asks for the current configuration and keeps it for life, so a certificate is
//! exchanged without a restart and without a connection that breaks.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use claviger_actors::clock::{Clock, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite};
use thiserror::Error;
use url::{Host, Url};
use x509_parser::time::ASN1Time;

use crate::config::Listeners;
use crate::config::error::ConfigErrors;
use crate::config::listener_tls::{ListenerIdentity, ListenerTlsSettings};

/// The suites taken, best first. All have forward secrecy and authenticated encryption.
pub const CIPHER_SUITES: &[SupportedCipherSuite] = &[
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Names of HTTP/2 and HTTP/1.1 in a handshake (RFC 7301 section 6).
const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Sessions remembered for clients that take no tickets; the oldest are forgotten.
const MAX_SESSIONS: usize = 1024;

/// A certificate of our own making is valid from so long before it was made, for clocks that are late,
const EARLIER: Duration = Duration::from_secs(24 * 3600);
/// and for longer than any process runs.
const LIFETIME: Duration = Duration::from_secs(3653 * 24 * 3600);

/// Why a listener has no TLS, or keeps that which it has. Holds no key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenerTlsError {
    /// The files cannot be used. Mend them, and reload.
    #[error(transparent)]
    Files(#[from] ConfigErrors),
    /// The TLS stack refuses them.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// The authorities for client certificates cannot be used.
    #[error("client certificates cannot be verified: {0}; look at `client_ca`")]
    ClientAuthorities(#[from] VerifierBuilderError),
    /// No certificate could be made.
    #[error("no self-signed certificate can be made: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// What is special about one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Whether it offers HTTP/2.
    pub http2: bool,
    /// Whether clients without a certificate are turned away, if it has a `client_ca` at all.
    pub certificate_required: bool,
}

/// TLS of one listener.
pub struct ListenerTls {
    settings: ListenerTlsSettings,
    policy: TlsPolicy,
    current: ArcSwap<Current>,
}

/// What new connections get.
struct Current {
    identity: ListenerIdentity,
    config: Arc<ServerConfig>,
}

impl Current {
    fn new(identity: ListenerIdentity, policy: TlsPolicy) -> Result<Self, ListenerTlsError> {
        let config = Arc::new(server_config(&identity, policy)?);
        Ok(Self { identity, config })
    }
}

impl ListenerTls {
    /// Begins with what was in the files when the configuration was read, or with `self_signed`.
    ///
    /// # Errors
    /// [`ListenerTlsError`].
    pub fn new(
        settings: &ListenerTlsSettings,
        policy: TlsPolicy,
        self_signed: impl FnOnce() -> Result<ListenerIdentity, ListenerTlsError>,
    ) -> Result<Self, ListenerTlsError> {
        let identity = match settings {
            ListenerTlsSettings::SelfSigned => self_signed()?,
            ListenerTlsSettings::Files(files) => files.identity().clone(),
        };
        let current = ArcSwap::from_pointee(Current::new(identity, policy)?);
        Ok(Self { settings: settings.clone(), policy, current })
    }

    /// What a new connection is accepted with.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }

    /// The certificate that new connections are shown.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.current.load().identity.certified.cert.first().cloned()
    }

    /// The files that [`ListenerTls::reload`] reads.
    pub fn paths(&self) -> Vec<PathBuf> {
        match &self.settings {
            ListenerTlsSettings::SelfSigned => Vec::new(),
            ListenerTlsSettings::Files(files) => files.paths(),
        }
    }

    /// Reads the files again. Connections that come later get what is in them; those under way keep what
    /// they have. Whether anything has changed.
    ///
    /// # Errors
    /// [`ListenerTlsError`]; then nothing has changed. A new certificate that is not valid now is an
    /// error, too: the one before may still be.
    pub fn reload(&self) -> Result<bool, ListenerTlsError> {
        let ListenerTlsSettings::Files(files) = &self.settings else { return Ok(false) };
        let (identity, invalid) = files.read_again()?;
        let before = self.current.load();
        let same_certificate = before.identity.certified.cert == identity.certified.cert;
        if same_certificate && same_authorities(&before.identity, &identity) {
            return Ok(false);
        }
        if !same_certificate && !invalid.is_empty() {
            return Err(ConfigErrors(invalid).into());
        }
        self.current.store(Arc::new(Current::new(identity, self.policy)?));
        Ok(true)
    }
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls")
            .field("settings", &self.settings)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn same_authorities(one: &ListenerIdentity, other: &ListenerIdentity) -> bool {
    let roots = |identity: &ListenerIdentity| {
        identity.client_authorities.as_ref().map(|authorities| authorities.roots.clone())
    };
    roots(one) == roots(other)
}

/// Sessions are resumed only with the configuration that they began with: tickets of one whose `client_ca`
/// was exchanged must not bring its clients back in.
fn server_config(identity: &ListenerIdentity, policy: TlsPolicy) -> Result<ServerConfig, ListenerTlsError> {
    let provider = Arc::new(CryptoProvider { cipher_suites: CIPHER_SUITES.to_vec(), ..default_provider() });
    let verifier = match &identity.client_authorities {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authorities) => {
            let builder = WebPkiClientVerifier::builder_with_provider(authorities.clone(), provider.clone());
            if policy.certificate_required {
                builder.build()?
            } else {
                builder.allow_unauthenticated().build()?
            }
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified.clone())));
    let offered: &[&[u8]] = if policy.http2 { &[H2, HTTP_1_1] } else { &[HTTP_1_1] };
    config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// TLS of every listener that speaks it.
#[derive(Clone, Debug)]
pub struct ListenersTls {
    /// Internal applications.
    pub proxy: Option<Arc<ListenerTls>>,
    /// Browsers.
    pub public: Option<Arc<ListenerTls>>,
    /// Operators.
    pub admin: Option<Arc<ListenerTls>>,
}

impl ListenersTls {
    /// Sets up what `listeners` says. If any of them makes its certificate itself, they share one, and
    /// its fingerprint is logged.
    ///
    /// # Errors
    /// [`ListenerTlsError`].
    pub fn open(
        listeners: &Listeners,
        public_url: &Url,
        clock: &dyn Clock,
    ) -> Result<Self, ListenerTlsError> {
        let mut made: Option<ListenerIdentity> = None;
        let bound = [listeners.proxy, listeners.public, listeners.admin];
        let mut open = |settings: &Option<ListenerTlsSettings>, policy| {
            let self_signed = || match &made {
                Some(identity) => Ok(identity.clone()),
                None => Ok(made.insert(self_signed(&bound, public_url, clock.now())?).clone()),
            };
            let settings = settings.as_ref();
            let tls = settings.map(|settings| ListenerTls::new(settings, policy, self_signed)).transpose();
            tls.map(|tls| tls.map(Arc::new))
        };
        // Callers and operators may have other credentials; browsers have none.
        let policy = |http2, certificate_required| TlsPolicy { http2, certificate_required };
        Ok(Self {
            proxy: open(&listeners.proxy_tls, policy(listeners.http2.over_tls, false))?,
            public: open(&listeners.public_tls, policy(false, true))?,
            admin: open(&listeners.admin_tls, policy(false, listeners.admin_token.is_none()))?,
        })
    }

    /// Those that speak TLS, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &ListenerTls)> {
        let named = [("proxy", &self.proxy), ("public", &self.public), ("admin", &self.admin)];
        named.into_iter().filter_map(|(name, tls)| Some((name, &**tls.as_ref()?)))
    }

    /// The files that [`ListenersTls::reload`] reads.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.iter().flat_map(|(_, tls)| tls.paths()).collect()
    }

    /// Reads all files again, and logs what has changed and what cannot be used. The latter are returned,
    /// with their listener's name; each keeps what it has.
    pub fn reload(&self) -> Vec<(&'static str, ListenerTlsError)> {
        let reload = |(listener, tls): (_, &ListenerTls)| match tls.reload() {
            Ok(changed) => {
                if changed {
                    let fingerprint = tls.certificate().map(|certificate| fingerprint(&certificate));
                    tracing::info!(listener, fingerprint, "TLS files read again: new connections get them");
                }
                None
            }
            Err(error) => {
                tracing::error!(listener, %error, "TLS files cannot be used; those before stay in use");
                Some((listener, error))
            }
        };
        self.iter().filter_map(reload).collect()
    }
}

/// A certificate for every name by which the gateway may be reached: P-256, kept nowhere.
fn self_signed(
    bound: &[SocketAddr],
    public_url: &Url,
    now: Timestamp,
) -> Result<ListenerIdentity, ListenerTlsError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let addresses = bound.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    names.extend(addresses.map(|ip| ip.to_string()));
    names.extend(public_url.host().map(|host| match host {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    }));
    names.sort_unstable();
    names.dedup();

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "claviger, self-signed");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let times = [(now.before(EARLIER), &mut params.not_before), (now.after(LIFETIME), &mut params.not_after)];
    for (time, field) in times {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        if let Ok(time) = ASN1Time::from_timestamp(seconds) {
            *field = time.to_datetime();
        }
    }
    let certificate = params.self_signed(&key)?.der().clone();
    tracing::warn!(
        fingerprint = fingerprint(&certificate),
        "TLS with a self-signed certificate, made anew at each start: clients must be told to trust it"
    );
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![certificate], key, &default_provider())?;
    Ok(ListenerIdentity { certified: Arc::new(certified), client_authorities: None })
}

/// SHA-256 of a certificate, written as `openssl x509 -fingerprint -sha256` and browsers do.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests;
