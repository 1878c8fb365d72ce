//! Checks how listeners speak TLS: with files, which are read again while the gateway runs, or with a
//! certificate that it makes for itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use url::{Host, Url};

use super::drawn::Drawn;
use super::environment::ProcessEnvironment;
use super::error::{ConfigError, ConfigErrors, Dated, Faults, Place};
use super::file::{GatewayFile, ListenerCertificateFile, ProxyListenerFile};
use super::reader::{Located, Node, Read};
use super::secret_source::Secrets;
use super::tls::{KeySource, Tls, unfit};
use super::{Listeners, ServerConfig};

/// What asks for a certificate of the gateway's own making.
const SELF_SIGNED: &str = "self-signed";
/// Why a table with one of `cert` and `key` needs the other.
const WHY: &str = "TLS needs `cert` and `key`; or write tls = \"self-signed\"";

/// `tls` of a listener, as written.
#[derive(Debug)]
pub(super) enum ListenerTlsFile {
    /// `"self-signed"`
    SelfSigned,
    /// `{ cert, key, client_ca }`
    Files(Box<ListenerCertificateFile>),
}

impl ListenerTlsFile {
    /// Whether clients may show certificates.
    pub(super) fn takes_client_certificates(&self) -> bool {
        matches!(self, Self::Files(files) if files.client_ca.is_some())
    }
}

impl Read for ListenerTlsFile {
    fn read(node: &Node<'_>, faults: &mut Faults) -> Option<Self> {
        match node.value.as_str() {
            Some(SELF_SIGNED) => Some(Self::SelfSigned),
            None if node.table().is_some() => {
                ListenerCertificateFile::read(node, faults).map(|files| Self::Files(Box::new(files)))
            }
            _ => {
                faults.push(&node.at, "must be { cert = \"…\", key = \"…\" } or \"self-signed\"");
                None
            }
        }
    }
}

/// How a listener speaks TLS.
#[derive(Clone, Debug)]
pub enum ListenerTlsSettings {
    /// With a certificate that is made at the start and kept in memory.
    SelfSigned,
    /// With the certificate and key of files.
    Files(Arc<ListenerTlsFiles>),
}

impl ListenerTlsSettings {
    /// Whether clients may show certificates.
    pub fn takes_client_certificates(&self) -> bool {
        matches!(self, Self::Files(files) if files.client_ca.is_some())
    }
}

/// What a listener shows to its clients, and whom it believes.
#[derive(Clone)]
pub struct ListenerIdentity {
    /// Its certificate, with the chain, and the key.
    pub certified: Arc<CertifiedKey>,
    /// Whose client certificates it takes; `None` if it asks for none.
    pub client_authorities: Option<Arc<RootCertStore>>,
}

impl fmt::Debug for ListenerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerIdentity")
            .field("chain", &self.certified.cert.len())
            .field("client_authorities", &self.client_authorities.as_ref().map(|roots| roots.len()))
            .finish_non_exhaustive()
    }
}

/// The files of a listener's certificate: as they were read with the configuration, and where they are.
#[derive(Debug)]
pub struct ListenerTlsFiles {
    at: Place,
    cert: Located<String>,
    key: Located<KeySource>,
    client_ca: Option<Located<String>>,
    directory: PathBuf,
    identity: ListenerIdentity,
}

impl ListenerTlsFiles {
    /// What was in the files when the configuration was read.
    pub fn identity(&self) -> &ListenerIdentity {
        &self.identity
    }

    /// Where the files are. Whoever watches them must expect others to be moved into their place.
    pub fn paths(&self) -> Vec<PathBuf> {
        let names = [Some(self.cert.value.as_ref()), self.key.value.path()];
        let client_ca = self.client_ca.as_ref().map(|ca| ca.value.as_ref());
        names.into_iter().chain([client_ca]).flatten().map(|name| self.directory.join(name)).collect()
    }

    /// Reads the files again, with what their dates make amiss.
    ///
    /// # Errors
    /// [`ConfigErrors`], also if certificate and key do not belong together, as while one of them is
    /// replaced and the other is not yet.
    pub fn read_again(&self) -> Result<(ListenerIdentity, Vec<ConfigError>), ConfigErrors> {
        let mut faults = Faults::default();
        let drawn = Drawn::default();
        let secrets = Secrets { environment: &ProcessEnvironment, directory: &self.directory, drawn: &drawn };
        let (cert, key) = (Some(&self.cert), Some(&self.key));
        let read = identity(&self.at, cert, key, self.client_ca.as_ref(), &Tls::new(&secrets), &mut faults);
        let Dated { invalid, .. } = std::mem::take(faults.dated());
        faults.or(read).map(|identity| (identity, invalid))
    }
}

/// Checks `tls` of a listener. `Some(None)` if it has none.
pub(super) fn settings(
    file: Option<&ListenerTlsFile>,
    secrets: &Secrets<'_>,
    tls: &Tls<'_>,
    faults: &mut Faults,
) -> Option<Option<ListenerTlsSettings>> {
    let file = match file {
        None => return Some(None),
        Some(ListenerTlsFile::SelfSigned) => return Some(Some(ListenerTlsSettings::SelfSigned)),
        Some(ListenerTlsFile::Files(file)) => file,
    };
    let client_ca = file.client_ca.as_ref();
    let identity = identity(&file.at, file.cert.as_ref(), file.key.as_ref(), client_ca, tls, faults)?;
    Some(Some(ListenerTlsSettings::Files(Arc::new(ListenerTlsFiles {
        at: file.at.clone(),
        cert: file.cert.clone()?,
        key: KeySource::drawn(file.key.as_ref()?, secrets)?,
        client_ca: client_ca.cloned(),
        directory: secrets.directory.to_owned(),
        identity,
    }))))
}

/// The certificate that the admin listener shows to its clients.
#[derive(Clone, Debug)]
pub enum AdminCertificate {
    /// That of its file.
    Known(CertificateDer<'static>),
    /// One that only the running gateway knows.
    MadeAtStart,
}

/// What a listener shows, without its key. `Some(None)` if it does not speak TLS.
pub(super) fn shown(
    file: Option<&ListenerTlsFile>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<Option<AdminCertificate>> {
    let file = match file {
        None => return Some(None),
        Some(ListenerTlsFile::SelfSigned) => return Some(Some(AdminCertificate::MadeAtStart)),
        Some(ListenerTlsFile::Files(file)) => file,
    };
    let Some(cert) = &file.cert else {
        faults.missing(&file.at.join("cert"), WHY);
        return None;
    };
    let chain = Tls::new(secrets).certificates(cert, faults)?;
    Some(chain.into_iter().next().map(AdminCertificate::Known))
}

fn identity(
    at: &Place,
    cert: Option<&Located<String>>,
    key: Option<&Located<KeySource>>,
    client_ca: Option<&Located<String>>,
    tls: &Tls<'_>,
    faults: &mut Faults,
) -> Option<ListenerIdentity> {
    let own = tls.identity(at, cert, key, WHY, faults);
    let authorities = client_ca.map(|ca| tls.authorities(ca, faults));
    let own = own?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(own.chain, own.key, &provider).map_err(|error| unfit(&error));
    let certified = faults.note(at, certified)?;
    let client_authorities = match authorities {
        None => None,
        Some(authorities) => Some(authorities?.roots),
    };
    Some(ListenerIdentity { certified: Arc::new(certified), client_authorities })
}

/// Which versions of HTTP the proxy listener speaks besides HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// HTTP/2 over TLS, by ALPN.
    pub over_tls: bool,
    /// HTTP/2 in clear, with prior knowledge.
    pub in_clear: bool,
}

/// Checks `http2` and `h2c` of the proxy listener.
pub(super) fn http2(file: Option<&ProxyListenerFile>, faults: &mut Faults) -> Option<Http2Settings> {
    let tls = file.is_some_and(|file| file.tls.is_some());
    let http2 = file.and_then(|file| file.http2.as_ref());
    let h2c = file.and_then(|file| file.h2c.as_ref());
    let mut good = true;
    if let Some(h2c) = h2c.filter(|h2c| h2c.value && tls) {
        faults.push(&h2c.at, "is HTTP/2 without TLS, and the listener has `tls`; there HTTP/2 is `http2`");
        good = false;
    }
    if let Some(http2) = http2.filter(|http2| http2.value && !tls) {
        faults.unless_noted(
            &http2.at,
            "is HTTP/2 over TLS, and the listener has no `tls`; in clear it is `h2c`",
        );
        good = false;
    }
    good.then(|| Http2Settings {
        over_tls: tls && http2.is_none_or(|http2| http2.value),
        in_clear: h2c.is_some_and(|h2c| h2c.value),
    })
}

/// Whether the public URL and the public listener disagree about TLS. A listener without TLS behind a
/// server that ends it is as it should be, so `https` is a slip only where the URL leads straight to it.
pub(super) fn disagreement(
    file: &GatewayFile,
    server: Option<&ServerConfig>,
    listeners: Option<&Listeners>,
) -> Option<ConfigError> {
    let (url, listeners) = (&server?.public_url, listeners?);
    let place = file.server.as_ref()?.public_url.as_ref()?.at.clone();
    let problem = match (url.scheme(), listeners.public_tls.is_some()) {
        ("http", true) => "is http, and listeners.public speaks TLS; write https",
        ("https", false) if leads_to(url, listeners.public) => {
            "is https, and listeners.public, to which it leads, has no `tls`; add it, or write http"
        }
        _ => return None,
    };
    Some(ConfigError { place, problem: problem.to_owned() })
}

/// Whether `url` names the very socket that is bound to `address`.
fn leads_to(url: &Url, address: SocketAddr) -> bool {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain("localhost")) => {
            return address.ip().is_loopback() && url.port_or_known_default() == Some(address.port());
        }
        _ => return false,
    };
    ip == address.ip() && url.port_or_known_default() == Some(address.port())
}
