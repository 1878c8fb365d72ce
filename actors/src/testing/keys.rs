//! Published keys, for tests alone. `keys/README.md` says what they are.

/// The password of every encrypted one.
pub const PASSWORD: &str = "open-sesame";

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)+) => {
        $($(#[$doc])* pub const $name: &[u8] = include_bytes!(concat!("keys/", $file));)+
    };
}

keys! {
    /// RSA of 2048 bits, PKCS#8.
    RSA = "rsa.pem";
    /// The same, PKCS#1.
    RSA_PKCS1 = "rsa.pkcs1.pem";
    /// The same, encrypted PKCS#8.
    RSA_ENCRYPTED = "rsa.encrypted.pem";
    /// The same, encrypted in the way of PKCS#5 version 1.
    RSA_PBES1 = "rsa.pbes1.pem";
    /// The same, encrypted in the way of RFC 1421.
    RSA_RFC1421 = "rsa.rfc1421.pem";
    /// The same with its certificate and the one above it.
    RSA_CHAIN = "rsa.chain.pem";
    /// The same with both certificates, PKCS#12.
    RSA_P12 = "rsa.p12";
    /// The same, encrypted as older tools do.
    RSA_LEGACY_P12 = "rsa.legacy.p12";
    /// Its certificate.
    RSA_CERTIFICATE = "rsa.crt.pem";
    /// Its certificate, DER.
    RSA_CERTIFICATE_DER = "rsa.crt.der";
    /// A certificate of it that was valid in 2020.
    RSA_EXPIRED_CERTIFICATE = "rsa.expired.crt.pem";
    /// The certificate of the P-256 key.
    CA_CERTIFICATE = "ca.crt.pem";
    /// RSA of 1024 bits.
    RSA_1024 = "rsa1024.pem";
    /// EC P-256, PKCS#8.
    P256 = "p256.pem";
    /// The same, SEC 1.
    P256_SEC1 = "p256.sec1.pem";
    /// EC P-384.
    P384 = "p384.pem";
    /// EC P-521.
    P521 = "p521.pem";
    /// Ed25519.
    ED25519 = "ed25519.pem";
    /// An Ed25519 key in OpenSSH's form.
    OPENSSH = "openssh.pem";
    /// RFC 7515 appendix A.2.
    RFC7515_A2 = "rfc7515-a2.jwk.json";
    /// RFC 7515 appendix A.3.
    RFC7515_A3 = "rfc7515-a3.jwk.json";
    /// RFC 7517 appendix A.2, whose thumbprint is that of RFC 7638 section 3.1.
    RFC7517_A2 = "rfc7517-a2.jwk.json";
    /// RFC 8037 appendix A.1.
    RFC8037_A1 = "rfc8037-a1.jwk.json";
}
