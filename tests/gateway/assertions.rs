//! Assertions as other people's libraries see them: xmlsec1, signxml and lxml. And token endpoints that take
//! one only if every claim is as it should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_actors::clock::{Clock as _, SystemClock, SystemEntropy, Timestamp};
use claviger_actors::grants::{self, Grant, GrantContext, GrantError};
use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::saml::SamlError;
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::template::CallContext;
use claviger_actors::registration::settings::{Setting, Settings};
use claviger_actors::testing::profiles;
use serde_json::{Value, json};

use crate::support::gateway_config::GatewayConfig;
use crate::support::strict_assertions::{StrictAssertions, TestKeys, signxml, xmlsec1};
use crate::support::upstream::Upstream;

const EMAIL: &str = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress";
const UNSPECIFIED: &str = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified";
const UNSPECIFIED_CONTEXT: &str = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified";
const SAML_GRANT: &str = "urn:ietf:params:oauth:grant-type:saml2-bearer";

/// A grant of `client`, with `[profiles.x.assertion]` as given.
fn grant(name: &str, assertion: Vec<(&str, Setting)>) -> Arc<dyn Grant> {
    let mut table = Settings::default();
    for (key, setting) in assertion {
        table.insert(key, setting);
    }
    let mut settings = Settings::default();
    settings.insert("assertion", Setting::Table(table));
    let grant = (grants::find(name).unwrap().build)(&mut settings);
    grant.unwrap_or_else(|error| panic!("{error}"))
}

fn text(text: &str) -> Setting {
    Setting::Value(text.into())
}

fn secret(text: &str) -> Setting {
    Setting::Secret(text.into())
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// The token request of `grant` for alice, sent to `endpoint` at `now`, with what the call handed over.
fn token_request(
    grant: &dyn Grant,
    endpoint: &str,
    now: Timestamp,
    assertion: Option<&str>,
) -> Result<BTreeMap<String, String>, GrantError> {
    let registration = profiles::registration("acme");
    let call = CallContext { assertion: assertion.map(Secret::from), ..CallContext::default() };
    let request = grant.token_request(&GrantContext {
        client_id: "client",
        registration: &registration,
        subject: &Subject::new("alice").unwrap(),
        scopes: &ScopeSet::from_tokens(["mail"]).unwrap(),
        call: &call,
        redemption: None,
        token_endpoint: &profiles::url(endpoint),
        issuer: None,
        now,
        entropy: &SystemEntropy,
    })?;
    Ok(request.params.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect())
}

fn xml_of(request: &BTreeMap<String, String>) -> String {
    String::from_utf8(URL_SAFE_NO_PAD.decode(&request["assertion"]).unwrap()).unwrap()
}

/// A built and signed assertion, as XML.
async fn signed(key: &str, algorithm: Option<&str>, more: Vec<(&'static str, Setting)>) -> String {
    let keys = TestKeys::get().await;
    let mut assertion =
        vec![("signing_key", secret(&keys.key(key))), ("certificate", secret(&keys.certificate(key)))];
    assertion.extend(algorithm.map(|algorithm| ("signing_alg", text(algorithm))));
    assertion.extend(more);
    xml_of(
        &token_request(&*grant("saml2_bearer", assertion), "https://as.example/token", now(), None).unwrap(),
    )
}

/// `xml` with another character at the first place of `part`.
fn changed(xml: &str, part: &str) -> String {
    let at = xml.find(part).unwrap_or_else(|| panic!("{part} is in {xml}"));
    let other = if xml[at..].starts_with('A') { "B" } else { "A" };
    format!("{}{other}{}", &xml[..at], &xml[at + 1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn xmlsec1_and_signxml_verify_what_is_signed_and_nothing_else() {
    let keys = TestKeys::get().await;
    let methods =
        [("rsa", None), ("rsa", Some("RS384")), ("rsa", Some("RS512")), ("ec", None), ("p384", None)];
    for (key, algorithm) in methods {
        let odd = "<ü> & \"'\t\r\n]]> {{x}}";
        let xml = signed(key, algorithm, vec![("issuer", text(odd)), ("subject", text(odd))]).await;
        let certificate = keys.certificate(key);
        assert!(xmlsec1(&xml, &keys.certificate_file(key)).await, "{key} {algorithm:?}: {xml}");
        assert!(
            !xmlsec1(&xml, &keys.certificate_file("other")).await,
            "{key}: another's certificate does not do"
        );

        // A byte of each part; the signature's value in its middle, where every bit counts.
        let value = xml.find("<ds:SignatureValue>").unwrap() + 40;
        let parts = ["x}", "bearer\"", "as.example", "0Z\"", "3:nameid-format", &xml[value..value + 20]];
        let parts = parts.iter().filter(|part| xml.contains(**part));
        let wrong: Vec<String> = parts.map(|part| changed(&xml, part)).collect();
        assert!(wrong.len() >= 4, "{xml}");
        for xml in &wrong {
            assert!(!xmlsec1(xml, &keys.certificate_file(key)).await, "{key}: {xml}");
        }
        let mut asked = vec![(xml.as_str(), certificate.as_str())];
        asked.extend(wrong.iter().map(|xml| (xml.as_str(), certificate.as_str())));
        let answers = signxml(&asked).await;
        assert!(answers[0].is_ok(), "{key} {algorithm:?}: {:?}", answers[0]);
        for (answer, xml) in answers[1..].iter().zip(&wrong) {
            assert!(answer.is_err(), "{key}: {xml}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_is_its_own_canonical_form() {
    let certificate = TestKeys::get().await.certificate("rsa");
    let mut attributes = Settings::default();
    attributes.insert("b \"<&>\n\t", text("1\r\n\t<&>\"'"));
    attributes.insert("a", Setting::List(vec![text(""), text(" two ")]));
    let more = vec![("attributes", Setting::Table(attributes)), ("audience", text("a\tb\nc\"d<e>f&g"))];
    let xml = signed("rsa", None, more).await;
    let covered = signxml(&[(&xml, &certificate)]).await.remove(0).unwrap();
    let (start, end) = (xml.find("<ds:Signature ").unwrap(), xml.find("</ds:Signature>").unwrap());
    let unsigned = format!("{}{}", &xml[..start], &xml[end + "</ds:Signature>".len()..]);
    assert_eq!(covered, unsigned, "lxml canonicalises it to something else");
}

/// Numbers that look random and are the same every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<'a>(&mut self, choice: &[&'a str]) -> &'a str {
        choice[self.below(choice.len())]
    }

    /// A piece of XML such as people write: prefixes bound and bound again, used and not used; attributes in
    /// any order; entities, sections of characters, comments, instructions, white space. Names are ASCII, as
    /// signxml writes documents anew in ASCII on its way.
    fn element(&mut self, depth: usize, out: &mut String) {
        let prefix = self.one_of(&["", "", "a:", "b:", "saml:"]);
        let name = format!("{prefix}{}", self.one_of(&["x", "y", "long-name.1", "_Z"]));
        out.push_str(&format!("<{name}"));
        let mut attributes = Vec::new();
        // Prefixes are always bound, to one of several namespaces; without "&", which lxml writes bare.
        for prefix in ["a", "b"] {
            if depth == 0 || self.below(3) == 0 {
                let uri = self.one_of(&["urn:one", "urn:two", "urn:three", "http://four.example/?a=b"]);
                attributes.push(format!("xmlns:{prefix}=\"{uri}\""));
            }
        }
        match self.below(5) {
            0 => attributes.push("xmlns=\"urn:default\"".to_owned()),
            1 => attributes.push("xmlns=\"\"".to_owned()),
            _ => {}
        }
        let names = ["z", "A", "xml:lang", "xml:space", "saml:m", "Id"];
        let start = self.below(names.len());
        for name in names.iter().cycle().skip(start).take(self.below(4)) {
            let value =
                self.one_of(&["", "a  b", "&lt;&amp;&gt;&quot;&apos;", "&#9;&#10;&#xD;", "1\n\t2", "ü€😀"]);
            let value = if name.starts_with("xml:") { "preserve" } else { value };
            attributes.push(format!("{name}={}{value}{}", '"', '"'));
        }
        let count = attributes.len();
        for _ in 0..count {
            let one = attributes.remove(self.below(attributes.len()));
            out.push_str(self.one_of(&[" ", "\n", "  ", "\r\n\t"]));
            out.push_str(&one);
        }
        let children = self.below(5);
        if children == 0 && self.below(2) == 0 {
            out.push_str(" />");
            return;
        }
        out.push('>');
        for _ in 0..children {
            match self.below(7) {
                0 if depth < 6 => self.element(depth + 1, out),
                1 if depth < 6 => self.element(depth + 1, out),
                2 => out.push_str("<![CDATA[<&>\r\n]]>"),
                3 => out.push_str("<!-- not signed -->"),
                4 => out.push_str(self.one_of(&["<?go on?>", "<?go?>", "<?go  a=\"1\" ?>"])),
                _ => out.push_str(self.one_of(&[
                    " ",
                    "\r\n",
                    "a\rb",
                    "&amp;&lt;&gt;",
                    "&#13;",
                    "ü€😀",
                    "\"'&quot;",
                    "]",
                ])),
            }
        }
        out.push_str(&format!("</{name}>"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_own_forms_of_any_shape_verify_elsewhere() {
    let (keys, mut draw) = (TestKeys::get().await, Draw(1));
    let certificate = keys.certificate("ec");
    let mut assertions = Vec::new();
    for _ in 0..200 {
        let mut inside = String::new();
        draw.element(0, &mut inside);
        draw.element(0, &mut inside);
        let form = format!(
            "<?xml version=\"1.0\"?>\r\n<!-- before --><saml:Assertion Version='2.0' ID='{{id}}' \
             xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" xmlns:unused=\"urn:u\"\n>\n <saml:Issuer>{{issuer}}\
             </saml:Issuer>\r\n {inside}<saml:Subject a='{{subject}}'/></saml:Assertion><?after?>\n"
        );
        assertions.push(signed("ec", None, vec![("template", secret(&form))]).await);
    }
    let asked: Vec<_> = assertions.iter().map(|xml| (xml.as_str(), certificate.as_str())).collect();
    for (answer, xml) in signxml(&asked).await.iter().zip(&assertions) {
        assert!(answer.is_ok(), "{answer:?}\n{xml}");
    }
    for xml in assertions.iter().step_by(20) {
        assert!(xmlsec1(xml, &keys.certificate_file("ec")).await, "{xml}");
    }
}

/// What the server has to expect of [`grant`] without further keys.
async fn expected(server_url: &str) -> Value {
    let endpoint = format!("{server_url}/saml/token");
    json!({ "saml": {
        "issuer": "client", "subject": "alice", "name_id_format": UNSPECIFIED, "recipient": endpoint,
        "audience": endpoint, "authn_context": UNSPECIFIED_CONTEXT, "attributes": {}, "scope": "mail",
        "certificate": TestKeys::get().await.certificate("rsa"), "key_info": true,
    }})
}

async fn ask(server: &StrictAssertions, request: &BTreeMap<String, String>) -> Result<(), String> {
    let form: Vec<_> = request.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    server.ask(&server.saml_endpoint(), &form).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_endpoint_takes_a_right_saml_assertion_and_names_each_wrong_claim() {
    let keys = TestKeys::get().await;
    let server = StrictAssertions::start(&json!({})).await;
    let right = expected(&server.url).await;
    server.expect(&right).await;
    let bare =
        || vec![("signing_key", secret(&keys.key("rsa"))), ("certificate", secret(&keys.certificate("rsa")))];
    let grant = grant("saml2_bearer", bare());
    let at = |now| token_request(&*grant, &server.saml_endpoint(), now, None).unwrap();
    assert_eq!(ask(&server, &at(now())).await, Ok(()));

    // One wrong value each: that is what is named.
    let table = [
        ("issuer", json!("other"), "Issuer"),
        ("subject", json!("bob"), "NameID"),
        ("name_id_format", json!(EMAIL), "Format"),
        ("recipient", json!(format!("{}/", server.saml_endpoint())), "Recipient"),
        ("audience", json!("https://other.example"), "Audience"),
        ("authn_context", json!("urn:other"), "AuthnContextClassRef"),
        ("authn_context", Value::Null, "AuthnStatement"),
        ("attributes", json!({ "mail": ["alice@example.com"] }), "attributes"),
        ("scope", json!("mail calendar"), "scope"),
        ("certificate", json!(keys.certificate("other")), "Signature"),
        ("certificate", json!(keys.certificate("ec")), "Signature"),
        ("key_info", json!(false), "KeyInfo"),
        ("encoding", json!("base64"), "assertion"),
    ];
    for (key, value, claim) in table {
        let mut wrong = right.clone();
        wrong["saml"][key] = value;
        server.expect(&wrong).await;
        let error = ask(&server, &at(now())).await.expect_err(key);
        assert!(error.starts_with(&format!("{claim}: ")), "{key}: {error}");
    }
    server.expect(&right).await;

    // Times.
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    for (now, claim) in
        [(now().before(minutes(6)), "NotOnOrAfter"), (now().after(minutes(2)), "IssueInstant")]
    {
        let error = ask(&server, &at(now)).await.expect_err(claim);
        assert!(error.starts_with(&format!("{claim}: ")), "{error}");
    }
    let mut long = bare();
    long.push(("lifetime", text("10m")));
    let long =
        token_request(&*self::grant("saml2_bearer", long), &server.saml_endpoint(), now(), None).unwrap();
    let error = ask(&server, &long).await.expect_err("ten minutes");
    assert!(error.starts_with("NotOnOrAfter: "), "{error}");

    // Twice; changed; another grant; the signature elsewhere, twice, or over a part only.
    let request = at(now());
    assert_eq!(ask(&server, &request).await, Ok(()));
    let error = ask(&server, &request).await.expect_err("twice");
    assert!(error.starts_with("ID: "), "{error}");
    let with = |change: &dyn Fn(&str) -> String| {
        let mut request = at(now());
        request.insert("assertion".into(), URL_SAFE_NO_PAD.encode(change(&xml_of(&request))));
        request
    };
    let signature = |xml: &str| {
        let end = xml.find("</ds:Signature>").unwrap() + "</ds:Signature>".len();
        xml[xml.find("<ds:Signature ").unwrap()..end].to_owned()
    };
    type Change<'a> = &'a dyn Fn(&str) -> String;
    let wrong: [(&str, Change<'_>); 5] = [
        ("changed", &|xml| xml.replace(">alice<", ">bob<")),
        ("none", &|xml| xml.replace(&signature(xml), "")),
        ("twice", &|xml| xml.replace(&signature(xml), &signature(xml).repeat(2))),
        ("elsewhere", &|xml| {
            xml.replace(&signature(xml), "")
                .replace("<saml:Subject>", &format!("<saml:Subject>{}", signature(xml)))
        }),
        ("around", &|xml| {
            format!(
                "<saml:Assertion xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\">{xml}</saml:Assertion>"
            )
        }),
    ];
    for (what, change) in wrong {
        let error = ask(&server, &with(change)).await.expect_err(what);
        assert!(error.starts_with("Signature: "), "{what}: {error}");
    }
    let mut request = at(now());
    request.insert("grant_type".into(), "urn:ietf:params:oauth:grant-type:jwt-bearer".into());
    assert!(ask(&server, &request).await.expect_err("another grant").starts_with("grant_type: "));
}

/// The public keys of `rsa` as a JWK set, as the gateway would publish them.
fn jwks(grant: &dyn Grant) -> Value {
    json!({ "keys": [grant.signing_keys().unwrap().current().public_jwk()] })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_strict_endpoint_takes_a_right_jwt_assertion_and_names_each_wrong_claim() {
    let keys = TestKeys::get().await;
    let server = StrictAssertions::start(&json!({})).await;
    let endpoint = server.jwt_endpoint();
    let bare = |key: &str| vec![("signing_key", secret(&keys.key(key))), ("key_id", text("k1"))];
    let grant = grant("jwt_bearer", bare("ec"));
    let right = json!({ "jwt": {
        "iss": "client", "sub": "alice", "aud": endpoint, "alg": "ES256", "kid": "k1", "jwks": jwks(&*grant),
        "claims": {}, "scope": "mail",
    }});
    server.expect(&right).await;
    let at = |now| token_request(&*grant, &endpoint, now, None).unwrap();
    let ask = async |request: &BTreeMap<String, String>| {
        let form: Vec<_> = request.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        server.ask(&endpoint, &form).await
    };
    let named = |error: Result<(), String>, claim: &str, what: &str| {
        let error = error.expect_err(what);
        assert!(error.starts_with(&format!("{claim}: ")), "{what}: {error}");
    };
    assert_eq!(ask(&at(now())).await, Ok(()));

    let mut others = bare("rsa");
    others.push(("signing_alg", text("RS256")));
    let table = [
        ("iss", json!("other"), "iss"),
        ("sub", json!("bob"), "sub"),
        ("aud", json!(format!("{endpoint}/")), "aud"),
        ("alg", json!("RS256"), "alg"),
        ("kid", json!("k2"), "kid"),
        ("jwks", jwks(&*self::grant("jwt_bearer", others)), "signature"),
        ("claims", json!({ "team": "a" }), "claims"),
        ("scope", json!("calendar"), "scope"),
    ];
    for (key, value, claim) in table {
        let mut wrong = right.clone();
        wrong["jwt"][key] = value;
        server.expect(&wrong).await;
        named(ask(&at(now())).await, claim, key);
    }
    server.expect(&right).await;

    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    named(ask(&at(now().before(minutes(6)))).await, "exp", "over");
    named(ask(&at(now().after(minutes(2)))).await, "exp", "from the future, so that it lasts too long");
    let of =
        |entries: Vec<(&'static str, Setting)>| self::grant("jwt_bearer", [bare("ec"), entries].concat());
    let asked = |grant: Arc<dyn Grant>, now| token_request(&*grant, &endpoint, now, None).unwrap();
    let long = asked(of(vec![("lifetime", text("10m"))]), now());
    named(ask(&long).await, "exp", "ten minutes");
    let early = asked(of(vec![("lifetime", text("1m"))]), now().after(minutes(2)));
    named(ask(&early).await, "iat", "from the future");
    for (claim, value) in
        [("jti", json!(false)), ("iat", json!(false)), ("exp", json!(false)), ("sub", json!(false))]
    {
        let without = asked(of(vec![("claims", Setting::Value(json!({ claim: value })))]), now());
        named(ask(&without).await, claim, "without it");
    }

    let request = at(now());
    assert_eq!(ask(&request).await, Ok(()));
    named(ask(&request).await, "jti", "twice");
    let mut request = at(now());
    let mut parts: Vec<String> = request["assertion"].split('.').map(str::to_owned).collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(&parts[1]).unwrap()).unwrap();
    parts[1] = URL_SAFE_NO_PAD.encode(claims.replace("alice", "bob"));
    request.insert("assertion".into(), parts.join("."));
    named(ask(&request).await, "signature", "changed");
}

/// A gateway whose profile `calendar` gets its tokens at `endpoint`, with this `[profiles.calendar.assertion]`.
fn gateway(endpoint: &str, grant: &str, assertion: &str, upstream: &Upstream) -> GatewayConfig {
    let mut config = GatewayConfig::new();
    config.section("providers.strict", &format!("token_endpoint = \"{endpoint}\""));
    config.section(
        "profiles.calendar",
        &format!(
            "provider = \"strict\"\nclient_id = \"client\"\nclient_auth = \"none\"\ngrant = \"{grant}\"\nscopes = [\"mail\"]"
        ),
    );
    config.section("profiles.calendar.assertion", assertion);
    config.call_through("calendar", upstream);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_gets_tokens_for_saml_assertions() {
    let keys = TestKeys::get().await;
    for (key, encoding) in [("rsa", "base64url"), ("ec", "base64")] {
        let (server, upstream) = (StrictAssertions::start(&json!({})).await, Upstream::start().await);
        let endpoint = server.saml_endpoint();
        server
            .expect(&json!({ "saml": {
                "issuer": "https://gateway.example", "subject": "billing@example.com", "name_id_format": EMAIL,
                "recipient": endpoint, "audience": "https://as.example", "authn_context": null, "encoding": encoding,
                "attributes": { "caller": ["billing"], "groups": ["a&b", "<c>"] },
                "certificate": keys.certificate(key), "key_info": true, "scope": "mail",
            }}))
            .await;
        let assertion = format!(
            "issuer = \"https://gateway.example\"\nsubject = \"{{subject}}@example.com\"\n\
             audience = \"https://as.example\"\nname_id_format = \"emailAddress\"\nauthn_context = \"none\"\n\
             lifetime = \"2m\"\nclock_skew = \"10s\"\nencoding = \"{encoding}\"\n\
             attributes = {{ caller = \"{{subject}}\", groups = [\"a&b\", \"<c>\"] }}\n\
             signing_key = {{ file = {:?} }}\ncertificate = {{ file = {:?} }}",
            keys.key_file(key),
            keys.certificate_file(key)
        );
        let gateway = gateway(&endpoint, "saml2_bearer", &assertion, &upstream).start().await;
        assert_eq!(gateway.token_used().await, "planted-saml-1");
        assert_eq!(gateway.token_used().await, "planted-saml-1");
        let requests = server.requests().await;
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0]["grant_type"], SAML_GRANT);
        let assertion = requests[0]["assertion"].as_str().unwrap().to_owned();
        gateway.assert_no_secret_in_log(&["planted-saml-1".into(), assertion]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_gets_tokens_for_jwt_assertions() {
    let keys = TestKeys::get().await;
    for (key, algorithm) in [("rsa", "PS256"), ("ec", "ES256")] {
        let (server, upstream) = (StrictAssertions::start(&json!({})).await, Upstream::start().await);
        let endpoint = server.jwt_endpoint();
        let pair = grant(
            "jwt_bearer",
            vec![("signing_key", secret(&keys.key(key))), ("signing_alg", text(algorithm))],
        );
        server
            .expect(&json!({ "jwt": {
                "iss": "https://gateway.example", "sub": "billing@example.com", "aud": "https://as.example",
                "alg": algorithm, "kid": pair.signing_keys().unwrap().current().kid(), "jwks": jwks(&*pair),
                "claims": { "team": "a" }, "scope": "mail",
            }}))
            .await;
        let assertion = format!(
            "issuer = \"https://gateway.example\"\nsubject = \"{{subject}}@example.com\"\n\
             audience = \"https://as.example\"\nlifetime = \"2m\"\nclaims = {{ team = \"a\" }}\n\
             signing_alg = \"{algorithm}\"\nsigning_key = {{ file = {:?} }}",
            keys.key_file(key)
        );
        let gateway = gateway(&endpoint, "jwt_bearer", &assertion, &upstream).start().await;
        assert_eq!(gateway.token_used().await, "planted-jwt-1");
        assert_eq!(gateway.token_used().await, "planted-jwt-1");
        let requests = server.requests().await;
        assert_eq!(requests.len(), 1, "{requests:?}");
        let assertion = requests[0]["assertion"].as_str().unwrap().to_owned();
        gateway.assert_no_secret_in_log(&["planted-jwt-1".into(), assertion]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_form_may_say_more() {
    let keys = TestKeys::get().await;
    let (server, upstream) = (StrictAssertions::start(&json!({})).await, Upstream::start().await);
    let mut right = expected(&server.url).await;
    right["saml"]["subject"] = json!("billing");
    right["saml"]["attributes"] = json!({ "who": ["<billing>"] });
    server.expect(&right).await;
    let form = r#"<?xml version="1.0" encoding="UTF-8"?>
<Assertion xmlns="urn:oasis:names:tc:SAML:2.0:assertion" Version="2.0" ID="{id}" IssueInstant="{now}">
  <Issuer>{issuer}</Issuer>
  <Subject>
    <NameID Format="{name_id_format}">{subject}</NameID>
    <SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
      <SubjectConfirmationData NotOnOrAfter="{not_on_or_after}" Recipient="{recipient}"/>
    </SubjectConfirmation>
  </Subject>
  <Conditions NotBefore="{not_before}" NotOnOrAfter="{not_on_or_after}">
    <AudienceRestriction><Audience>{audience}</Audience></AudienceRestriction>
    <OneTimeUse/><!-- as that server wants it -->
  </Conditions>
  <AuthnStatement AuthnInstant="{now}">
    <AuthnContext><AuthnContextClassRef>{authn_context}</AuthnContextClassRef></AuthnContext>
  </AuthnStatement>
  <AttributeStatement xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xs="http://www.w3.org/2001/XMLSchema">
    <Attribute Name="who"><AttributeValue xsi:type="xs:string">&lt;{subject}&gt;</AttributeValue></Attribute>
  </AttributeStatement>
</Assertion>
"#;
    let mut config = gateway(&server.saml_endpoint(), "saml2_bearer", "", &upstream);
    let file = config.folder().join("assertion.xml");
    std::fs::write(&file, form).unwrap();
    let lines = format!(
        "template = {{ file = {file:?} }}\nsigning_key = {{ file = {:?} }}\ncertificate = {{ file = {:?} }}",
        keys.key_file("rsa"),
        keys.certificate_file("rsa")
    );
    config.extend("profiles.calendar.assertion", &lines);
    let gateway = config.start().await;
    assert_eq!(gateway.token_used().await, "planted-saml-1");
    let requests = server.requests().await;
    let xml = URL_SAFE_NO_PAD.decode(requests[0]["assertion"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8(xml).unwrap().contains("xmlns:xs="), "what a type's name needs stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_of_somebody_else_is_sent_on_until_it_ends() {
    let server = StrictAssertions::start(&json!({})).await;
    server.expect(&expected(&server.url).await).await;
    let keys = TestKeys::get().await;
    let theirs = grant(
        "saml2_bearer",
        vec![("signing_key", secret(&keys.key("rsa"))), ("certificate", secret(&keys.certificate("rsa")))],
    );
    let endpoint = server.saml_endpoint();
    let handed_over = grant("saml2_bearer", vec![("source", text("header"))]);
    assert!(handed_over.needs_assertion() && !theirs.needs_assertion());
    for encoded in [|xml: &str| URL_SAFE_NO_PAD.encode(xml), |xml: &str| STANDARD.encode(xml)] {
        let xml = xml_of(&token_request(&*theirs, &endpoint, now(), None).unwrap());
        let request = token_request(&*handed_over, &endpoint, now(), Some(&encoded(&xml))).unwrap();
        assert_eq!(xml_of(&request), xml, "byte for byte");
        assert_eq!(ask(&server, &request).await, Ok(()));
    }

    let xml = xml_of(&token_request(&*theirs, &endpoint, now(), None).unwrap());
    let later = now().after(Duration::from_secs(5 * 60 + 31));
    let given = grant("saml2_bearer", vec![("source", secret(&xml))]);
    assert!(!given.needs_assertion());
    assert_eq!(ask(&server, &token_request(&*given, &endpoint, now(), None).unwrap()).await, Ok(()));
    let error = token_request(&*given, &endpoint, later, None).unwrap_err();
    assert!(matches!(error, GrantError::Saml(SamlError::Ended(_))), "{error}");
    let error = token_request(&*handed_over, &endpoint, later, Some(&xml)).unwrap_err();
    assert!(matches!(error, GrantError::CallAssertion(SamlError::Ended(_))), "{error}");
    assert!(error.to_string().contains("ended at 20"), "{error}");
    let error = token_request(&*handed_over, &endpoint, now(), None).unwrap_err();
    assert_eq!(error, GrantError::NoAssertion);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_has_ended_is_said_to_have_and_not_sent() {
    let keys = TestKeys::get().await;
    let (server, upstream) = (StrictAssertions::start(&json!({})).await, Upstream::start().await);
    let theirs = grant("saml2_bearer", vec![("signing_key", secret(&keys.key("rsa")))]);
    let before = now().before(Duration::from_secs(3600));
    let xml = xml_of(&token_request(&*theirs, &server.saml_endpoint(), before, None).unwrap());
    let mut config = gateway(&server.saml_endpoint(), "saml2_bearer", "", &upstream);
    config.env.insert("TEST_ASSERTION".into(), STANDARD.encode(&xml));
    config.secrets.push(STANDARD.encode(xml));
    config.extend("profiles.calendar.assertion", "source = { env = \"TEST_ASSERTION\" }");
    let gateway = config.start().await;
    let answer = gateway.call("/calendar/events").await;
    let status = answer.status;
    assert!(matches!(status, 502 | 503), "{status}");
    let problem = answer.expect_problem(status, "token_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("ended at 20"), "{problem}");
    assert_eq!(server.requests().await.len(), 0);
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_from_a_file_serves_a_gateway() {
    let keys = TestKeys::get().await;
    let (server, upstream) = (StrictAssertions::start(&json!({})).await, Upstream::start().await);
    server.expect(&expected(&server.url).await).await;
    let theirs = grant(
        "saml2_bearer",
        vec![("signing_key", secret(&keys.key("rsa"))), ("certificate", secret(&keys.certificate("rsa")))],
    );
    let xml = xml_of(&token_request(&*theirs, &server.saml_endpoint(), now(), None).unwrap());
    let mut config = gateway(&server.saml_endpoint(), "saml2_bearer", "", &upstream);
    let file = config.folder().join("theirs.xml");
    std::fs::write(&file, format!("{xml}\n")).unwrap();
    config.extend("profiles.calendar.assertion", &format!("source = {{ file = {file:?} }}"));
    let gateway = config.start().await;
    assert_eq!(gateway.token_used().await, "planted-saml-1");
    gateway.assert_no_secret_in_log(&[xml]);
}
