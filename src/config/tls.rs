//! Checks the `tls` tables of providers, profiles and routes: certificate authorities, certificates and
//! their keys, from PEM files to what the TLS stack takes. Those of listeners use it, too.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::Arc;

use claviger_actors::clock::{Clock as _, SystemClock, Timestamp};
use claviger_actors::proxy::connect::{ClientIdentity, TlsSetupError, tls_client_config};
use claviger_actors::proxy::route::{TlsIdentity, UpstreamTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use x509_parser::parse_x509_certificate;

use super::error::{Faults, Place};
use super::file::{ClientTlsFile, ProviderFile, RouteTlsFile};
use super::reader::{Located, Node, Read};
use super::secret_source::{SecretSource, Secrets};
use super::validity;
use crate::client_tls;

/// Why a table with one of `cert` and `key` needs the other.
const OF_CLIENT: &str = "a client certificate needs `cert` and `key`";

/// Reads PEM files, and the system's certificate authorities at most once.
pub(super) struct Tls<'a> {
    secrets: &'a Secrets<'a>,
    system: OnceCell<Arc<RootCertStore>>,
}

/// Certificate authorities of a file.
pub(super) struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    /// The same, as the TLS stack takes them.
    pub(super) roots: Arc<RootCertStore>,
}

/// The private key of a `tls` table: a string is a path, as for certificates.
#[derive(Clone, Debug)]
pub(super) struct KeySource(SecretSource);

impl KeySource {
    /// Its file, if it is in one.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.0 {
            SecretSource::File(path) => Some(path),
            _ => None,
        }
    }

    /// The same key, if it is in no file: drawn once and kept, for a variable does not change.
    pub(super) fn drawn(source: &Located<Self>, secrets: &Secrets<'_>) -> Option<Located<Self>> {
        if source.value.path().is_some() {
            return Some(source.clone());
        }
        let located = Located { value: source.value.0.clone(), at: source.at.clone() };
        let secret = secrets.resolve(&located, &mut Faults::default())?;
        Some(Located { value: Self(SecretSource::Value(secret)), at: located.at })
    }
}

impl Read for KeySource {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        let source = SecretSource::read(node, faults)?;
        Some(Self(match source {
            SecretSource::Value(path) => SecretSource::File(path.expose().into()),
            other => other,
        }))
    }
}

impl<'a> Tls<'a> {
    /// Reads what `secrets` can reach.
    pub(super) fn new(secrets: &'a Secrets<'a>) -> Self {
        Self { secrets, system: OnceCell::new() }
    }

    /// The private authorities of a provider. `Some(None)` if it has none.
    pub(super) fn of_provider(
        &self,
        file: &ProviderFile,
        faults: &mut Faults,
    ) -> Option<Option<Authorities>> {
        match file.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
            Some(ca) => self.authorities(ca, faults).map(Some),
            None => Some(None),
        }
    }

    /// The client certificate of a profile.
    pub(super) fn identity_of(&self, file: &ClientTlsFile, faults: &mut Faults) -> Option<ClientIdentity> {
        self.identity(&file.at, file.cert.as_ref(), file.key.as_ref(), OF_CLIENT, faults)
    }

    /// TLS with a private CA, or a client certificate, or both; `Some(None)` if it is as usual.
    pub(super) fn client_config(
        &self,
        authorities: Option<&Authorities>,
        identity: Option<ClientIdentity>,
        at: &Place,
        faults: &mut Faults,
    ) -> Option<Option<Arc<ClientConfig>>> {
        if authorities.is_none() && identity.is_none() {
            return Some(None);
        }
        let roots = authorities.map_or_else(|| self.system(), |authorities| authorities.roots.clone());
        let built = tls_client_config(roots, identity).map_err(|TlsSetupError(error)| unfit(&error));
        faults.note(at, built).map(Some)
    }

    /// TLS towards the upstream of a route: its own, or, for tokens that are bound to the profile's
    /// certificate, with that one. `Some(None)` if it is as for all upstreams.
    pub(super) fn of_route(
        &self,
        route: Option<&RouteTlsFile>,
        bound_to: Option<&ClientTlsFile>,
        faults: &mut Faults,
    ) -> Option<Option<UpstreamTls>> {
        let authorities = match route.and_then(|tls| tls.ca.as_ref()) {
            Some(ca) => Some(self.authorities(ca, faults)?),
            None => None,
        };
        let own = route.filter(|tls| tls.cert.is_some() || tls.key.is_some());
        let (identity, at) = match (own, bound_to) {
            (Some(own), Some(_)) => {
                let place = if own.cert.is_some() { "cert" } else { "key" };
                faults.push(
                    &own.at.join(place),
                    "is of no use: the profile has `certificate_bound_tokens`, and its own certificate is shown",
                );
                return None;
            }
            (Some(own), None) => (
                Some(self.identity(&own.at, own.cert.as_ref(), own.key.as_ref(), OF_CLIENT, faults)?),
                &own.at,
            ),
            (None, Some(profile)) => {
                // Its own faults are noted where the profile is checked.
                (Some(self.identity_of(profile, &mut Faults::default())?), &profile.at)
            }
            (None, None) => (None, route.map(|route| &route.at)?),
        };
        let shown: Vec<_> = identity.iter().flat_map(|identity| identity.chain.iter().cloned()).collect();
        let noted = if bound_to.is_some() { &mut Faults::default() } else { faults };
        let Some(config) = self.client_config(authorities.as_ref(), identity, at, noted)? else {
            return Some(None);
        };
        let trusted = authorities.iter().flat_map(|authorities| &authorities.certificates);
        let identity = TlsIdentity::of(trusted.map(|ca| &**ca), shown.iter().map(|shown| &**shown));
        Some(Some(UpstreamTls { config, identity }))
    }

    fn system(&self) -> Arc<RootCertStore> {
        self.system.get_or_init(|| Arc::new(client_tls::roots_of_the_system())).clone()
    }

    /// The certificate authorities in the file `ca`.
    pub(super) fn authorities(&self, ca: &Located<String>, faults: &mut Faults) -> Option<Authorities> {
        let certificates = self.certificates(ca, faults)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            let added = roots.add(certificate.clone());
            faults.note(&ca.at, added.map_err(|_| format!("{} is no certificate authority", ca.value)))?;
        }
        Some(Authorities { certificates, roots: Arc::new(roots) })
    }

    /// Certificate and key of a `tls` table, neither of which may be missing, for the reason `why`.
    pub(super) fn identity(
        &self,
        at: &Place,
        cert: Option<&Located<String>>,
        key: Option<&Located<KeySource>>,
        why: &str,
        faults: &mut Faults,
    ) -> Option<ClientIdentity> {
        let chain = match cert {
            Some(cert) => self.certificates(cert, faults).and_then(|chain| {
                let own = chain.first()?;
                let times = faults.note(&cert.at, validity(own, &cert.value))?;
                validity::check(&cert.at, &format!("in {}", cert.value), times, SystemClock.now(), faults);
                Some(chain)
            }),
            None => {
                faults.missing(&at.join("cert"), why);
                None
            }
        };
        let key = match key {
            Some(key) => self.key(key, faults),
            None => {
                faults.missing(&at.join("key"), why);
                None
            }
        };
        Some(ClientIdentity { chain: chain?, key: key? })
    }

    /// The certificates in the file at `path`.
    pub(super) fn certificates(
        &self,
        path: &Located<String>,
        faults: &mut Faults,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let name = &path.value;
        let bytes = faults.note(&path.at, self.secrets.file(Path::new(name), "file"))?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let found = match read {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(format!("file {name} has no certificate in it; it must be PEM")),
            Err(error) => Err(format!("file {name} is no PEM file: {error}")),
        };
        faults.note(&path.at, found)
    }

    fn key(&self, key: &Located<KeySource>, faults: &mut Faults) -> Option<PrivateKeyDer<'static>> {
        let source = Located { value: key.value.0.clone(), at: key.at.clone() };
        let text = self.secrets.resolve(&source, faults)?;
        // What the parser found instead is not repeated: it may be part of a key.
        let read = PrivateKeyDer::from_pem_slice(text.expose().as_bytes());
        faults
            .note(&key.at, read.map_err(|_| "has no private key in it; it must be PEM, without a passphrase"))
    }
}

/// Why `cert` and `key` cannot be used together.
pub(super) fn unfit(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "`key` does not belong to the certificate in `cert`; name the key that it was made with"
                .to_owned()
        }
        other => format!("`cert` and `key` cannot be used: {other}"),
    }
}

/// From when until when the certificate is valid.
fn validity(certificate: &CertificateDer<'_>, name: &str) -> Result<(Timestamp, Timestamp), String> {
    let (_, parsed) =
        parse_x509_certificate(certificate).map_err(|_| format!("file {name} holds no X.509 certificate"))?;
    Ok(client_tls::validity(&parsed))
}
