//! Private keys as JWK (RFC 7517, RFC 7518 section 6, RFC 8037 section 2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Material;
use super::algorithm::KeyType;
use super::error::KeyError;
use super::pair::{Pair, RsaNumbers};
use crate::protocol::strict_json;

/// Reads a private JWK, with its own `kid`, `alg` and `x5c`.
pub(super) fn read(json: &[u8]) -> Result<Material, KeyError> {
    let members = strict_json::object(json).map_err(|_| KeyError::Unreadable)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let pair = match (text("kty").ok_or(KeyError::JwkMember("kty"))?, text("crv")) {
        ("RSA", _) => rsa(&members)?,
        ("EC", Some("P-256")) => ec(KeyType::P256, 32, &members)?,
        ("EC", Some("P-384")) => ec(KeyType::P384, 48, &members)?,
        ("OKP", Some("Ed25519")) => {
            let (seed, public) = (private(&members, "d")?, bytes(&members, "x")?);
            Pair::from_seed(&seed, &public)?
        }
        ("oct", _) => return Err(KeyError::Unsupported("symmetric (oct)".into())),
        (kty, crv) => return Err(KeyError::Unsupported(format!("{kty} {}", crv.unwrap_or_default()))),
    };
    let mut material = Material::of(vec![pair], chain(&members)?)?;
    material.kid = text("kid").filter(|kid| !kid.is_empty()).map(str::to_owned);
    material.algorithm = match text("alg") {
        None => None,
        Some(alg) => Some(alg.parse().map_err(|_| KeyError::JwkMember("alg"))?),
    };
    Ok(material)
}

fn rsa(members: &Map<String, Value>) -> Result<Pair, KeyError> {
    let d = private(members, "d")?;
    let part = |name| bytes(members, name);
    let ((n, e), (p, q)) = ((part("n")?, part("e")?), (part("p")?, part("q")?));
    let (dp, dq, qi) = (part("dp")?, part("dq")?, part("qi")?);
    if members.contains_key("oth") {
        return Err(KeyError::Unsupported("multi-prime RSA".into()));
    }
    Pair::from_rsa(&RsaNumbers { n: &n, e: &e, d: &d, p: &p, q: &q, dp: &dp, dq: &dq, qi: &qi })
}

fn ec(curve: KeyType, length: usize, members: &Map<String, Value>) -> Result<Pair, KeyError> {
    let (d, x, y) = (private(members, "d")?, bytes(members, "x")?, bytes(members, "y")?);
    // RFC 7518 section 6.2.1: each as long as the curve's field.
    if [&d, &x, &y].iter().any(|number| number.len() != length) {
        return Err(KeyError::Damaged("EC"));
    }
    let point = [&[0x04][..], &x, &y].concat();
    Pair::from_point(curve, &d, &point)
}

/// A member that only a private key has.
fn private(members: &Map<String, Value>, name: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if members.contains_key(name) { bytes(members, name) } else { Err(KeyError::NoPrivateKey) }
}

fn bytes(members: &Map<String, Value>, name: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = members.get(name).and_then(Value::as_str).ok_or(KeyError::JwkMember(name))?;
    URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map(Zeroizing::new)
        .map_err(|_| KeyError::JwkMember(name))
}

/// The certificates of `x5c` (RFC 7517 section 4.7): base64, not base64url.
fn chain(members: &Map<String, Value>) -> Result<Vec<Vec<u8>>, KeyError> {
    let Some(chain) = members.get("x5c") else { return Ok(Vec::new()) };
    let chain = chain.as_array().ok_or(KeyError::JwkMember("x5c"))?;
    let decode = |item: &Value| {
        item.as_str().and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
    };
    chain.iter().map(|item| decode(item).ok_or(KeyError::JwkMember("x5c"))).collect()
}
