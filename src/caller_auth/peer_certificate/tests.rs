#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

use super::*;

fn certificate(names: Vec<SanType>, (from, until): (i32, i32)) -> PeerCertificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = names;
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    PeerCertificate::read(params.self_signed(&key).unwrap().der())
}

fn parse(text: &str) -> SubjectAltName {
    SubjectAltName::parse(text).unwrap()
}

#[test]
fn names_of_every_kind_are_those_of_a_configuration() {
    let ip = |text: &str| SanType::IpAddress(text.parse().unwrap());
    let names = vec![
        SanType::DnsName("Billing.Internal".try_into().unwrap()),
        SanType::DnsName("*.acme.internal".try_into().unwrap()),
        SanType::URI("spiffe://acme/ns/prod/sa/billing".try_into().unwrap()),
        SanType::Rfc822Name("Robot@Acme.Example".try_into().unwrap()),
        ip("192.0.2.7"),
        ip("2001:db8::7"),
    ];
    let shown = certificate(names, (2020, 4000));
    let wanted = [
        "billing.internal",
        "*.acme.internal",
        "spiffe://acme/ns/prod/sa/billing",
        "Robot@acme.example",
        "192.0.2.7",
        "2001:DB8:0::7",
    ];
    assert_eq!(shown.names(), wanted.map(parse));
    for other in [
        "billing.acme.internal",
        "spiffe://acme/ns/prod/sa/Billing",
        "robot@acme.example",
        "billing.internal.evil.example",
        "192.0.2.8",
    ] {
        assert!(!shown.names().contains(&parse(other)), "{other}");
    }
    let fingerprint = shown.fingerprint();
    assert_ne!(fingerprint, certificate(Vec::new(), (2020, 4000)).fingerprint());
}

#[test]
fn names_of_one_kind_are_none_of_another() {
    let text = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let shown =
        certificate(vec![text("192.0.2.7"), text("spiffe://acme/x"), text("a@b.example")], (2020, 4000));
    for name in ["192.0.2.7", "spiffe://acme/x", "a@b.example"] {
        assert!(!shown.names().contains(&parse(name)), "{name}");
    }
}

#[test]
fn what_is_no_name_is_refused() {
    for text in ["", " ", "a b", "a..b", ".a", "a.", "a/b", "bü.example", "@a", "a@", ":", "1:2", "http//:x"]
    {
        assert_eq!(SubjectAltName::parse(text), Err(SubjectAltNameError), "{text:?}");
    }
    assert!(SubjectAltName::parse(&["a"; 127].join(".")).is_ok());
    assert!(SubjectAltName::parse(&["a"; 128].join(".")).is_err());
    assert!(SubjectAltName::parse(&"a".repeat(64)).is_err());
}

#[test]
fn a_certificate_is_valid_between_its_dates() {
    let at = |year: u64| Timestamp::from_secs((year - 1970) * 31_557_600);
    let shown = certificate(Vec::new(), (2020, 2030));
    for (year, valid) in [(2019, false), (2025, true), (2031, false)] {
        assert_eq!(shown.is_valid(at(year)), valid, "{year}");
    }
}

#[test]
fn what_is_no_certificate_has_no_names_and_is_never_valid() {
    let shown = PeerCertificate::read(&CertificateDer::from(vec![1, 2, 3]));
    assert!(shown.names().is_empty());
    for seconds in [0, 1, 2, 1_800_000_000] {
        assert!(!shown.is_valid(Timestamp::from_secs(seconds)));
    }
}

proptest! {
    #[test]
    fn reading_never_panics_and_a_name_read_is_read_the_same_again(
        text in "[ -~]{0,40}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(name) = SubjectAltName::parse(&text) {
            let again = SubjectAltName::parse(&name.to_string());
            prop_assert_eq!(again, Ok(name));
        }
        PeerCertificate::read(&CertificateDer::from(bytes));
    }
}
