//! Checks how a provider's servers are reached: `tls`, `proxy`, time limits, redirects and retries.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_actors::registration::outbound::{HttpProxy, Outbound, RetryStatuses};
use claviger_actors::registration::policy::RetryPolicy;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;
use zeroize::Zeroizing;

use super::error::Faults;
use super::file::{ProfileFile, ProviderFile};
use super::reader::Located;
use super::secret_source::{SecretSource, Secrets};
use super::tls::Tls;
use super::urls;

const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);
const MOST_RETRIES: u64 = 10;
/// They say why a grant or a client is refused (RFC 6749 section 5.2): never passing.
const ANSWERS: [u16; 2] = [400, 401];

/// What a provider's own keys say, for all its profiles.
pub(super) fn of_provider(
    file: &ProviderFile,
    secrets: &Secrets<'_>,
    tls: &Tls<'_>,
    faults: &mut Faults,
) -> Option<Outbound> {
    let authorities = tls.of_provider(file, faults);
    let config = authorities.and_then(|found| tls.client_config(found.as_ref(), None, &file.at, faults));
    common(file, secrets, faults).and_then(|common| Some(Outbound { tls: config?, ..common }))
}

/// How `profile` reaches its provider, with its client certificate if it has one. What is wrong with
/// the provider's own keys is noted by [`of_provider`].
pub(super) fn of_profile(
    provider: &ProviderFile,
    profile: &ProfileFile,
    secrets: &Secrets<'_>,
    tls: &Tls<'_>,
    faults: &mut Faults,
) -> Option<Arc<Outbound>> {
    let identity = match &profile.tls {
        Some(file) => Some(tls.identity_of(file, faults)?),
        None => None,
    };
    let mut noted = Faults::default();
    let authorities = tls.of_provider(provider, &mut noted)?;
    let at = profile.tls.as_ref().map_or(&profile.at, |file| &file.at);
    let shows_certificate = identity.is_some();
    let config = tls.client_config(authorities.as_ref(), identity, at, faults)?;
    let common = common(provider, secrets, &mut noted)?;
    Some(Arc::new(Outbound { tls: config, shows_certificate, ..common }))
}

/// When a failed token request of the provider's profiles is tried again.
pub(super) fn retry(provider: &ProviderFile) -> RetryPolicy {
    let usual = RetryPolicy::default();
    let retries = provider.retries.as_ref().and_then(|retries| u32::try_from(retries.value).ok());
    RetryPolicy {
        request_timeout: provider.request_timeout.as_ref().map_or(usual.request_timeout, |at| at.value),
        attempts: retries.map_or(usual.attempts, |retries| retries.saturating_add(1)),
        ..usual
    }
}

fn common(file: &ProviderFile, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<Outbound> {
    let usual = Outbound::default();
    let proxy = match &file.proxy {
        Some(source) => proxy(source, secrets, faults).map(Some),
        None => Some(None),
    };
    let connect_timeout = match &file.connect_timeout {
        Some(given) => timeout(given, faults),
        None => Some(usual.connect_timeout),
    };
    let request_timeout = match &file.request_timeout {
        Some(given) => timeout(given, faults).map(Some),
        None => Some(None),
    };
    let retry_statuses = match &file.retry_statuses {
        Some(given) => statuses(given, faults),
        None => Some(usual.retry_statuses),
    };
    if let Some(retries) = file.retries.as_ref().filter(|retries| retries.value > MOST_RETRIES) {
        faults.push(&retries.at, format!("must be at most {MOST_RETRIES}: callers wait meanwhile"));
    }
    Some(Outbound {
        tls: None,
        shows_certificate: false,
        proxy: proxy?,
        redirects: file.redirects.as_ref().is_some_and(|redirects| redirects.value),
        connect_timeout: connect_timeout?,
        request_timeout: request_timeout?,
        retry_statuses: retry_statuses?,
    })
}

fn timeout(given: &Located<Duration>, faults: &mut Faults) -> Option<Duration> {
    if given.value.is_zero() || given.value > LONGEST_TIMEOUT {
        faults.push(&given.at, "must be longer than nothing, and at most 5 minutes");
        return None;
    }
    Some(given.value)
}

/// `http://[user[:password]@]host[:port]`. The whole of it is a secret, so no fault repeats it.
fn proxy(source: &Located<SecretSource>, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<HttpProxy> {
    let text = secrets.resolve(source, faults)?;
    let read = Url::parse(text.expose()).ok().filter(|url| {
        url.scheme() == "http" && url.path() == "/" && url.query().is_none() && url.fragment().is_none()
    });
    let Some(url) = read else {
        faults.push(&source.at, "must be a URL such as \"http://proxy.example:3128\", without a path");
        return None;
    };
    let authorization = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => Some(faults.note(&source.at, basic(user, password.unwrap_or_default()))?),
    };
    Some(HttpProxy {
        host: url.host_str()?.to_owned(),
        port: url.port_or_known_default()?,
        authorization,
        is_loopback: urls::is_loopback(&url),
    })
}

/// HTTP Basic (RFC 7617) of a URL's user information, which is percent-encoded there.
fn basic(user: &str, password: &str) -> Result<HeaderValue, &'static str> {
    let mut plain = Zeroizing::new(percent_decode_str(user).collect::<Vec<u8>>());
    if plain.contains(&b':') {
        return Err("has a user name with `:` in it, which HTTP Basic cannot carry");
    }
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(&plain)));
    let mut value = HeaderValue::from_str(&text).map_err(|_| "has credentials that no header can carry")?;
    value.set_sensitive(true);
    Ok(value)
}

/// `"429"` or `"500-599"`, at least one.
fn statuses(given: &Located<Vec<String>>, faults: &mut Faults) -> Option<RetryStatuses> {
    let mut ranges = Vec::new();
    for text in &given.value {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number =
            |text: &str| text.trim().parse::<u16>().ok().filter(|status| (400..600).contains(status));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if ANSWERS.iter().any(|answer| (first..=last).contains(answer)) => {
                faults.push(
                    &given.at,
                    format!("{text:?} has 400 or 401 in it, with which a server refuses a grant or a client"),
                );
                return None;
            }
            (Some(first), Some(last)) if first <= last => ranges.push(first..=last),
            _ => {
                faults.push(
                    &given.at,
                    format!(
                        "{text:?} must be a status from 402 to 599, such as \"429\", or a range, \"500-599\""
                    ),
                );
                return None;
            }
        }
    }
    Some(RetryStatuses(ranges))
}
