//! SAML 2.0 assertions as authorization grants (RFC 7522, SAML Core).
//!
//! `assertion` builds one, `form` fills in an own one, `signature` signs either in the form that
//! `canonical` writes, `check` reads one that somebody else made.

pub mod assertion;
pub mod canonical;
pub mod check;
pub mod form;
pub mod signature;

use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};
use thiserror::Error;

use super::signing_key::{KeyError, SignatureAlgorithm};
use super::template::TemplateError;
use crate::clock::{Entropy, Timestamp};

/// Namespace of SAML 2.0 assertions (SAML Core section 1.2).
pub const SAML: &str = "urn:oasis:names:tc:SAML:2.0:assertion";

/// Namespace of XML signatures (XML-DSig section 1.3).
pub const XML_DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";

/// Elements, texts and the like that a document may have.
const MOST_NODES: u32 = 100_000;

/// Why an assertion cannot be built, signed or used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SamlError {
    /// A value that XML 1.0 cannot carry (section 2.2).
    #[error("{what} has a character that XML cannot carry (U+{code:04X})")]
    Character {
        /// Where it stands.
        what: String,
        /// The character.
        code: u32,
    },
    /// An empty value where SAML wants one.
    #[error("{0} is empty")]
    Empty(String),
    /// Not well-formed, or with a document type declaration.
    #[error("is no XML that can be used: {0}")]
    NotXml(String),
    /// It is another document.
    #[error("must have one saml:Assertion of version 2.0 as its outermost element")]
    NotAnAssertion,
    /// There is another assertion in it.
    #[error("has {0} assertions; there must be one")]
    SeveralAssertions(usize),
    /// `ID` is not the one given to it.
    #[error(
        "must have ID=\"{{id}}\" at its saml:Assertion and nowhere else, so that every assertion is told apart"
    )]
    Id,
    /// `Issuer` does not come first (SAML Core section 2.3.3).
    #[error("must begin with one saml:Issuer; the signature follows it")]
    Issuer,
    /// It has a signature already.
    #[error("has a signature already; it is signed here")]
    Signed,
    /// XML-DSig has no name for the algorithm.
    #[error("cannot be signed with {0}; use RS256, RS384, RS512, ES256 or ES384")]
    Algorithm(SignatureAlgorithm),
    /// The key did not sign.
    #[error("could not be signed: the key {0}")]
    Signing(#[from] KeyError),
    /// Nested deeper than [`canonical::DEEPEST`].
    #[error("has elements in each other, more than {} deep", canonical::DEEPEST)]
    TooDeep,
    /// A placeholder of an own form, or its value.
    #[error(transparent)]
    Form(#[from] TemplateError),
    /// Neither XML nor base64 of it.
    #[error("is neither base64url nor base64 of an XML document")]
    Encoding,
    /// Larger than [`check::LARGEST`].
    #[error("is larger than {} bytes", check::LARGEST)]
    TooLarge,
    /// Nothing limits its life (RFC 7522 section 3, item 4).
    #[error("has no NotOnOrAfter, so that no server may take it")]
    NoExpiry,
    /// A moment that is none.
    #[error("has a NotOnOrAfter that is no time in UTC: {0}")]
    Time(String),
    /// It is over.
    #[error("ended at {0}; a new one is needed")]
    Ended(Timestamp),
}

/// A new identifier of 128 random bits (SAML Core section 1.3.4), a valid `xs:ID`.
pub fn new_id(entropy: &dyn Entropy) -> String {
    let mut bytes = [0u8; 16];
    entropy.fill(&mut bytes);
    let mut id = String::with_capacity(33);
    id.push('_');
    for byte in bytes {
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// Writes `text` so that it reads back as itself in an element or an attribute, in the form that
/// exclusive canonicalisation gives it there. `what` names it in the error.
fn escape(text: &str, what: &str, place: In, out: &mut String) -> Result<(), SamlError> {
    for character in text.chars() {
        match (character, place) {
            ('&', _) => out.push_str("&amp;"),
            ('<', _) => out.push_str("&lt;"),
            ('>', In::Text | In::Either) => out.push_str("&gt;"),
            ('"', In::Attribute | In::Either) => out.push_str("&quot;"),
            ('\'', In::Either) => out.push_str("&#39;"),
            ('\r', _) => out.push_str("&#xD;"),
            ('\n', In::Attribute | In::Either) => out.push_str("&#xA;"),
            ('\t', In::Attribute | In::Either) => out.push_str("&#x9;"),
            ('\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'.., _) => out.push(character),
            (other, _) => {
                return Err(SamlError::Character { what: what.to_owned(), code: u32::from(other) });
            }
        }
    }
    Ok(())
}

/// Where a text stands.
#[derive(Clone, Copy)]
enum In {
    Text,
    Attribute,
    /// It is not known; reads back right in both.
    Either,
}

/// Reads a document. A document type declaration is refused: assertions have none, and attacks do.
fn parse(xml: &str) -> Result<Document<'_>, SamlError> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(xml, options).map_err(|error| SamlError::NotXml(error.to_string()))
}

/// The outermost element, which must be an assertion of version 2.0.
fn root<'a, 'i>(document: &'a Document<'i>) -> Result<Node<'a, 'i>, SamlError> {
    let root = document.root_element();
    let fits = root.has_tag_name((SAML, "Assertion")) && root.attribute("Version") == Some("2.0");
    if fits { Ok(root) } else { Err(SamlError::NotAnAssertion) }
}

/// There is one assertion: `document`'s outermost element.
fn alone(document: &Document<'_>) -> Result<(), SamlError> {
    let all = document.descendants().filter(|node| node.has_tag_name((SAML, "Assertion"))).count();
    if all == 1 { Ok(()) } else { Err(SamlError::SeveralAssertions(all)) }
}

/// The `Issuer`, which must be the first element of the assertion `root`.
fn issuer<'a, 'i>(root: Node<'a, 'i>) -> Result<Node<'a, 'i>, SamlError> {
    let first = root.first_element_child();
    first.filter(|first| first.has_tag_name((SAML, "Issuer"))).ok_or(SamlError::Issuer)
}

#[cfg(test)]
mod tests;
