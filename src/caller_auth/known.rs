//! Who has just been told by a credential on the same connection: the same credential again costs no
//! more than a comparison.

use std::cell::RefCell;
use std::fmt;

use actix_web::http::header::AUTHORIZATION;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use claviger_actors::clock::Timestamp;
use zeroize::Zeroizing;

use super::{AuthenticatedCaller, CallerAuthError, CallerDirectory, Presented, X_API_KEY};

/// What one connection remembers of its caller.
#[derive(Default)]
pub struct KnownCaller(RefCell<Option<Known>>);

struct Known {
    /// Which directory told.
    directory: u64,
    authorization: Zeroizing<Vec<u8>>,
    caller: AuthenticatedCaller,
}

impl fmt::Debug for KnownCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownCaller")
    }
}

impl CallerDirectory {
    /// As [`CallerDirectory::authenticate`], on a connection that remembers.
    ///
    /// # Errors
    /// [`CallerAuthError`].
    pub async fn authenticate_on(
        &self,
        known: &KnownCaller,
        presented: Presented<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedCaller, CallerAuthError> {
        let authorization = sole_credential(presented);
        if let Some(sent) = authorization
            && let Some(known) = &*known.0.borrow()
            && known.directory == self.number
            && now < known.caller.until
            && verify_slices_are_equal(&known.authorization, sent).is_ok()
        {
            return Ok(known.caller.clone());
        }
        let caller = Box::pin(self.authenticate(presented, now)).await?;
        if let Some(sent) = authorization {
            let authorization = Zeroizing::new(sent.to_vec());
            known.0.replace(Some(Known { directory: self.number, authorization, caller: caller.clone() }));
        }
        Ok(caller)
    }
}

/// `Authorization`, if it is there once and no request's credential beside it.
fn sole_credential(presented: Presented<'_>) -> Option<&[u8]> {
    let mut values = presented.headers.get_all(AUTHORIZATION);
    let value = values.next().filter(|_| values.next().is_none())?;
    (!presented.headers.contains_key(X_API_KEY)).then(|| value.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeSet;

    use actix_web::http::header::{HeaderMap, HeaderValue};
    use claviger_actors::protocol::identifiers::CallerId;
    use claviger_actors::protocol::secret::Secret;

    use super::super::jwt::tests::no_transport;
    use super::super::{BasicCredential, Caller, ConfiguredCaller};
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn directory(password: &str) -> CallerDirectory {
        let id = CallerId::new("billing").unwrap();
        let caller = Caller { id, routes: BTreeSet::new(), may_name_subject: false, rate: None };
        let password_hash = Secret::new(super::super::hash_secret(&Secret::new(password)).unwrap());
        let basic = BasicCredential { username: "billing".to_owned(), password_hash };
        let configured = ConfiguredCaller { basic: Some(basic), ..ConfiguredCaller::new(caller) };
        CallerDirectory::new([configured], &no_transport())
    }

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[actix_web::test]
    async fn only_the_very_same_credential_is_known_again() {
        // billing:one, billing:two
        let (one, two) = ("Basic YmlsbGluZzpvbmU=", "Basic YmlsbGluZzp0d28=");
        let (first, second) = (directory("one"), directory("two"));
        let known = KnownCaller::default();
        let ask = async |directory: &CallerDirectory, values: &[&'static str], now: Timestamp| {
            let headers = headers(values);
            directory.authenticate_on(&known, (&headers).into(), now).await.map(|caller| caller.until)
        };
        let until = ask(&first, &[one], NOW).await.unwrap();
        assert_eq!(ask(&first, &[one], NOW).await, Ok(until));
        assert_eq!(ask(&first, &[two], NOW).await, Err(CallerAuthError::Refused));
        assert_eq!(ask(&first, &[], NOW).await, Err(CallerAuthError::Absent));
        assert_eq!(ask(&first, &[one, one], NOW).await, Err(CallerAuthError::Ambiguous));
        // What another directory says is another matter.
        assert_eq!(ask(&second, &[one], NOW).await, Err(CallerAuthError::Refused));
        // A verdict ends here, too.
        assert!(ask(&first, &[one], until).await.unwrap() > until);
    }
}
