//! Enveloped signatures (XML-DSig section 6.6.4) over a whole assertion, with exclusive
//! canonicalisation, as SAML Core section 5.4 has them.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::canonical::canonical;
use super::{SamlError, XML_DSIG, alone, issuer, parse, root};
use crate::protocol::signing_key::{SignatureAlgorithm, SigningKey};

const EXCLUSIVE_C14N: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";

/// A signature algorithm as XML-DSig calls it (RFC 9231 sections 2.3.2 and 2.3.6), and its digest.
struct Method {
    signature: &'static str,
    digest: &'static str,
    hash: &'static digest::Algorithm,
}

const MORE: &str = "http://www.w3.org/2001/04/xmldsig-more#";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const SHA512: &str = "http://www.w3.org/2001/04/xmlenc#sha512";

fn method(algorithm: SignatureAlgorithm) -> Result<Method, SamlError> {
    let (signature, digest, hash) = match algorithm {
        SignatureAlgorithm::Rs256 => ("rsa-sha256", SHA256, &digest::SHA256),
        SignatureAlgorithm::Rs384 => ("rsa-sha384", SHA384, &digest::SHA384),
        SignatureAlgorithm::Rs512 => ("rsa-sha512", SHA512, &digest::SHA512),
        SignatureAlgorithm::Es256 => ("ecdsa-sha256", SHA256, &digest::SHA256),
        SignatureAlgorithm::Es384 => ("ecdsa-sha384", SHA384, &digest::SHA384),
        other => return Err(SamlError::Algorithm(other)),
    };
    Ok(Method { signature, digest, hash })
}

/// Whether `key` signs with an algorithm that XML signatures have a name for and servers know.
///
/// # Errors
/// [`SamlError::Algorithm`].
pub fn check_algorithm(key: &SigningKey) -> Result<(), SamlError> {
    method(key.algorithm()).map(drop)
}

/// Signs the assertion `xml`, whose `ID` must be `id`. The signature stands right behind `Issuer`
/// (SAML Core section 2.3.3); nothing else is changed. What stands around the assertion, such as an
/// XML declaration, is left out. The key's certificates stand in `KeyInfo`, if it has any.
///
/// # Errors
/// What is wrong with the assertion, [`SamlError::Algorithm`], [`SamlError::Signing`].
pub fn sign(xml: &str, id: &str, key: &SigningKey) -> Result<Zeroizing<String>, SamlError> {
    let method = method(key.algorithm())?;
    let document = parse(xml)?;
    let root = root(&document)?;
    let ids = document.descendants().flat_map(|node| node.attributes());
    let same = ids.filter(|one| one.name().eq_ignore_ascii_case("id") && one.value() == id).count();
    if root.attribute("ID") != Some(id) || same != 1 {
        return Err(SamlError::Id);
    }
    if document.descendants().any(|node| node.has_tag_name((XML_DSIG, "Signature"))) {
        return Err(SamlError::Signed);
    }
    alone(&document)?;
    let place = issuer(root)?.range().end;

    let digest = STANDARD.encode(digest::digest(method.hash, canonical(root)?.as_bytes()));
    // Twice the same, but for the namespace: canonical on its own it declares what it uses, in the
    // assertion the element around it does.
    let info = |namespace: &str| signed_info(namespace, &method, id, &digest);
    let alone = info(&format!(" xmlns:ds=\"{XML_DSIG}\""));
    let value = key.sign(alone.as_bytes())?;

    let mut signature = format!(
        "<ds:Signature xmlns:ds=\"{XML_DSIG}\">{}<ds:SignatureValue>{}</ds:SignatureValue>",
        info(""),
        STANDARD.encode(value)
    );
    if !key.certificates().is_empty() {
        signature.push_str("<ds:KeyInfo><ds:X509Data>");
        for certificate in key.certificates() {
            signature.push_str("<ds:X509Certificate>");
            STANDARD.encode_string(certificate, &mut signature);
            signature.push_str("</ds:X509Certificate>");
        }
        signature.push_str("</ds:X509Data></ds:KeyInfo>");
    }
    signature.push_str("</ds:Signature>");

    let (before, after) = (&xml[root.range().start..place], &xml[place..root.range().end]);
    let mut signed = Zeroizing::new(String::with_capacity(xml.len() + signature.len()));
    for piece in [before, &signature, after] {
        signed.push_str(piece);
    }
    Ok(signed)
}

/// `SignedInfo`, in canonical form if `namespace` declares the prefix.
fn signed_info(namespace: &str, method: &Method, id: &str, digest: &str) -> String {
    let Method { signature, digest: digest_method, .. } = method;
    format!(
        "<ds:SignedInfo{namespace}>\
         <ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE_C14N}\"></ds:CanonicalizationMethod>\
         <ds:SignatureMethod Algorithm=\"{MORE}{signature}\"></ds:SignatureMethod>\
         <ds:Reference URI=\"#{id}\"><ds:Transforms>\
         <ds:Transform Algorithm=\"{ENVELOPED}\"></ds:Transform>\
         <ds:Transform Algorithm=\"{EXCLUSIVE_C14N}\"></ds:Transform></ds:Transforms>\
         <ds:DigestMethod Algorithm=\"{digest_method}\"></ds:DigestMethod>\
         <ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )
}
