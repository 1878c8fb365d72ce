#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::assertion::Assertion;
use super::canonical::{self, canonical};
use super::form::Form;
use super::*;
use crate::clock::SystemEntropy;
use crate::protocol::identifiers::Subject;
use crate::protocol::signing_key::{SignatureAlgorithm, SigningKey};
use crate::protocol::template::{CallContext, Placeholder};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(SignatureAlgorithm::Es256).unwrap());

fn assertion<'a>(attributes: &'a [(String, Vec<String>)]) -> Assertion<'a> {
    Assertion {
        id: "_1",
        now: NOW,
        issuer: "client",
        subject: "alice",
        name_id_format: "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified",
        recipient: "https://as.example/token",
        audience: "https://as.example",
        not_before: NOW.before(Duration::from_secs(30)),
        not_on_or_after: NOW.after(Duration::from_secs(300)),
        authn_context: Some("urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified"),
        attributes,
    }
}

/// The one element of this name.
fn only<'a, 'i>(document: &'a Document<'i>, name: &str) -> Node<'a, 'i> {
    let found: Vec<_> = document.descendants().filter(|node| node.tag_name().name() == name).collect();
    assert_eq!(found.len(), 1, "{name}");
    found[0]
}

fn text_of(document: &Document<'_>, name: &str) -> String {
    text_in(only(document, name))
}

fn text_in(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
}

/// Whether the signature is of [`KEY`], over the whole assertion but itself.
#[track_caller]
fn assert_verifies(xml: &str) {
    let document = parse(xml).unwrap();
    let element = |name: &str| &xml[only(&document, name).range()];
    let info = element("SignedInfo").replacen('>', &format!(" xmlns:ds=\"{XML_DSIG}\">"), 1);
    let value = STANDARD.decode(text_of(&document, "SignatureValue")).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, KEY.public_key_der());
    key.verify(info.as_bytes(), &value).unwrap();
    let said = STANDARD.decode(text_of(&document, "DigestValue")).unwrap();
    let unsigned = xml.replace(element("Signature"), "");
    let canonical = canonical(parse(&unsigned).unwrap().root_element()).unwrap();
    assert_eq!(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref(), said);
}

#[test]
fn the_example_of_exclusive_canonicalization_section_2_2() {
    let text = "<n0:local xmlns:n0=\"foo:bar\" xmlns:n3=\"ftp://example.org\">\n\
                <n1:elem2 xmlns:n1=\"http://example.net\" xml:lang=\"en\">\n\
                <n3:stuff xmlns:n3=\"ftp://example.org\"/>\n</n1:elem2>\n</n0:local>";
    let document = parse(text).unwrap();
    assert_eq!(
        canonical(only(&document, "elem2")).unwrap(),
        "<n1:elem2 xmlns:n1=\"http://example.net\" xml:lang=\"en\">\n\
         <n3:stuff xmlns:n3=\"ftp://example.org\"></n3:stuff>\n</n1:elem2>"
    );
}

#[test]
fn canonical_xml_sorts_declares_and_escapes() {
    for (text, expected) in [
        // Canonical XML 1.0 section 3.1: instructions and comments.
        (
            "<doc>Hello<!-- Comment 1 --><?pi-without-data     ?><?x  a\r\nb?></doc>",
            "<doc>Hello<?pi-without-data?><?x a\nb?></doc>",
        ),
        // Section 3.3: start and end tags, and exclusive's only-where-used.
        ("<e   name = \"elem3\"   id='elem3'   />", "<e id=\"elem3\" name=\"elem3\"></e>"),
        (
            "<e5 xmlns:b=\"http://www.ietf.org\" xmlns:a=\"http://www.w3.org\" xmlns=\"http://example.org\" \
             xmlns:c=\"urn:unused\" a:attr=\"out\" b:attr=\"sorted\" attr2=\"all\" attr=\"I'm\"/>",
            "<e5 xmlns=\"http://example.org\" xmlns:a=\"http://www.w3.org\" xmlns:b=\"http://www.ietf.org\" \
             attr=\"I'm\" attr2=\"all\" b:attr=\"sorted\" a:attr=\"out\"></e5>",
        ),
        (
            "<e6 xmlns=\"\" xmlns:a=\"http://www.w3.org\"><e7 xmlns=\"http://www.ietf.org\"><e8 xmlns=\"\" \
             xmlns:a=\"http://www.w3.org\"><e9 xmlns=\"\" xmlns:a=\"http://www.ietf.org\"><a:b/></e9></e8></e7></e6>",
            "<e6><e7 xmlns=\"http://www.ietf.org\"><e8 xmlns=\"\"><e9><a:b xmlns:a=\"http://www.ietf.org\"></a:b></e9>\
             </e8></e7></e6>",
        ),
        // Section 3.4: character references, sections, and white space in attributes (XML 1.0 section 3.3.3).
        (
            "<doc><text>First line&#x0d;&#10;Second line</text><value>&#x32;</value>\
             <compute><![CDATA[value>\"0\" && value<\"10\" ?\"valid\":\"error\"]]></compute>\
             <norm attr=' &apos;   &#x20;&#13;&#xa;&#9;   &apos; ' b='1\n\t2\r\n3'/></doc>",
            "<doc><text>First line&#xD;\nSecond line</text><value>2</value>\
             <compute>value&gt;\"0\" &amp;&amp; value&lt;\"10\" ?\"valid\":\"error\"</compute>\
             <norm attr=\" '    &#xD;&#xA;&#x9;   ' \" b=\"1  2 3\"></norm></doc>",
        ),
    ] {
        let document = parse(text).unwrap();
        assert_eq!(canonical(document.root_element()).unwrap(), expected);
        // What is canonical stays so.
        assert_eq!(canonical(parse(expected).unwrap().root_element()).unwrap(), expected);
    }
}

#[test]
fn an_assertion_has_what_rfc_7522_section_3_asks_for() {
    let attributes = [("groups".to_owned(), vec!["a".to_owned(), "b".to_owned()])];
    assert_eq!(
        assertion(&attributes).to_xml().unwrap(),
        "<saml:Assertion xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_1\" \
         IssueInstant=\"2023-11-14T22:13:20Z\" Version=\"2.0\"><saml:Issuer>client</saml:Issuer>\
         <saml:Subject><saml:NameID Format=\"urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified\">alice\
         </saml:NameID><saml:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\">\
         <saml:SubjectConfirmationData NotOnOrAfter=\"2023-11-14T22:18:20Z\" \
         Recipient=\"https://as.example/token\"></saml:SubjectConfirmationData></saml:SubjectConfirmation>\
         </saml:Subject><saml:Conditions NotBefore=\"2023-11-14T22:12:50Z\" \
         NotOnOrAfter=\"2023-11-14T22:18:20Z\"><saml:AudienceRestriction>\
         <saml:Audience>https://as.example</saml:Audience></saml:AudienceRestriction></saml:Conditions>\
         <saml:AuthnStatement AuthnInstant=\"2023-11-14T22:13:20Z\"><saml:AuthnContext>\
         <saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified\
         </saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement>\
         <saml:Attribute Name=\"groups\"><saml:AttributeValue>a</saml:AttributeValue>\
         <saml:AttributeValue>b</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>\
         </saml:Assertion>"
    );
    let without = Assertion { authn_context: None, ..assertion(&[]) }.to_xml().unwrap();
    assert!(!without.contains("AuthnStatement") && !without.contains("AttributeStatement"));
}

#[test]
fn the_signature_follows_the_issuer_and_names_its_certificate() {
    let xml = assertion(&[]).to_xml().unwrap();
    let signed = signature::sign(&xml, "_1", &KEY).unwrap();
    assert!(signed.contains("</saml:Issuer><ds:Signature xmlns:ds="), "{}", *signed);
    assert!(signed.contains("</ds:Signature><saml:Subject>") && signed.contains("URI=\"#_1\""));
    assert!(!signed.contains("KeyInfo"), "it has no certificate");
    assert_verifies(&signed);
}

#[test]
fn ids_are_xml_names_that_are_never_the_same() {
    let (one, other) = (new_id(&SystemEntropy), new_id(&SystemEntropy));
    assert_ne!(one, other);
    assert!(one.len() == 33 && one.starts_with('_'), "{one}");
    assert!(one[1..].bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
}

#[test]
fn what_xml_cannot_carry_is_refused() {
    for odd in ["\0", "\u{1}", "\u{b}", "\u{1f}", "\u{fffe}", "\u{ffff}"] {
        let subject = format!("a{odd}b");
        let error = Assertion { subject: &subject, ..assertion(&[]) }.to_xml().unwrap_err();
        assert!(matches!(&error, SamlError::Character { what, .. } if what == "saml:NameID"), "{error}");
        assert!(!error.to_string().contains(odd), "{error:?}");
        let error = Assertion { recipient: &subject, ..assertion(&[]) }.to_xml().unwrap_err();
        assert!(matches!(error, SamlError::Character { .. }), "{error}");
    }
    let error = Assertion { subject: "", ..assertion(&[]) }.to_xml().unwrap_err();
    assert_eq!(error, SamlError::Empty("saml:NameID".into()));
}

fn form(inside: &str) -> String {
    format!(
        "<s:Assertion xmlns:s=\"{SAML}\" Version=\"2.0\" ID=\"{{id}}\"><s:Issuer>{{issuer}}</s:Issuer>{inside}</s:Assertion>"
    )
}

fn filled(form: &str, call: &CallContext) -> Result<String, SamlError> {
    Form::parse(form)?.fill(&assertion(&[]), &Subject::new("billing").unwrap(), call)
}

#[test]
fn a_form_is_filled_in_and_signed_as_it_stands() {
    let mut call = CallContext::default();
    call.values.insert(Placeholder::Header("x".into()), "<a> \"&' {id}".into());
    let text = form("\r\n<x y='{subject}' z=\"{header.x}\">{{{not_on_or_after}}} {header.x}</x><!--{now}-->");
    let text = format!("<?xml version=\"1.0\"?>\n{text}<?after it?>\n");
    let parsed = Form::parse(&text).unwrap();
    assert_eq!(parsed.placeholders().collect::<Vec<_>>(), [&Placeholder::Header("x".into()); 2]);
    let xml = filled(&text, &call).unwrap();
    assert_eq!(
        xml,
        form(
            "\r\n<x y='alice' z=\"&lt;a&gt; &quot;&amp;&#39; {id}\">{2023-11-14T22:18:20Z} \
             &lt;a&gt; &quot;&amp;&#39; {id}</x><!--2023-11-14T22:13:20Z-->"
        )
        .replacen("{id}", "_1", 1)
        .replace("{issuer}", "client")
    );
    let signed = signature::sign(&xml, "_1", &KEY).unwrap();
    assert!(
        signed.contains("</s:Issuer><ds:Signature ") && signed.contains("</ds:Signature>\r\n<x y='alice'")
    );
    assert_verifies(&signed);
    let lacking = filled(&text, &CallContext::default()).unwrap_err();
    assert!(matches!(lacking, SamlError::Form(TemplateError::Missing(_))), "{lacking}");
}

#[test]
fn a_value_never_becomes_markup() {
    let form =
        form("<x y=\"{header.x}\" z='{header.x}'>{header.x}<!-- {header.x} --><![CDATA[{header.x}]]></x>");
    for value in
        ["\"><s:Evil/>", "' evil='1", "--><s:Evil/><!--", "]]><s:Evil/><![CDATA[", "?><s:Evil/>", "</x>"]
    {
        let mut call = CallContext::default();
        call.values.insert(Placeholder::Header("x".into()), value.into());
        let xml = filled(&form, &call).unwrap();
        // Two hyphens may not stand in a comment.
        let Ok(document) = parse(&xml) else {
            assert!(value.contains("--"), "{xml}");
            continue;
        };
        let x = only(&document, "x");
        assert!(x.first_element_child().is_none(), "{xml}");
        assert_eq!(x.attribute("y"), Some(value));
        assert_eq!(x.attributes().count(), 2, "{xml}");
    }
}

#[test]
fn forms_that_cannot_do_are_refused_at_once() {
    let refused = |text: &str| Form::parse(text).unwrap_err();
    assert!(matches!(refused("<a>"), SamlError::NotXml(_)));
    let with_dtd = format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{}", form(""));
    assert!(matches!(refused(&with_dtd), SamlError::NotXml(_)));
    assert_eq!(refused("<Assertion Version=\"2.0\"/>"), SamlError::NotAnAssertion);
    assert_eq!(refused(&form("").replace("2.0\"", "1.1\"")), SamlError::NotAnAssertion);
    assert_eq!(refused(&form("").replace("s:Issuer", "s:Other")), SamlError::Issuer);
    assert!(matches!(refused(&form("{unknown}")), SamlError::Form(TemplateError::Unknown(_))));
    assert!(matches!(refused(&form("a } b")), SamlError::Form(TemplateError::Brace)));

    let sign = |text: &str| signature::sign(&filled(text, &CallContext::default()).unwrap(), "_1", &KEY);
    assert_eq!(sign(&form("").replace("{id}", "fixed")).unwrap_err(), SamlError::Id);
    for twice in ["<x ID='{id}'/>", "<x Id='{id}'/>", "<x xml:id='{id}'/>"] {
        assert_eq!(sign(&form(twice)).unwrap_err(), SamlError::Id, "{twice}");
    }
    let signature = format!("<x><ds:Signature xmlns:ds=\"{XML_DSIG}\"/></x>");
    assert_eq!(sign(&form(&signature)).unwrap_err(), SamlError::Signed);
    assert_eq!(sign(&form("<x><s:Assertion/></x>")).unwrap_err(), SamlError::SeveralAssertions(2));
}

#[test]
fn only_algorithms_of_xml_signatures_sign() {
    for algorithm in [SignatureAlgorithm::EdDsa, SignatureAlgorithm::Ps256] {
        let key = SigningKey::generate(algorithm).unwrap();
        let error = signature::check_algorithm(&key).unwrap_err();
        assert_eq!(error, SamlError::Algorithm(algorithm));
    }
    assert_eq!(signature::check_algorithm(&KEY), Ok(()));
}

#[test]
fn an_assertion_comes_in_any_base64_or_as_it_is() {
    let xml = "<a>????>>>>~~~~</a>";
    for given in [
        xml.to_owned(),
        format!("\n {xml}\n"),
        STANDARD.encode(xml),
        STANDARD_NO_PAD.encode(xml),
        URL_SAFE.encode(xml),
        URL_SAFE_NO_PAD.encode(xml),
    ] {
        assert_eq!(*check::decode(&given).unwrap(), xml, "{given}");
    }
    for wrong in ["", "a", "%%%%", "_w", &URL_SAFE.encode(b"\xff\xfe")] {
        assert!(
            matches!(check::decode(wrong), Ok(text) if text.is_empty())
                || check::decode(wrong) == Err(SamlError::Encoding),
            "{wrong}"
        );
    }
    let large = "a".repeat(check::LARGEST);
    assert_eq!(check::decode(&STANDARD.encode(&large)).map(|xml| xml.len()), Ok(check::LARGEST));
    assert_eq!(check::decode(&STANDARD.encode(format!("{large}aaa"))), Err(SamlError::TooLarge));
    assert_eq!(check::decode(&format!("<{large}")), Err(SamlError::TooLarge));
}

#[test]
fn a_handed_over_assertion_is_used_until_thirty_seconds_after_its_end() {
    let xml = assertion(&[]).to_xml().unwrap();
    let end = NOW.after(Duration::from_secs(300));
    assert_eq!(check::check(&xml, NOW), Ok(()));
    assert_eq!(check::check(&xml, end.after(Duration::from_secs(29))), Ok(()));
    assert_eq!(check::check(&xml, end.after(Duration::from_secs(30))), Err(SamlError::Ended(end)));

    // The earlier of the conditions' end and the latest confirmation's.
    let (conditions, confirmation) =
        ("NotOnOrAfter=\"2023-11-14T22:18:20Z\">", "NotOnOrAfter=\"2023-11-14T22:18:20Z\" R");
    let sooner = xml.replacen(conditions, "NotOnOrAfter=\"2023-11-14T22:14:00.123Z\">", 1);
    assert!(matches!(check::check(&sooner, end), Err(SamlError::Ended(at)) if at.as_millis() % 1000 == 123));
    let sooner = xml.replacen(confirmation, "NotOnOrAfter=\"2023-11-14T22:14:00\" R", 1);
    assert!(matches!(check::check(&sooner, end), Err(SamlError::Ended(_))));
    let never = xml.replace("NotOnOrAfter", "Other");
    assert_eq!(check::check(&never, NOW), Err(SamlError::NoExpiry));
    let odd = xml.replacen(conditions, "NotOnOrAfter=\"2023-11-14T22:18:20+01:00\">", 1);
    assert!(matches!(check::check(&odd, NOW), Err(SamlError::Time(_))));
}

#[test]
fn what_no_server_would_take_is_not_sent() {
    let xml = assertion(&[]).to_xml().unwrap();
    let refused = |xml: &str| check::check(xml, NOW).unwrap_err();
    assert!(matches!(refused("no XML"), SamlError::NotXml(_)));
    assert!(matches!(refused(&format!("<!DOCTYPE x>{xml}")), SamlError::NotXml(_)));
    assert!(matches!(refused(&xml.replace("</saml:Subject>", "")), SamlError::NotXml(_)));
    assert_eq!(refused(&format!("<Response>{xml}</Response>")), SamlError::NotAnAssertion);
    assert_eq!(refused(&xml.replace("Version=\"2.0\"", "Version=\"1.1\"")), SamlError::NotAnAssertion);
    assert_eq!(
        refused(&xml.replace(SAML, "urn:oasis:names:tc:SAML:1.0:assertion")),
        SamlError::NotAnAssertion
    );
    let twice =
        xml.replace("</saml:Assertion>", "<saml:Advice><saml:Assertion/></saml:Advice></saml:Assertion>");
    assert_eq!(refused(&twice), SamlError::SeveralAssertions(2));
    let deep = |depth| form(&format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth)));
    let sign = |form: String| signature::sign(&form.replace("{id}", "_1"), "_1", &KEY);
    assert!(sign(deep(canonical::DEEPEST - 1)).is_ok());
    assert_eq!(sign(deep(canonical::DEEPEST)), Err(SamlError::TooDeep));
    assert_eq!(refused(&deep(40_000)), SamlError::NoExpiry);
    assert!(matches!(refused(&deep(150_000)), SamlError::NotXml(_)));
}

/// Any text that XML can carry, with what has a meaning in it more often than chance has it.
fn any_text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        "[<>&\"'\\]\\[{}\r\n\t ;#]".prop_map(|text| text.chars().next().unwrap()),
        any::<char>().prop_filter("XML cannot carry it", |c| {
            matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
        }),
    ];
    proptest::collection::vec(character, 1..12).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn what_goes_in_is_what_is_read_and_signed(
        texts in proptest::collection::vec(any_text(), 6..7),
        attributes in proptest::collection::vec((any_text(), proptest::collection::vec(any_text(), 0..3)), 0..3),
    ) {
        let values = Assertion {
            issuer: &texts[0],
            subject: &texts[1],
            name_id_format: &texts[2],
            recipient: &texts[3],
            audience: &texts[4],
            authn_context: Some(&texts[5]),
            ..assertion(&attributes)
        };
        let xml = values.to_xml().unwrap();
        prop_assert_eq!(&canonical(parse(&xml).unwrap().root_element()).unwrap(), &xml);
        let signed = signature::sign(&xml, "_1", &KEY).unwrap();
        assert_verifies(&signed);
        let document = parse(&signed).unwrap();
        prop_assert_eq!(text_of(&document, "Issuer"), &*texts[0]);
        prop_assert_eq!(text_of(&document, "NameID"), &*texts[1]);
        prop_assert_eq!(only(&document, "NameID").attribute("Format"), Some(&*texts[2]));
        let data = only(&document, "SubjectConfirmationData");
        prop_assert_eq!(data.attribute("Recipient"), Some(&*texts[3]));
        prop_assert_eq!(text_of(&document, "Audience"), &*texts[4]);
        prop_assert_eq!(text_of(&document, "AuthnContextClassRef"), &*texts[5]);
        let nodes = document.descendants().filter(|node| node.has_tag_name((SAML, "Attribute")));
        let read: Vec<(String, Vec<String>)> = nodes.map(|node| {
            let values = node.children().map(text_in).collect();
            (node.attribute("Name").unwrap().to_owned(), values)
        }).collect();
        prop_assert_eq!(read, attributes);
        // Whoever is handed it may send it on.
        let handed_over = check::decode(&URL_SAFE_NO_PAD.encode(&*signed)).unwrap();
        prop_assert_eq!(check::check(&handed_over, NOW), Ok(()));
    }

    #[test]
    fn what_is_filled_in_reads_back(value in any_text()) {
        let mut call = CallContext::default();
        call.values.insert(Placeholder::Header("x".into()), value.as_str().into());
        let xml = filled(&form("<x y=\"{header.x}\" z='{header.x}'>{header.x}</x>"), &call).unwrap();
        let signed = signature::sign(&xml, "_1", &KEY).unwrap();
        assert_verifies(&signed);
        let document = parse(&signed).unwrap();
        let x = only(&document, "x");
        prop_assert_eq!(x.attribute("y"), Some(&*value));
        prop_assert_eq!(x.attribute("z"), Some(&*value));
        prop_assert_eq!(text_of(&document, "x"), value);
    }

    #[test]
    fn no_text_makes_the_reader_fail(text in any::<String>(), form in "[<>a-zA-Z:=\"'{}/ !\\[\\]?&;-]{0,60}") {
        let _ = check::decode(&text).map(|xml| check::check(&xml, NOW));
        let _ = check::check(&form, NOW);
        let _ = Form::parse(&form);
    }
}
