//! Scopes (RFC 6749 section 3.3).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A scope token with a character that RFC 6749 section 3.3 does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "scope {0:?} is empty or has a character other than printable ASCII without space, quote and backslash"
)]
pub struct ScopeError(pub String);

/// A set of scope tokens, kept in order so that two equal sets print alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeSet(BTreeSet<String>);

impl ScopeSet {
    /// Checks and gathers scope tokens, such as a configuration's list.
    pub fn from_tokens<I: IntoIterator<Item = S>, S: Into<String>>(tokens: I) -> Result<Self, ScopeError> {
        tokens.into_iter().map(|token| checked(token.into())).collect::<Result<_, _>>().map(Self)
    }

    /// Reads the space-delimited form of a token response.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        Self::from_tokens(text.split(' ').filter(|token| !token.is_empty()))
    }

    /// Whether no scope is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `token` is in the set.
    pub fn contains(&self, token: &str) -> bool {
        self.0.contains(token)
    }

    /// Whether every scope of `other` is in this set.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.is_superset(&other.0)
    }

    /// Every scope of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_empty() { self.clone() } else { Self(self.0.union(&other.0).cloned().collect()) }
    }

    /// Every scope of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// The scopes of this set that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// The wire form with another separator than a space.
    pub fn joined(&self, separator: char) -> String {
        self.iter().collect::<Vec<_>>().join(separator.encode_utf8(&mut [0; 4]))
    }

    /// The tokens, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for ScopeSet {
    /// The space-delimited wire form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, token) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(token)?;
        }
        Ok(())
    }
}

fn checked(token: String) -> Result<String, ScopeError> {
    let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if token.is_empty() || !token.bytes().all(allowed) {
        return Err(ScopeError(token));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn equal_sets_print_alike_whatever_their_order_and_spacing() {
        let scopes = ScopeSet::parse("openid  mail openid ").unwrap();
        assert_eq!(scopes.to_string(), "mail openid");
        assert_eq!(scopes, ScopeSet::from_tokens(["mail", "openid"]).unwrap());
        assert!(ScopeSet::parse("").unwrap().is_empty());
    }

    #[test]
    fn only_the_characters_of_rfc_6749_section_3_3_are_allowed() {
        assert!(ScopeSet::parse("https://www.googleapis.com/auth/calendar !#[]~").is_ok());
        for bad in ["a\"b", "a\\b", "a\tb", "a\nb", "é", "\u{7f}"] {
            assert_eq!(ScopeSet::parse(bad), Err(ScopeError(bad.to_owned())));
        }
        assert!(ScopeSet::from_tokens([""]).is_err());
        assert!(ScopeSet::from_tokens(["a b"]).is_err());
    }

    #[test]
    fn a_set_covers_its_parts_only() {
        let (all, part) = (ScopeSet::parse("a b c").unwrap(), ScopeSet::parse("c a").unwrap());
        assert!(all.covers(&part) && all.covers(&all) && all.covers(&ScopeSet::default()));
        assert!(!part.covers(&all));
        assert!(part.contains("a") && !part.contains("b"));
    }
}
