#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jsonwebtoken::{Algorithm, DecodingKey};

use super::*;
use crate::testing::keys;

fn load(material: &[u8]) -> Result<SigningKey, KeyError> {
    SigningKey::load(material, None, None)
}

fn opened(material: &[u8], password: &str) -> Result<SigningKey, KeyError> {
    SigningKey::load(material, Some(&Secret::from(password)), None)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The DER of the first block of a PEM text.
fn der(pem: &[u8]) -> Vec<u8> {
    ::pem::parse(pem).unwrap().into_contents()
}

/// Whether another library believes a signature of `key`, given its published JWK alone.
fn verifies(key: &SigningKey, message: &[u8], signature: &[u8]) -> bool {
    let jwk = key.public_jwk();
    let member = |name: &str| jwk[name].as_str().unwrap().to_owned();
    let verifier = match jwk["kty"].as_str().unwrap() {
        "RSA" => DecodingKey::from_rsa_components(&member("n"), &member("e")).unwrap(),
        "EC" => DecodingKey::from_ec_components(&member("x"), &member("y")).unwrap(),
        _ => DecodingKey::from_ed_components(&member("x")).unwrap(),
    };
    let algorithm: Algorithm = jwk["alg"].as_str().unwrap().parse().unwrap();
    jsonwebtoken::crypto::verify(&URL_SAFE_NO_PAD.encode(signature), message, &verifier, algorithm).unwrap()
}

#[test]
fn every_form_of_one_key_is_that_key() {
    let rsa = load(keys::RSA).unwrap();
    let escaped = text(keys::RSA).trim_end().replace('\n', "\\n");
    let packed = STANDARD.encode(der(keys::RSA));
    let bare = [der(keys::RSA), der(keys::RSA_PKCS1)];
    let forms: [&[u8]; 7] = [
        keys::RSA_PKCS1,
        keys::RSA_CHAIN,
        text(keys::RSA).trim_end().as_bytes(),
        escaped.as_bytes(),
        packed.as_bytes(),
        &bare[0],
        &bare[1],
    ];
    for form in forms {
        assert_eq!(load(form).unwrap(), rsa);
    }
    let packed = STANDARD.encode(keys::RSA_P12);
    for form in [keys::RSA_ENCRYPTED, keys::RSA_P12, keys::RSA_LEGACY_P12, packed.as_bytes()] {
        assert_eq!(opened(form, keys::PASSWORD).unwrap(), rsa);
    }
    assert_eq!(opened(&der(keys::RSA_ENCRYPTED), keys::PASSWORD).unwrap(), rsa);
    assert_eq!(load(rsa.to_pkcs8().unwrap().expose()).unwrap(), rsa);

    let p256 = load(keys::P256).unwrap();
    assert_eq!(load(keys::P256_SEC1).unwrap(), p256);
    assert_eq!(load(&der(keys::P256_SEC1)).unwrap(), p256);
    for key in [p256, load(keys::P384).unwrap(), load(keys::ED25519).unwrap()] {
        assert_eq!(load(key.to_pkcs8().unwrap().expose()).unwrap(), key);
    }
}

#[test]
fn another_library_verifies_every_algorithm() {
    for algorithm in SignatureAlgorithm::ALL {
        let material = match algorithm.key_type() {
            KeyType::Rsa => keys::RSA,
            KeyType::P256 => keys::P256,
            KeyType::P384 => keys::P384,
            KeyType::Ed25519 => keys::ED25519,
        };
        let key = SigningKey::load(material, None, Some(algorithm)).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(verifies(&key, b"message", &signature), "{algorithm}");
        assert!(!verifies(&key, b"another", &signature), "{algorithm}");
        assert_eq!(algorithm.name().parse(), Ok(algorithm));
    }
    assert_eq!("none".parse::<SignatureAlgorithm>(), Err(UnknownAlgorithm));
}

#[test]
fn the_type_of_a_key_decides_its_algorithm() {
    let cases = [
        (keys::RSA, "RS256"),
        (keys::P256, "ES256"),
        (keys::P384, "ES384"),
        (keys::ED25519, "EdDSA"),
        (keys::RFC7515_A3, "ES256"),
    ];
    for (material, name) in cases {
        assert_eq!(load(material).unwrap().algorithm().name(), name);
    }
    let pss = text(keys::RFC7517_A2).replace("RS256", "PS256");
    assert_eq!(load(pss.as_bytes()).unwrap().algorithm(), SignatureAlgorithm::Ps256);
    let rs512 = SigningKey::load(pss.as_bytes(), None, Some(SignatureAlgorithm::Rs512)).unwrap();
    assert_eq!(rs512.algorithm(), SignatureAlgorithm::Rs512);
}

#[test]
fn thumbprints_are_those_of_rfc_7638_and_rfc_8037() {
    let rsa = load(keys::RFC7517_A2).unwrap();
    assert_eq!(rsa.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    let ed25519 = load(keys::RFC8037_A1).unwrap();
    assert_eq!(ed25519.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    assert_eq!(rsa.kid(), "2011-04-29", "a JWK's own name");
    assert_eq!(ed25519.kid(), ed25519.thumbprint());
    assert_eq!(rsa.with_kid("mine").kid(), "mine");
}

#[test]
fn only_the_public_half_is_published_or_printed() {
    let key = load(keys::RFC8037_A1).unwrap();
    let expected = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "alg": "EdDSA", "use": "sig",
    });
    assert_eq!(key.public_jwk(), expected);
    for material in [keys::RSA_CHAIN, keys::P256, keys::P384, keys::ED25519] {
        let key = load(material).unwrap();
        let jwk = key.public_jwk();
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(jwk.get(private).is_none(), "{private}");
        }
    }
    let printed = format!("{key:?} {:?}", key.0.pair);
    assert!(!printed.contains("nWGx") && printed.contains("kPrK"), "{printed}");
}

#[test]
fn the_own_certificate_comes_first_whatever_the_order() {
    let leaf = der(keys::RSA_CERTIFICATE);
    let chain = [leaf.clone(), der(keys::CA_CERTIFICATE)];
    let reversed = [keys::CA_CERTIFICATE, keys::RSA_CERTIFICATE, keys::RSA].concat();
    for key in [load(keys::RSA_CHAIN).unwrap(), load(&reversed).unwrap()] {
        assert_eq!(key.certificates(), chain);
    }
    for store in [keys::RSA_P12, keys::RSA_LEGACY_P12] {
        assert_eq!(opened(store, keys::PASSWORD).unwrap().certificates(), chain);
    }
    for certificate in [keys::RSA_CERTIFICATE, keys::RSA_CERTIFICATE_DER] {
        let key = load(keys::RSA).unwrap().with_certificate(certificate).unwrap();
        assert_eq!(key.certificates(), std::slice::from_ref(&leaf));
        let (from, until) = key.certificate_validity().unwrap();
        assert!(until.since(from).as_secs() > 99 * 365 * 86_400);
        let hashed = |hash| URL_SAFE_NO_PAD.encode(digest::digest(hash, &leaf));
        assert_eq!(key.x5t().unwrap(), hashed(&digest::SHA1_FOR_LEGACY_USE_ONLY));
        assert_eq!(key.x5t_s256().unwrap(), hashed(&digest::SHA256));
        assert_eq!(key.public_jwk()["x5c"], json!([STANDARD.encode(&leaf)]));
    }
    let old = load(keys::RSA).unwrap().with_certificate(keys::RSA_EXPIRED_CERTIFICATE).unwrap();
    let (from, until) = old.certificate_validity().unwrap();
    assert_eq!(
        (from.to_string(), until.to_string()),
        ("2020-01-01T00:00:00Z".into(), "2021-01-01T00:00:00Z".into())
    );
    assert_eq!(load(keys::RSA).unwrap().certificate_validity(), None);
}

#[test]
fn the_public_key_is_the_certificates() {
    let key = load(keys::RSA_CHAIN).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&key.certificates()[0]).unwrap();
    assert_eq!(parsed.public_key().raw, key.public_key_der());
}

#[test]
fn a_generated_key_signs() {
    for algorithm in [SignatureAlgorithm::Es256, SignatureAlgorithm::EdDsa, SignatureAlgorithm::Ps256] {
        let key = SigningKey::generate(algorithm).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert!(verifies(&key, b"m", &key.sign(b"m").unwrap()));
        assert_ne!(key, SigningKey::generate(algorithm).unwrap());
    }
}

#[test]
fn what_is_wrong_with_a_key_is_said() {
    let public = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" })
    .to_string();
    let other = text(keys::RFC7515_A3).replace("x_FEzRu9m36H", "x_FEzRu9m36I");
    let no_factors = text(keys::RFC7515_A2).replace("\"dp\"", "\"dp_\"");
    let two = [keys::RSA, keys::P256].concat();
    let cases: [(&[u8], KeyError); 15] = [
        (b"", KeyError::Unreadable),
        (b"password", KeyError::Unreadable),
        (b"{\"keys\":[]}", KeyError::JwkMember("kty")),
        (b"{\"kty\":\"oct\",\"k\":\"AAAA\"}", KeyError::Unsupported("symmetric (oct)".into())),
        (public.as_bytes(), KeyError::NoPrivateKey),
        (other.as_bytes(), KeyError::Damaged("EC")),
        (no_factors.as_bytes(), KeyError::JwkMember("dp")),
        (keys::RSA_CERTIFICATE, KeyError::NoPrivateKey),
        (keys::RSA_CERTIFICATE_DER, KeyError::NoPrivateKey),
        (&two, KeyError::Several(2)),
        (keys::RSA_1024, KeyError::TooSmall(1024)),
        (keys::RSA_ENCRYPTED, KeyError::PasswordMissing),
        (keys::RSA_RFC1421, KeyError::PasswordMissing),
        (keys::RSA_P12, KeyError::PasswordMissing),
        (keys::OPENSSH, KeyError::OpenSsh),
    ];
    for (material, expected) in cases {
        assert_eq!(load(material).unwrap_err(), expected, "{}", String::from_utf8_lossy(material));
    }
    assert!(matches!(load(keys::P521), Err(KeyError::Unsupported(_))));
    for store in [keys::RSA_ENCRYPTED, keys::RSA_P12, keys::RSA_LEGACY_P12] {
        assert_eq!(opened(store, "open-barley").unwrap_err(), KeyError::WrongPassword);
    }
    for old in [keys::RSA_PBES1, keys::RSA_RFC1421] {
        assert_eq!(opened(old, keys::PASSWORD).unwrap_err(), KeyError::Encryption);
    }
}

#[test]
fn an_algorithm_needs_its_own_type_of_key() {
    let fault = SigningKey::load(keys::RSA, None, Some(SignatureAlgorithm::Es256)).unwrap_err();
    let expected = "is an RSA key, but ES256 needs an EC P-256 key; take RS256 or RS384 or RS512 or PS256 or PS384 or PS512";
    assert_eq!(fault.to_string(), expected);
    let fault = SigningKey::load(keys::P256, None, Some(SignatureAlgorithm::Es384)).unwrap_err();
    let found = KeyType::P256;
    assert_eq!(fault, KeyError::WrongType { algorithm: SignatureAlgorithm::Es384, found });
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let key = load(keys::RSA).unwrap();
    assert_eq!(key.with_certificate(keys::CA_CERTIFICATE).unwrap_err(), KeyError::OtherCertificate);
    assert_eq!(key.with_certificate(keys::RSA).unwrap_err(), KeyError::Certificate);
    assert_eq!(key.with_certificate(b"\x30\x00").unwrap_err(), KeyError::Certificate);
    let pair = [keys::RSA, keys::CA_CERTIFICATE].concat();
    assert_eq!(load(&pair).unwrap_err(), KeyError::OtherCertificate);
}

proptest::proptest! {
    #[test]
    fn damaged_keys_are_refused_and_never_panic(at in 0usize..4000, with: u8, cut: bool) {
        for material in [keys::RSA_P12, keys::RSA_LEGACY_P12, &der(keys::RSA), &der(keys::P256_SEC1), keys::RFC7515_A3] {
            let mut damaged = material.to_vec();
            let at = at % damaged.len();
            if cut { damaged.truncate(at) } else { damaged[at] = with }
            // A wrong length of an iteration count may cost minutes, not a panic.
            if damaged.len() < 2000 { drop(load(&damaged)); }
        }
    }
}
