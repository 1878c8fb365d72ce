"""Token endpoints that take assertions, and take them at their word.

    strict_assertions.py serve JSON     an HTTP server; prints "listening PORT"; ends with its standard input
    strict_assertions.py keys FOLDER    writes pairs of keys and certificates: rsa, ec, p384, other
    strict_assertions.py verify         reads JSON lines {"xml", "certificate"}; answers each with "ok" or why not,
                                        and with the exclusive canonical form of what the signature covers

POST /jwt/token and /saml/token answer 200 only if every claim is the expected one, else 400 `invalid_grant`
with an `error_description` that begins with the claim at fault. POST /test/expect replaces what is expected,
GET /test/requests shows the forms that came.

Expected, for "jwt": iss, sub, aud, alg, kid, jwks, claims (further ones, exactly), scope.
For "saml": issuer, subject, name_id_format, recipient, audience, authn_context (null: no AuthnStatement),
attributes ({name: [values]}, exactly), certificate (PEM), key_info (whether it is in the signature), encoding, scope.
"""

import base64
import datetime
import json
import re
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.jwk import KeySet
from lxml import etree
from signxml import SignatureConfiguration, XMLVerifier

LONGEST = 5 * 60
# What a second's rounding, and a slow machine, may take.
GRACE = 5
SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256"]


class Refused(Exception):
    """The claim at fault and what is wrong with it."""

    def __init__(self, claim, problem):
        super().__init__(f"{claim}: {problem}")


def same(claim, found, expected):
    if found != expected:
        raise Refused(claim, f"is {found!r}, not {expected!r}")


def once(claim, value, seen):
    if not isinstance(value, str) or not value:
        raise Refused(claim, "is missing")
    if value in seen:
        raise Refused(claim, "was used before")
    return value


def in_time(claim, moment, now):
    """A moment from which on the assertion does not hold any more."""
    if moment <= now:
        raise Refused(claim, f"has passed: {moment} at {now}")
    if moment > now + LONGEST + GRACE:
        raise Refused(claim, f"is more than five minutes away: {moment} at {now}")


def not_ahead(claim, moment, now):
    if moment > now + GRACE:
        raise Refused(claim, f"is in the future: {moment} at {now}")


# --- JWT (RFC 7523) ------------------------------------------------------------------------------------


def check_jwt(assertion, expected, seen):
    try:
        header = json.loads(unpadded(assertion.split(".")[0]))
    except ValueError as error:
        raise Refused("assertion", f"is no JWT: {error}") from error
    same("alg", header.get("alg"), expected["alg"])
    same("kid", header.get("kid"), expected["kid"])
    same("typ", header.get("typ", "JWT"), "JWT")
    try:
        keys = KeySet.import_key_set(expected["jwks"])
        signed = jws.deserialize_compact(assertion, keys, algorithms=ALGORITHMS)
    except Exception as error:
        raise Refused("signature", f"does not verify: {error!r}") from error
    claims, now = json.loads(signed.payload), time.time()
    same("iss", claims.pop("iss", None), expected["iss"])
    same("sub", claims.pop("sub", None), expected["sub"])
    audience = claims.pop("aud", None)
    same("aud", audience[0] if isinstance(audience, list) and len(audience) == 1 else audience, expected["aud"])
    for claim in ("exp", "iat"):
        if not isinstance(claims.get(claim), int):
            raise Refused(claim, "is no whole number of seconds")
    in_time("exp", claims.pop("exp"), now)
    issued = claims.pop("iat")
    not_ahead("iat", issued, now)
    if issued < now - LONGEST - GRACE:
        raise Refused("iat", f"is too old: {issued} at {now}")
    if "nbf" in claims:
        not_ahead("nbf", claims.pop("nbf"), now)
    jti = once("jti", claims.pop("jti", None), seen)
    same("claims", claims, expected.get("claims", {}))
    seen.add(jti)


def unpadded(text):
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError("is not base64url without padding")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- SAML (RFC 7522) -----------------------------------------------------------------------------------


def read_xml(xml):
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=False)
    root = etree.fromstring(xml, parser)
    if root.getroottree().docinfo.doctype:
        raise Refused("assertion", "has a document type declaration")
    return root


def canonical(element):
    return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)


def without_signature(xml):
    root = read_xml(xml)
    for signature in root.findall(f"{DS}Signature"):
        # What follows the signature is not the signature's.
        if signature.tail:
            before = signature.getprevious()
            before.tail = (before.tail or "") + signature.tail
        root.remove(signature)
    return canonical(root)


def verify(xml, certificate):
    """One signature, right behind the issuer, over all of the assertion but itself."""
    root = read_xml(xml)
    same("Assertion", root.tag, f"{SAML}Assertion")
    signatures = list(root.iter(f"{DS}Signature"))
    same("Signature", len(signatures), 1)
    children = [child.tag for child in root if isinstance(child.tag, str)]
    same("Signature", children[:2], [f"{SAML}Issuer", f"{DS}Signature"])
    references = [reference.get("URI") for reference in root.iter(f"{DS}Reference")]
    same("Signature", references, ["#" + root.get("ID", "")])
    config = SignatureConfiguration(require_x509=True, location="./", expect_references=1)
    try:
        result = XMLVerifier().verify(xml, x509_cert=certificate, id_attribute="ID", expect_config=config)
    except Exception as error:
        raise Refused("Signature", f"does not verify: {error!r}") from error
    covered, whole = canonical(result.signed_xml), without_signature(xml)
    same("Signature", covered, whole)
    return covered


def only(claim, root, path):
    found = root.findall(path)
    same(claim, len(found), 1)
    return found[0]


def moment(claim, element, attribute):
    text = element.get(attribute)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text or ""):
        raise Refused(claim, f"is no time in UTC to the second: {text!r}")
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def check_saml(assertion, expected, seen):
    try:
        if expected.get("encoding", "base64url") == "base64url":
            xml = unpadded(assertion)
        else:
            xml = base64.b64decode(assertion, validate=True)
    except ValueError as error:
        raise Refused("assertion", str(error)) from error
    try:
        root = read_xml(xml)
    except etree.XMLSyntaxError as error:
        raise Refused("assertion", f"is no XML: {error}") from error
    verify(xml, expected["certificate"])
    now = time.time()

    same("Version", root.get("Version"), "2.0")
    not_ahead("IssueInstant", moment("IssueInstant", root, "IssueInstant"), now)
    same("Issuer", only("Issuer", root, f"{SAML}Issuer").text, expected["issuer"])

    name = only("NameID", root, f"{SAML}Subject/{SAML}NameID")
    same("NameID", name.text, expected["subject"])
    same("Format", name.get("Format"), expected["name_id_format"])
    confirmation = only("SubjectConfirmation", root, f"{SAML}Subject/{SAML}SubjectConfirmation")
    same("Method", confirmation.get("Method"), BEARER)
    data = only("SubjectConfirmationData", confirmation, f"{SAML}SubjectConfirmationData")
    same("Recipient", data.get("Recipient"), expected["recipient"])
    same("NotBefore", data.get("NotBefore"), None)
    in_time("NotOnOrAfter", moment("NotOnOrAfter", data, "NotOnOrAfter"), now)

    conditions = only("Conditions", root, f"{SAML}Conditions")
    not_ahead("NotBefore", moment("NotBefore", conditions, "NotBefore"), now)
    in_time("NotOnOrAfter", moment("NotOnOrAfter", conditions, "NotOnOrAfter"), now)
    audience = only("Audience", conditions, f"{SAML}AudienceRestriction/{SAML}Audience")
    same("Audience", audience.text, expected["audience"])

    if expected["authn_context"] is None:
        same("AuthnStatement", len(root.findall(f"{SAML}AuthnStatement")), 0)
    else:
        statement = only("AuthnStatement", root, f"{SAML}AuthnStatement")
        not_ahead("AuthnInstant", moment("AuthnInstant", statement, "AuthnInstant"), now)
        context = only("AuthnContextClassRef", statement, f"{SAML}AuthnContext/{SAML}AuthnContextClassRef")
        same("AuthnContextClassRef", context.text, expected["authn_context"])
    attributes = {
        attribute.get("Name"): [value.text or "" for value in attribute.findall(f"{SAML}AttributeValue")]
        for attribute in root.findall(f"{SAML}AttributeStatement/{SAML}Attribute")
    }
    same("attributes", attributes, expected.get("attributes", {}))

    certificates = ["".join(found.text.split()) for found in root.iter(f"{DS}X509Certificate")]
    body = "".join(line for line in expected["certificate"].splitlines() if "-----" not in line)
    same("KeyInfo", certificates, [body] if expected.get("key_info", True) else [])
    seen.add(once("ID", root.get("ID"), seen))


# --- the server ----------------------------------------------------------------------------------------

GRANTS = {
    "/jwt/token": ("jwt", "urn:ietf:params:oauth:grant-type:jwt-bearer", check_jwt),
    "/saml/token": ("saml", "urn:ietf:params:oauth:grant-type:saml2-bearer", check_saml),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    expected = {}
    requests = []
    seen = set()
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/test/requests":
            self.answer(200, Handler.requests)
        else:
            self.answer(404, {})

    def do_POST(self):
        body = self.body()
        if self.path == "/test/expect":
            Handler.expected = json.loads(body)
            return self.answer(200, {})
        if self.path not in GRANTS:
            return self.answer(404, {})
        kind, grant_type, check = GRANTS[self.path]
        with Handler.lock:
            try:
                fields = urllib.parse.parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True)
                form = {name: values[0] for name, values in fields.items()}
                Handler.requests.append({"path": self.path, **form})
                same("parameters", [name for name, values in fields.items() if len(values) != 1], [])
                same("grant_type", form.get("grant_type"), grant_type)
                expected = Handler.expected[kind]
                same("scope", form.get("scope"), expected.get("scope"))
                check(form.get("assertion", ""), expected, Handler.seen)
            except Refused as refused:
                return self.answer(400, {"error": "invalid_grant", "error_description": str(refused)})
            except Exception as error:
                return self.answer(500, {"error": "server_error", "error_description": repr(error)})
            count = len(Handler.requests)
        self.answer(200, {"access_token": f"planted-{kind}-{count}", "token_type": "Bearer", "expires_in": 3600})


def serve(expected):
    Handler.expected = expected
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening {server.server_address[1]}", flush=True)
    sys.stdin.read()


# --- keys ----------------------------------------------------------------------------------------------


def make_keys(folder):
    made = {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "other": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    }
    now = datetime.datetime.now(datetime.timezone.utc)
    for name, key in made.items():
        who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} of the tests")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with open(f"{folder}/{name}.pem", "wb") as file:
            file.write(private)
        with open(f"{folder}/{name}.crt", "wb") as file:
            file.write(certificate.public_bytes(serialization.Encoding.PEM))


def verify_lines():
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"ok": True, "covered": verify(asked["xml"].encode(), asked["certificate"]).decode()}
        except (Refused, etree.XMLSyntaxError) as refused:
            answer = {"ok": False, "why": str(refused)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", expected]:
            serve(json.loads(expected))
        case ["keys", folder]:
            make_keys(folder)
        case ["verify"]:
            verify_lines()
        case _:
            sys.exit(__doc__)
