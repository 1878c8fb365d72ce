//! Enveloped signatures (XML-DSig section 6.6.4) over a whole assertion, with exclusive
//! canonicalisation, as SAML Core section 5.4 has them.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bergshamra_c14n::{C14nMode, canonicalize_doc};
use uppsala::{Document, NodeId};
use zeroize::Zeroizing;

use super::{SAML, SamlError, XML_DSIG, attribute, elements, is, parse, root};

const EXCLUSIVE_C14N: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";

/// A signature algorithm by its JOSE name, as XML-DSig and RFC 6931 call it and its digest.
struct Method {
    jose: &'static str,
    signature: &'static str,
    digest: &'static str,
    hash: &'static digest::Algorithm,
}

const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const SHA512: &str = "http://www.w3.org/2001/04/xmlenc#sha512";

static METHODS: [Method; 6] = [
    Method {
        jose: "RS256",
        signature: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
        digest: SHA256,
        hash: &digest::SHA256,
    },
    Method {
        jose: "RS384",
        signature: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
        digest: SHA384,
        hash: &digest::SHA384,
    },
    Method {
        jose: "RS512",
        signature: "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
        digest: SHA512,
        hash: &digest::SHA512,
    },
    Method {
        jose: "ES256",
        signature: "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
        digest: SHA256,
        hash: &digest::SHA256,
    },
    Method {
        jose: "ES384",
        signature: "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
        digest: SHA384,
        hash: &digest::SHA384,
    },
    Method {
        jose: "ES512",
        signature: "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",
        digest: SHA512,
        hash: &digest::SHA512,
    },
];

fn method(jose: &str) -> Result<&'static Method, SamlError> {
    let found = METHODS.iter().find(|method| method.jose == jose);
    found.ok_or_else(|| SamlError::Algorithm(jose.to_owned()))
}

/// What a signature needs to be known of its key.
pub(super) struct Signer<'a> {
    /// JOSE name of the algorithm.
    pub(super) algorithm: &'a str,
    /// DER, the key's own first; none means no `KeyInfo`.
    pub(super) certificates: Vec<&'a [u8]>,
    /// Signs bytes; ECDSA as `r || s` (XML-DSig section 6.4.3).
    pub(super) sign: &'a dyn Fn(&[u8]) -> Result<Vec<u8>, String>,
}

/// Signs the assertion `xml`, whose `ID` must be `id`. The signature stands right behind `Issuer`
/// (SAML Core section 2.3.3); nothing else is changed. What stands around the assertion, such as an
/// XML declaration, is left out.
pub(super) fn sign_with(xml: &str, id: &str, signer: &Signer<'_>) -> Result<Zeroizing<String>, SamlError> {
    let method = method(signer.algorithm)?;
    let around = parse(xml)?;
    let xml = around.node_source(root(&around)?).unwrap_or(xml);
    let document = parse(xml)?;
    let root = root(&document)?;
    let place = place(&document, root, id)?;

    let canonical = canonical(&document)?;
    let digest = STANDARD.encode(digest::digest(method.hash, &canonical));
    // Twice the same, but for the namespace: canonical on its own it declares what it uses, in the
    // assertion the element around it does.
    let info = |namespace: &str| signed_info(namespace, method, id, &digest);
    let alone = info(&format!(" xmlns:ds=\"{XML_DSIG}\""));
    let value = (signer.sign)(alone.as_bytes()).map_err(SamlError::Signing)?;

    let mut signature = format!(
        "<ds:Signature xmlns:ds=\"{XML_DSIG}\">{}<ds:SignatureValue>{}</ds:SignatureValue>",
        info(""),
        STANDARD.encode(value)
    );
    if !signer.certificates.is_empty() {
        signature.push_str("<ds:KeyInfo><ds:X509Data>");
        for certificate in &signer.certificates {
            signature.push_str("<ds:X509Certificate>");
            STANDARD.encode_string(certificate, &mut signature);
            signature.push_str("</ds:X509Certificate>");
        }
        signature.push_str("</ds:X509Data></ds:KeyInfo>");
    }
    signature.push_str("</ds:Signature>");

    let (before, after) = xml.split_at_checked(place).ok_or(SamlError::Issuer)?;
    let mut signed = Zeroizing::new(String::with_capacity(xml.len() + signature.len()));
    for piece in [before, &signature, after] {
        signed.push_str(piece);
    }
    Ok(signed)
}

/// Where the signature goes: behind the `Issuer`, the first element of the assertion.
fn place(document: &Document<'_>, root: NodeId, id: &str) -> Result<usize, SamlError> {
    if attribute(document, root, "ID") != Some(id) {
        return Err(SamlError::Id);
    }
    if !document.get_elements_by_tag_name_ns(XML_DSIG, "Signature").is_empty() {
        return Err(SamlError::Signed);
    }
    let all = document.get_elements_by_tag_name_ns(SAML, "Assertion").len();
    if all != 1 {
        return Err(SamlError::SeveralAssertions(all));
    }
    let first = elements(document, root).first().copied();
    let issuer = first.filter(|first| is(document, *first, SAML, "Issuer")).ok_or(SamlError::Issuer)?;
    document.node_range(issuer).map(|range| range.end).ok_or(SamlError::Issuer)
}

/// The exclusive canonical form, without comments, of the whole document.
pub(super) fn canonical(document: &Document<'_>) -> Result<Vec<u8>, SamlError> {
    canonicalize_doc::<&str>(document, C14nMode::Exclusive, None, &[])
        .map_err(|error| SamlError::NotXml(error.to_string()))
}

/// `SignedInfo`, in canonical form if `namespace` declares the prefix.
fn signed_info(namespace: &str, method: &Method, id: &str, digest: &str) -> String {
    let Method { signature, digest: digest_method, .. } = method;
    format!(
        "<ds:SignedInfo{namespace}>\
         <ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE_C14N}\"></ds:CanonicalizationMethod>\
         <ds:SignatureMethod Algorithm=\"{signature}\"></ds:SignatureMethod>\
         <ds:Reference URI=\"#{id}\"><ds:Transforms>\
         <ds:Transform Algorithm=\"{ENVELOPED}\"></ds:Transform>\
         <ds:Transform Algorithm=\"{EXCLUSIVE_C14N}\"></ds:Transform></ds:Transforms>\
         <ds:DigestMethod Algorithm=\"{digest_method}\"></ds:DigestMethod>\
         <ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )
}
