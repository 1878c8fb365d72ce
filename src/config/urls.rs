//! What a URL in a configuration must be.

use std::net::IpAddr;

use url::{Host, Url};

use super::error::Faults;
use super::reader::Located;

/// Reads an `https` URL, or an `http` one on loopback: tokens, codes and credentials go over it
/// (RFC 6749 section 3.2, RFC 6750 section 5.3). It has no user name, password or fragment.
pub(super) fn secure(text: &Located<String>, faults: &mut Faults) -> Option<Url> {
    faults.note(&text.at, checked(&text.value))
}

/// Reads the `https` URL of a page for people.
pub(super) fn secure_page(text: &Located<String>, faults: &mut Faults) {
    let page = text.value.split('#').next().unwrap_or_default().to_owned();
    secure(&Located { value: page, at: text.at.clone() }, faults);
}

/// As [`secure`], and without a query: further path or parameters are added to it.
pub(super) fn secure_base(text: &Located<String>, faults: &mut Faults) -> Option<Url> {
    let url = secure(text, faults)?;
    if url.query().is_some() {
        faults.push(&text.at, "must have no query");
        return None;
    }
    Some(url)
}

fn checked(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err("must be https; http is for loopback addresses only".to_owned()),
        _ => return Err("must be an https URL".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user name or password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must have no fragment".to_owned());
    }
    Ok(url)
}

/// Whether `url` never leaves this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}
