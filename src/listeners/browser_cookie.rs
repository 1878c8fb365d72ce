//! The cookie that ties a pending authorization to the browser that began it.
//!
//! The proxy listener sets it when it sends a browser straight to the provider, the public listener
//! when a connect link is opened; the redirection endpoint reads it. Cookies know no ports, so all
//! listeners on one host name share it.

use actix_web::http::header::{COOKIE, HeaderMap};
use claviger_actors::protocol::secret::Secret;
use url::Url;

/// Name over http.
const PLAIN: &str = "claviger_browser";
/// Name over https: a browser takes it only with `Secure`, without `Domain`, for the whole host
/// (RFC 6265bis section 4.1.3.2), so no neighbouring host can plant one.
const HOST_BOUND: &str = "__Host-claviger_browser";
/// Longest value read.
const MAX_VALUE: usize = 256;

/// Name and attributes of the cookie, which depend on the public URL's scheme alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrowserCookie {
    secure: bool,
}

impl BrowserCookie {
    /// The cookie of a gateway whose browsers come to `public_url`.
    pub fn new(public_url: &Url) -> Self {
        Self { secure: public_url.scheme() == "https" }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        if self.secure { HOST_BOUND } else { PLAIN }
    }

    /// The `Set-Cookie` value that binds a browser for `max_age` seconds.
    pub fn set(self, value: &Secret, max_age: u64) -> String {
        format!(
            "{}={}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{}",
            self.name(),
            value.expose(),
            if self.secure { "; Secure" } else { "" }
        )
    }

    /// The value that a request brings. A cookie sent twice binds to nothing: which of the two is
    /// ours cannot be told.
    pub fn read(self, headers: &HeaderMap) -> Option<Secret> {
        let mut found = None;
        for pair in headers.get_all(COOKIE).flat_map(|value| value.as_bytes().split(|b| *b == b';')) {
            let Some(value) = pair
                .trim_ascii()
                .strip_prefix(self.name().as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
            else {
                continue;
            };
            if found.is_some() {
                return None;
            }
            found = Some(value);
        }
        let value = found.filter(|value| !value.is_empty() && value.len() <= MAX_VALUE)?;
        let visible = value.iter().all(|b| (0x21..=0x7e).contains(b) && *b != b'"' && *b != b',');
        let text = std::str::from_utf8(value).ok()?;
        visible.then(|| Secret::new(text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use actix_web::http::header::HeaderValue;

    use super::*;

    fn cookie(url: &str) -> BrowserCookie {
        BrowserCookie::new(&Url::parse(url).unwrap())
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(COOKIE, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn https_takes_the_host_prefix_and_secure() {
        let value = Secret::new("abc");
        let set = cookie("https://gw.example").set(&value, 600);
        assert_eq!(set, "__Host-claviger_browser=abc; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure");
        let set = cookie("http://127.0.0.1:8081").set(&value, 60);
        assert_eq!(set, "claviger_browser=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn the_value_is_found_among_others_and_only_under_its_own_name() {
        let plain = cookie("http://gw.example");
        let read = |values: &[&str]| plain.read(&headers(values)).map(|s| s.expose().to_owned());
        assert_eq!(read(&["a=1; claviger_browser=xyz; b=2"]).as_deref(), Some("xyz"));
        assert_eq!(read(&["a=1", "claviger_browser=xyz"]).as_deref(), Some("xyz"));
        assert_eq!(read(&["xclaviger_browser=1; claviger_browser2=2; __Host-claviger_browser=3"]), None);
        assert_eq!(read(&["claviger_browser="]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn a_cookie_sent_twice_or_too_long_binds_to_nothing() {
        let plain = cookie("http://gw.example");
        assert!(plain.read(&headers(&["claviger_browser=a; claviger_browser=b"])).is_none());
        assert!(plain.read(&headers(&["claviger_browser=a", "claviger_browser=a"])).is_none());
        let long = format!("claviger_browser={}", "a".repeat(MAX_VALUE + 1));
        assert!(plain.read(&headers(&[&long])).is_none());
    }
}
