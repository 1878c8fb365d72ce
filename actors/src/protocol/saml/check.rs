//! Reads an assertion that somebody else made and signed, before it is sent on (RFC 7522 section 3).
//!
//! Only what the authorization server would surely refuse is refused here: whether the signature is
//! one that it trusts, it alone knows.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use roxmltree::Node;
use zeroize::Zeroizing;

use super::{SAML, SamlError, alone, parse, root};
use crate::clock::Timestamp;

/// Largest assertion taken, in bytes of XML.
pub const LARGEST: usize = 64 * 1024;

/// How far clocks may differ.
const SKEW: Duration = Duration::from_secs(30);

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The XML of an assertion that is given as such, in base64 or in base64url, with or without
/// padding.
///
/// # Errors
/// [`SamlError::Encoding`], [`SamlError::TooLarge`].
pub fn decode(given: &str) -> Result<Zeroizing<String>, SamlError> {
    let given = given.trim();
    // Base64 makes four characters of three bytes.
    if given.len() > LARGEST / 3 * 4 + 4 {
        return Err(SamlError::TooLarge);
    }
    let xml = if given.starts_with('<') {
        Zeroizing::new(given.to_owned())
    } else {
        let bytes = BASE64URL.decode(given).or_else(|_| BASE64.decode(given));
        let text = String::from_utf8(bytes.map_err(|_| SamlError::Encoding)?);
        Zeroizing::new(text.map_err(|_| SamlError::Encoding)?)
    };
    if xml.len() > LARGEST {
        return Err(SamlError::TooLarge);
    }
    Ok(xml)
}

/// Whether `xml` may be sent on: well-formed, without a document type declaration, one assertion of
/// version 2.0, and not over at `now`.
///
/// # Errors
/// What is wrong with it.
pub fn check(xml: &str, now: Timestamp) -> Result<(), SamlError> {
    let document = parse(xml)?;
    let root = root(&document)?;
    alone(&document)?;
    let ends = end(root)?.ok_or(SamlError::NoExpiry)?;
    if now >= ends.after(SKEW) { Err(SamlError::Ended(ends)) } else { Ok(()) }
}

/// When it is over: at the end of its conditions, or of the last confirmation that holds.
fn end(root: Node<'_, '_>) -> Result<Option<Timestamp>, SamlError> {
    let mut conditions = None;
    for node in below(root, "Conditions") {
        conditions = earlier(conditions, not_on_or_after(node)?);
    }
    let mut confirmed = None;
    for subject in below(root, "Subject") {
        for confirmation in below(subject, "SubjectConfirmation") {
            for data in below(confirmation, "SubjectConfirmationData") {
                confirmed = confirmed.max(not_on_or_after(data)?);
            }
        }
    }
    Ok(earlier(conditions, confirmed))
}

fn below<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.has_tag_name((SAML, name)))
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// SAML Core section 1.3.3: an `xs:dateTime` in UTC.
fn not_on_or_after(node: Node<'_, '_>) -> Result<Option<Timestamp>, SamlError> {
    let Some(text) = node.attribute("NotOnOrAfter") else { return Ok(None) };
    let wrong = || SamlError::Time(text.chars().take(40).filter(|c| !c.is_control()).collect());
    let in_utc = if text.ends_with('Z') { text.to_owned() } else { format!("{text}Z") };
    let time = humantime::parse_rfc3339(&in_utc).map_err(|_| wrong())?;
    let since_epoch = time.duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
    let millis = u64::try_from(since_epoch.as_millis()).map_err(|_| wrong())?;
    Ok(Some(Timestamp::from_millis(millis)))
}
