//! Checks `[server]` and `[listeners]`; `listener_tls` has how these speak TLS.

use std::net::SocketAddr;
use std::time::Duration;

use claviger_actors::protocol::secret::Secret;
use url::Url;

use super::error::{Faults, Place};
use super::file::{ListenersFile, ServerFile};
use super::listener_tls::ListenerTlsFile;
use super::reader::Located;
use super::secret_source::Secrets;
use super::tls::Tls;
use super::{Listeners, ServerConfig};
use super::{listener_tls, urls};

/// More would only cost memory.
const MAX_WORKERS: u64 = 256;

/// Unless configured: less than the half minute after which supervisors of processes lose patience,
/// together with the time that saves have beyond it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
const SHORTEST_DRAIN: Duration = Duration::from_secs(1);
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// How long a managed signing key signs, unless configured.
pub(super) const SIGNING_KEY_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Half of it must be longer than providers keep our key set.
const SHORTEST_KEY_LIFETIME: Duration = Duration::from_secs(3600);
const LONGEST_KEY_LIFETIME: Duration = Duration::from_secs(3653 * 24 * 3600);

/// Checks `[server]`.
pub(super) fn server(file: Option<&ServerFile>, whole: &Place, faults: &mut Faults) -> Option<ServerConfig> {
    let place = || whole.join("server").join("public_url");
    let Some(text) = file.and_then(|file| file.public_url.as_ref()) else {
        faults.missing(&place(), "it is the base of the redirect URI, such as \"http://127.0.0.1:8081\"");
        return None;
    };
    let public_url = urls::secure_base(text, faults);
    let workers = match file.and_then(|file| file.workers.as_ref()) {
        None => Some(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        Some(count) if (1..=MAX_WORKERS).contains(&count.value) => usize::try_from(count.value).ok(),
        Some(count) => {
            faults.push(&count.at, format!("must be from 1 to {MAX_WORKERS}"));
            None
        }
    };
    let drain_timeout = match file.and_then(|file| file.drain_timeout.as_ref()) {
        None => Some(DRAIN_TIMEOUT),
        Some(given) if (SHORTEST_DRAIN..=LONGEST_DRAIN).contains(&given.value) => Some(given.value),
        Some(given) => {
            faults.push(&given.at, "must be from 1s to 1h");
            None
        }
    };
    let signing_key_lifetime = match file.and_then(|file| file.signing_key_lifetime.as_ref()) {
        None => Some(SIGNING_KEY_LIFETIME),
        Some(given) if (SHORTEST_KEY_LIFETIME..=LONGEST_KEY_LIFETIME).contains(&given.value) => {
            Some(given.value)
        }
        Some(given) => {
            faults.push(&given.at, "must be from 1h, so that providers see keys in time, to 10years");
            None
        }
    };
    Some(ServerConfig {
        public_url: public_url?,
        workers: workers?,
        drain_timeout: drain_timeout?,
        signing_key_lifetime: signing_key_lifetime?,
    })
}

/// The redirection endpoint: `{public_url}/callback`, joined as text so that nothing is lost.
pub(super) fn redirect_uri(public_url: &Url) -> Option<Url> {
    Url::parse(&format!("{}/callback", public_url.as_str().trim_end_matches('/'))).ok()
}

/// Checks `[listeners]`; without `tls`, no certificate is looked at.
pub(super) fn listeners(
    file: Option<&ListenersFile>,
    whole: &Place,
    secrets: &Secrets<'_>,
    tls: Option<&Tls<'_>>,
    faults: &mut Faults,
) -> Option<Listeners> {
    let proxy_file = file.and_then(|file| file.proxy.as_ref());
    let public_file = file.and_then(|file| file.public.as_ref());
    let admin_file = file.and_then(|file| file.admin.as_ref());
    let proxy = proxy_file.and_then(|file| file.bind.as_ref());
    let public = public_file.and_then(|file| file.bind.as_ref());
    let admin = admin_file.and_then(|file| file.bind.as_ref());

    let named = [("proxy", proxy, 8080), ("public", public, 8081), ("admin", admin, 8082)];
    let mut bound: Vec<(&str, SocketAddr)> = Vec::new();
    for (name, text, default_port) in named {
        let Some(address) = bind(text, default_port, faults) else { continue };
        if let Some((other, _)) = bound.iter().find(|(_, other)| overlap(*other, address)) {
            let place = || whole.join("listeners").join(name).join("bind");
            let place = text.map_or_else(place, |text| text.at.clone());
            faults.push(&place, format!("{address} is taken by listeners.{other}"));
        }
        bound.push((name, address));
    }
    let address = |wanted: &str| bound.iter().find(|(name, _)| *name == wanted).map(|(_, address)| *address);

    let mut speaks = |file: Option<_>| match tls {
        Some(tls) => listener_tls::settings(file, secrets, tls, faults),
        None => Some(None),
    };
    let proxy_tls = speaks(proxy_file.and_then(|file| file.tls.as_ref()));
    let public_tls = speaks(public_file.and_then(|file| file.tls.as_ref()));
    let admin_tls = speaks(admin_file.and_then(|file| file.tls.as_ref()));
    let http2 = listener_tls::http2(proxy_file, faults);

    let token = admin_file.and_then(|file| file.token.as_ref());
    let admin_token = token.map(|source| admin_token(source, secrets, faults));
    let certificates =
        admin_file.and_then(|file| file.tls.as_ref()).is_some_and(ListenerTlsFile::takes_client_certificates);
    let reachable = address("admin").is_some_and(|address| !address.ip().is_loopback());
    if token.is_none() && !certificates && reachable {
        let place = whole.join("listeners").join("admin").join("token");
        faults.missing(
            &place,
            "it is required unless the listener is bound to loopback, or `tls` has a `client_ca`",
        );
    }
    Some(Listeners {
        proxy: address("proxy")?,
        public: address("public")?,
        admin: address("admin")?,
        admin_token: match admin_token {
            None => None,
            Some(token) => Some(token?),
        },
        proxy_tls: proxy_tls?,
        public_tls: public_tls?,
        admin_tls: admin_tls?,
        http2: http2?,
    })
}

fn admin_token(
    source: &Located<super::secret_source::SecretSource>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Option<Secret> {
    let token = secrets.resolve(source, faults)?;
    if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        faults.push(&source.at, "must be visible ASCII without spaces: it is sent in a header");
        return None;
    }
    Some(token)
}

fn bind(text: Option<&Located<String>>, default_port: u16, faults: &mut Faults) -> Option<SocketAddr> {
    let Some(text) = text else { return Some(SocketAddr::from(([127, 0, 0, 1], default_port))) };
    let parsed = text.value.parse();
    if parsed.is_err() {
        faults
            .push(&text.at, "must be an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"");
    }
    parsed.ok()
}

/// Whether two listeners would want the same socket. Port 0 is a free port each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let anywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || anywhere)
}
