//! What comes to the redirection endpoint (RFC 6749 section 4.1.2, RFC 9207).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;
use url::form_urlencoded;

use super::printable::error_code;
use super::secret::Secret;

const MAX_QUERY: usize = 32 * 1024;
const MAX_STATE: usize = 512;
const MAX_CODE: usize = 8 * 1024;
const MAX_ISS: usize = 2048;
/// Further parameters: their number, and the size of each.
const MAX_FURTHER: usize = 32;
const MAX_FURTHER_NAME: usize = 64;
const MAX_FURTHER_VALUE: usize = 1024;
const KNOWN: [&str; 6] = ["state", "code", "iss", "error", "error_description", "error_uri"];

/// A parsed authorization response. Anything unparseable, such as a repeated parameter, is refused.
#[derive(Clone, Debug)]
pub struct AuthorizationResponse {
    /// The `state`.
    pub state: Secret,
    /// The issuer, if given (RFC 9207).
    pub iss: Option<String>,
    /// Code or error. The error is reduced to the characters of RFC 6749 section 4.1.2.1; its
    /// description, which anybody can write into a link, is not kept.
    pub result: Result<Secret, String>,
    /// Everything else, of which some servers' answers have what an API needs later.
    pub further: FurtherParams,
}

/// Parameters of an authorization response beyond those of the RFCs: anybody can write them into a
/// link, so they are few, short, and only kept if the profile's provider is known for them. Only names
/// are printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FurtherParams(Vec<(String, String)>);

impl FurtherParams {
    fn parse(query: &str) -> Self {
        let further = form_urlencoded::parse(query.as_bytes()).filter(|(name, value)| {
            let fits = name.len() <= MAX_FURTHER_NAME && value.len() <= MAX_FURTHER_VALUE;
            fits && !KNOWN.contains(&&**name) && !value.is_empty() && !value.chars().any(char::is_control)
        });
        Self(further.take(MAX_FURTHER).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// Those with one of `names`. One that was sent more than once says nothing.
    pub fn only(&self, names: &[String]) -> BTreeMap<String, String> {
        let of = |name: &str| {
            let mut values = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
            match (values.next(), values.next()) {
                (Some(value), None) => Some(value.clone()),
                _ => None,
            }
        };
        names.iter().filter_map(|name| Some((name.clone(), of(name)?))).collect()
    }
}

/// Why a query is no authorization response. Always the sender's fault; nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthorizationResponseError {
    /// More than 32 KiB.
    #[error("the authorization response is longer than {MAX_QUERY} bytes")]
    TooLong,
    /// RFC 6749 section 3.1: parameters must not be included more than once.
    #[error("the authorization response has {0} more than once")]
    Repeated(&'static str),
    /// No `state`: it cannot be tied to any request of ours.
    #[error("the authorization response has no state")]
    NoState,
    /// A value too long, or with characters that it may not have.
    #[error("the authorization response's {0} is too long or has characters it may not have")]
    Unreadable(&'static str),
    /// Neither code nor error.
    #[error("the authorization response has neither code nor error")]
    Empty,
    /// Both code and error.
    #[error("the authorization response has both code and error")]
    Contradictory,
}

impl AuthorizationResponse {
    /// Reads the query of the redirection endpoint, without its `?`. Unknown parameters are
    /// ignored; empty ones count as absent (RFC 6749 section 3.1).
    pub fn parse(query: &str) -> Result<Self, AuthorizationResponseError> {
        use AuthorizationResponseError as Error;
        if query.len() > MAX_QUERY {
            return Err(Error::TooLong);
        }
        let state = one(query, "state")?.ok_or(Error::NoState)?;
        let code = one(query, "code")?;
        let error = one(query, "error")?;
        let iss = one(query, "iss")?;
        one(query, "error_description")?;
        one(query, "error_uri")?;

        if iss.as_ref().is_some_and(|iss| iss.len() > MAX_ISS || iss.chars().any(char::is_control)) {
            return Err(Error::Unreadable("iss"));
        }
        let result = match (code, error) {
            (Some(code), None) => Ok(visible(code, "code", MAX_CODE)?),
            (None, Some(error)) => match error_code(&error) {
                code if code.is_empty() => return Err(Error::Unreadable("error")),
                code => Err(code),
            },
            (Some(_), Some(_)) => return Err(Error::Contradictory),
            (None, None) => return Err(Error::Empty),
        };
        Ok(Self {
            state: visible(state, "state", MAX_STATE)?,
            iss: iss.map(Cow::into_owned),
            result,
            further: FurtherParams::parse(query),
        })
    }
}

fn one<'q>(query: &'q str, name: &'static str) -> Result<Option<Cow<'q, str>>, AuthorizationResponseError> {
    let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(known, _)| known == name);
    let first = found.next().map(|(_, value)| value).filter(|value| !value.is_empty());
    if found.next().is_some() {
        return Err(AuthorizationResponseError::Repeated(name));
    }
    Ok(first)
}

fn visible(text: Cow<'_, str>, name: &'static str, max: usize) -> Result<Secret, AuthorizationResponseError> {
    if text.len() > max || !text.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(AuthorizationResponseError::Unreadable(name));
    }
    Ok(Secret::new(text))
}

impl fmt::Debug for FurtherParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use AuthorizationResponseError as Error;
    use proptest::prelude::*;

    fn refused(query: &str) -> Error {
        AuthorizationResponse::parse(query).expect_err(query)
    }

    #[test]
    fn a_code_is_read_with_state_and_issuer() {
        // RFC 9207 section 2.1.
        let query = "code=x1848ZT64p4IirMPT0R-X3141MFPTuBX-VFL_cvaplMH58\
                     &state=ZWVlNDBlYzA1NjdkMDNhYjg3ZjUxZjAyNGQzMTM2NzI\
                     &iss=https%3A%2F%2Fhonest.as.example";
        let response = AuthorizationResponse::parse(query).unwrap();
        assert_eq!(response.iss.as_deref(), Some("https://honest.as.example"));
        assert_eq!(response.state.expose(), "ZWVlNDBlYzA1NjdkMDNhYjg3ZjUxZjAyNGQzMTM2NzI");
        let code = response.result.unwrap();
        assert_eq!(code.expose(), "x1848ZT64p4IirMPT0R-X3141MFPTuBX-VFL_cvaplMH58");
    }

    #[test]
    fn an_error_is_kept_as_its_code_only() {
        // RFC 6749 section 4.1.2.1.
        let response =
            AuthorizationResponse::parse("error=access_denied&state=xyz&error_description=no%0a").unwrap();
        assert_eq!(response.result.unwrap_err(), "access_denied");
        let response = AuthorizationResponse::parse("error=%3Cb%3E%0d%0a%22x&state=xyz").unwrap();
        assert_eq!(response.result.unwrap_err(), "<b>x");
    }

    #[test]
    fn further_parameters_are_kept_by_name_if_they_are_clear() {
        let query = "code=a&state=b&realmId=4620816365&x=1&x=2&long=".to_owned() + &"l".repeat(2000);
        let further = AuthorizationResponse::parse(&query).unwrap().further;
        let kept = further.only(&["realmId", "x", "long", "code", "absent"].map(str::to_owned));
        assert_eq!(kept, BTreeMap::from([("realmId".to_owned(), "4620816365".to_owned())]));
        let many: String = (0..100).map(|n| format!("&p{n}=v")).collect();
        let further = AuthorizationResponse::parse(&format!("code=a&state=b{many}")).unwrap().further;
        assert_eq!(further.0.len(), MAX_FURTHER);
        let further = AuthorizationResponse::parse("code=a&state=b&access_token=s3cr3t").unwrap().further;
        assert_eq!(format!("{further:?}"), r#"{"access_token"}"#);
    }

    #[test]
    fn repeated_parameters_are_refused() {
        assert_eq!(refused("code=a&state=b&state=b"), Error::Repeated("state"));
        assert_eq!(refused("code=a&code=b&state=b"), Error::Repeated("code"));
        assert_eq!(refused("code=a&state=b&iss=c&iss=d"), Error::Repeated("iss"));
        assert_eq!(refused("code=a&state=b&%69ss=c&iss="), Error::Repeated("iss"));
        assert_eq!(refused("error=a&error=&state=b"), Error::Repeated("error"));
        assert_eq!(
            refused("error=a&state=b&error_description=c&error_description=d"),
            Error::Repeated("error_description")
        );
    }

    #[test]
    fn exactly_one_of_code_and_error_and_a_state_are_needed() {
        assert_eq!(refused("code=a"), Error::NoState);
        assert_eq!(refused("code=a&state="), Error::NoState);
        assert_eq!(refused(""), Error::NoState);
        assert_eq!(refused("state=a"), Error::Empty);
        assert_eq!(refused("state=a&code="), Error::Empty);
        assert_eq!(refused("state=a&code=b&error=c"), Error::Contradictory);
    }

    #[test]
    fn sizes_and_characters_are_bounded() {
        assert_eq!(refused(&format!("code=a&state={}", "s".repeat(513))), Error::Unreadable("state"));
        assert_eq!(refused(&format!("state=a&code={}", "c".repeat(8193))), Error::Unreadable("code"));
        assert_eq!(refused(&format!("state=a&x={}", "c".repeat(MAX_QUERY))), Error::TooLong);
        assert_eq!(refused("state=a&code=b%00"), Error::Unreadable("code"));
        assert_eq!(refused("state=a&code=b%ff"), Error::Unreadable("code"));
        assert_eq!(refused("state=a%20b&code=b"), Error::Unreadable("state"));
        assert_eq!(refused("state=a&code=b&iss=x%0ay"), Error::Unreadable("iss"));
        assert_eq!(refused("state=a&error=%22"), Error::Unreadable("error"));
    }

    proptest! {
        #[test]
        fn no_query_panics_and_no_control_character_passes(
            query in prop_oneof![".{0,200}", "(code|state|iss|error)=[ -~%]{0,20}(&(code|state|iss|error)=(%[0-9a-f]{2}|[a-z]){0,9}){0,4}"]
        ) {
            if let Ok(response) = AuthorizationResponse::parse(&query) {
                let clean = |text: &str| !text.is_empty() && text.bytes().all(|b| (0x20..=0x7e).contains(&b));
                prop_assert!(clean(response.state.expose()));
                prop_assert!(response.iss.is_none_or(|iss| !iss.chars().any(char::is_control)));
                let result = response.result.unwrap_or_else(Secret::new);
                prop_assert!(clean(result.expose()));
            }
        }
    }
}
