//! Where a browser may be sent after a flow: checked once, when the flow or link is made.

use std::collections::BTreeMap;

use thiserror::Error;
use url::Url;

/// Longest `return_to` accepted, in bytes, as given and as normalised.
pub const MAX_RETURN_TO: usize = 2048;

/// Why a `return_to` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReturnToError {
    /// It is longer than [`MAX_RETURN_TO`].
    #[error("return_to is longer than {MAX_RETURN_TO} bytes")]
    TooLong,
    /// Browsers drop or reinterpret these, so that what we check is not what they use.
    #[error("return_to has a space, a control character or a backslash; percent-encode it")]
    Character,
    /// It is relative, of another scheme, or without a host.
    #[error("return_to must be an absolute http or https URL with a host")]
    NotAbsolute,
    /// A user name in front of the host misleads whoever reads the URL.
    #[error("return_to must not have a user name or password")]
    UserInfo,
}

/// Checks `return_to` and gives its normalised form (ASCII only, fit for a `Location` header).
pub fn check_return_to(return_to: &str) -> Result<String, ReturnToError> {
    if return_to.len() > MAX_RETURN_TO {
        return Err(ReturnToError::TooLong);
    }
    if return_to.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(ReturnToError::Character);
    }
    // The URL parser reads `http:host` and `http:///host` as `http://host`; people do not.
    let (scheme, rest) = return_to.split_once("://").ok_or(ReturnToError::NotAbsolute)?;
    let http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !http || authority.is_empty() {
        return Err(ReturnToError::NotAbsolute);
    }
    if authority.contains('@') {
        return Err(ReturnToError::UserInfo);
    }
    let url = Url::parse(return_to).map_err(|_| ReturnToError::NotAbsolute)?;
    if !url.has_host() {
        return Err(ReturnToError::NotAbsolute);
    }
    let normalised = String::from(url);
    if normalised.len() > MAX_RETURN_TO {
        return Err(ReturnToError::TooLong);
    }
    Ok(normalised)
}

/// `return_to` with further entries in its query.
pub fn with_entries(return_to: &str, entries: &BTreeMap<String, String>) -> String {
    match Url::parse(return_to) {
        Ok(mut url) if !entries.is_empty() => {
            url.query_pairs_mut().extend_pairs(entries);
            url.into()
        }
        _ => return_to.to_owned(),
    }
}

/// `return_to` with the error code of the authorization response added to its query.
pub fn with_error(return_to: &str, code: &str) -> String {
    match Url::parse(return_to) {
        Ok(mut url) => {
            url.query_pairs_mut().append_pair("error", code);
            url.into()
        }
        // It was checked when the flow was made; nothing is added to what cannot be read.
        Err(_) => return_to.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn absolute_http_urls_pass_in_normal_form() {
        for (given, normal) in [
            ("http://app.example", "http://app.example/"),
            ("https://app.example:8443/a?b=c#d", "https://app.example:8443/a?b=c#d"),
            ("HTTPS://App.Example/a/../b", "https://app.example/b"),
            ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
            ("http://[::1]:3000/x", "http://[::1]:3000/x"),
            ("http://app.example/?u=a@b", "http://app.example/?u=a@b"),
        ] {
            assert_eq!(check_return_to(given).as_deref(), Ok(normal), "{given}");
        }
    }

    #[test]
    fn everything_that_leads_elsewhere_is_refused() {
        use ReturnToError as E;
        for (given, error) in [
            ("", E::NotAbsolute),
            ("/relative", E::NotAbsolute),
            ("//evil.example/x", E::NotAbsolute),
            ("http:evil.example", E::NotAbsolute),
            ("http:///evil.example", E::NotAbsolute),
            ("http://", E::NotAbsolute),
            ("http://?x", E::NotAbsolute),
            ("http://:80/", E::NotAbsolute),
            ("http://a:99999/", E::NotAbsolute),
            ("javascript://x/%0aalert(1)", E::NotAbsolute),
            ("ftp://a/", E::NotAbsolute),
            ("data:text/html,x", E::NotAbsolute),
            ("http:/\\evil.example", E::Character),
            ("https://app.example\\@evil.example", E::Character),
            ("https://app.example/\r\nSet-Cookie: x=y", E::Character),
            ("https://app.example/\u{85}", E::Character),
            (" https://app.example/", E::Character),
            ("https://app.example/a b", E::Character),
            ("https://user@evil.example/", E::UserInfo),
            ("https://@evil.example/", E::UserInfo),
            ("https://app.example:x@evil.example/", E::UserInfo),
        ] {
            assert_eq!(check_return_to(given), Err(error), "{given}");
        }
    }

    #[test]
    fn length_counts_before_and_after_normalising() {
        let at_limit = format!("http://a/{}", "x".repeat(MAX_RETURN_TO - 9));
        assert_eq!(check_return_to(&at_limit).as_deref(), Ok(at_limit.as_str()));
        assert_eq!(check_return_to(&format!("{at_limit}x")), Err(ReturnToError::TooLong));
        let grows = format!("http://a/{}", "ü".repeat(600));
        assert_eq!(check_return_to(&grows), Err(ReturnToError::TooLong));
    }

    #[test]
    fn an_error_code_joins_the_query_and_can_break_nothing() {
        assert_eq!(with_error("https://a/b?c=d#e", "access_denied"), "https://a/b?c=d&error=access_denied#e");
        assert_eq!(with_error("https://a/", "x&y=\r\n#"), "https://a/?error=x%26y%3D%0D%0A%23");
    }
}
