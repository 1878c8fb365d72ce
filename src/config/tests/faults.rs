//! One fault at a time: what is changed, and what is told.

use super::{KEY, Variables, faults, good};

/// What is put in the place of what, and the one fault that it makes.
const BAD: &[(&str, &str, &str)] = &[
    ("[server]", "[servr]\n[server]", "servr: unknown key; did you mean `server`?"),
    (
        "[server]",
        "[server]\nsigning_key_lifetime = \"59m\"",
        "server.signing_key_lifetime: must be from 1h, so that providers see keys in time, to 10years",
    ),
    ("path = \"data\"", "pth = \"data\"", "store.pth: unknown key; did you mean `path`?"),
    (
        "client_secret =",
        "client_secrt =",
        "profiles.books.client_secrt: unknown key; did you mean `client_secret`?",
    ),
    ("client_secret =", "parr = true #", "profiles.books.parr: unknown key"),
    (
        "client_secret =",
        "signing_key = { file = \"none\" }\nclient_secret =",
        "profiles.books.signing_key: unknown key beside the others; it is for client_auth = \"private_key_jwt\"",
    ),
    (
        "client_secret = \"HUSH\"",
        "client_secrt = { env = \"NO\" }",
        "profiles.books.client_secrt: unknown key; did you mean `client_secret`?",
    ),
    ("client_secret =", "#", "profiles.books.client_secret: is missing"),
    ("client_secret = \"HUSH\"", "client_secret = 1234", "profiles.books.client_secret: must be a secret"),
    (
        "client_secret = \"HUSH\"",
        "client_secret = { env = \"NO\" }",
        "profiles.books.client_secret: environment variable NO is not set",
    ),
    (
        "client_secret = \"HUSH\"",
        "client_secret = { env = \"A\", file = \"b\" }",
        "profiles.books.client_secret: must have either `env` or `file`",
    ),
    (
        "client_secret = \"HUSH\"",
        "client_secret = { env = \"A\", fil = \"b\" }",
        "profiles.books.client_secret.fil: unknown key; did you mean `file`?",
    ),
    (
        "provider = \"acme\"",
        "provider = \"acmee\"",
        "profiles.books.provider: there is no provider `acmee`; did you mean `acme`?",
    ),
    ("provider = \"acme\"", "", "profiles.books.provider: is missing"),
    ("client_id = \"c\"", "client_id = 5", "profiles.books.client_id: must be a string, not a number"),
    ("client_id = \"c\"", "", "profiles.books.client_id: is missing"),
    (
        "\"client_credentials\"",
        "\"client_credential\"",
        "profiles.books.grant: there is no grant `client_credential`; did you mean `client_credentials`?",
    ),
    (
        "\"client_credentials\"",
        "\"authorization_code\"",
        "profiles.books.provider: provider `acme` has neither `authorization_endpoint` nor `issuer`",
    ),
    (
        "client_id = \"c\"",
        "client_id = \"c\"\nclient_auth = \"basic\"",
        "profiles.books.client_auth: there is no client authentication `basic`; known: ",
    ),
    ("client_id = \"c\"", "client_id = \"c\"\nscopes = [\"a b\"]", "profiles.books.scopes: scope \"a b\""),
    ("client_id = \"c\"", "client_id = \"c\"\npkce = \"plain\"", "profiles.books.pkce: must be \"S256\""),
    (
        "client_id = \"c\"",
        "client_id = \"c\"\nid_token_signing_alg = \"none\"",
        "profiles.books.id_token_signing_alg: `none` is no signature algorithm",
    ),
    (
        "client_id = \"c\"",
        "client_id = \"c\"\nauthorize_params = { state = \"x\" }",
        "profiles.books.authorize_params.state: is written by the gateway itself",
    ),
    (
        "client_id = \"c\"",
        "client_id = \"c\"\ndefault_token_lifetime = \"0s\"",
        "profiles.books.default_token_lifetime: must be longer than nothing",
    ),
    ("token_endpoint = \"https:", "token_endpoint = \"http:", "providers.acme.token_endpoint: must be https"),
    ("token_endpoint =", "revocation_endpoint =", "providers.acme: needs an `issuer`"),
    (
        "token_endpoint = \"https://id",
        "token_endpoint = \"https://HUSH:HUSH@id",
        "providers.acme.token_endpoint: must have no user name or password",
    ),
    ("https://gw.example", "http://gw.example", "server.public_url: must be https"),
    ("https://gw.example/base/", "https://gw.example/?a=1", "server.public_url: must have no query"),
    ("https://gw.example/base/", "gw.example", "server.public_url: is not a URL"),
    ("public_url = ", "#", "server.public_url: is missing"),
    ("[listeners.admin]", "workers = 0\n[listeners.admin]", "server.workers: must be from 1 to 256"),
    (
        "[listeners.admin]",
        "workers = \"2\"\n[listeners.admin]",
        "server.workers: must be a whole number, not a string",
    ),
    (
        "[listeners.admin]",
        "workers = -2\n[listeners.admin]",
        "server.workers: must be a whole number, not negative",
    ),
    ("127.0.0.1:9000", "localhost:9000", "listeners.admin.bind: must be an IP address and a port"),
    ("127.0.0.1:9000", "127.0.0.1:8080", "listeners.admin.bind: 127.0.0.1:8080 is taken by listeners.proxy"),
    ("127.0.0.1:9000", "0.0.0.0:9000", "listeners.admin.token: is missing; it is required unless"),
    ("bind =", "token = \"a b\"\nbind =", "listeners.admin.token: must be visible ASCII"),
    (
        "backend = \"sled\"",
        "backend = \"slet\"",
        "store.backend: there is no store backend `slet`; did you mean `sled`?",
    ),
    ("path = \"data\"", "", "store.path: is missing"),
    ("path = \"data\"", "path = 3", "store.path: must be the path of a directory"),
    (
        "active = \"k1\"",
        "active = \"k2\"",
        "store.encryption.active: there is no key `k2`; did you mean `k1`?",
    ),
    ("active = \"k1\"", "", "store.encryption.active: is missing"),
    (KEY, "HUSH!", "store.encryption.keys.k1: is not base64"),
    (KEY, "c2hvcnQ=", "store.encryption.keys.k1: is not 32 bytes"),
    (
        "password_hash = \"$argon2id$",
        "password_hash = \"HUSH$",
        "callers.billing.basic.password_hash: is not an argon2id hash in PHC form",
    ),
    ("$argon2id$", "$argon2i$", "callers.billing.basic.password_hash: must be an argon2id hash"),
    ("m=19456", "m=4000000", "callers.billing.basic.password_hash: costs too much to verify"),
    ("$/np1sw6oRsTUrjSAQ/H9ZUv9pDj8plyngFqNR1gFv40", "", "callers.billing.basic.password_hash: is cut short"),
    (
        "username = \"billing\"",
        "username = \"bil:ling\"",
        "callers.billing.basic.username: must not be empty, nor have a colon",
    ),
    ("basic = {", "# {", "callers.billing.basic: is missing, and the caller has no other credential"),
    ("basic = {", "basic = \"HUSH\" # {", "callers.billing.basic: must be a table, not a string"),
    (
        "routes = [\"books\"]",
        "routes = [\"books\", 1]",
        "callers.billing.routes.1: must be a string, not a number",
    ),
    ("[callers.billing]", "[callers.x]\n[callers.billing]", "callers.x.basic: is missing"),
    (
        "client_secret = \"HUSH\"",
        "client_secret = { env = [\"HUSH\"] }",
        "profiles.books.client_secret.env: must be a string, not an array",
    ),
    (
        "client_secret = \"HUSH\"",
        "client_secret = [\"HUSH\", 5]",
        "profiles.books.client_secret: must be a secret, or an array of secrets",
    ),
    ("client_secret = \"HUSH\"", "client_secret = {}", "profiles.books.client_secret: must be a secret"),
    ("client_id = \"c\"", "client_id = 1979-05-27", "profiles.books.client_id: must be a string, not a date"),
    (
        "token_endpoint = \"https://id.acme.example/token\"",
        "token_endpoint = 5",
        "providers.acme.token_endpoint: must be a string, not a number",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\ntimeout = \"99999999999999999999h\"",
        "routes.books.timeout: must be a duration",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\ntimeout = \"-3s\"",
        "routes.books.timeout: must be a duration",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\nprotocol = \"http3\"",
        "routes.books.protocol: `http3` is none of \"auto\", \"http1\" and \"http2\"; did you mean",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\nmax_body = \"99999999999GiB\"",
        "routes.books.max_body: must be a size",
    ),
    ("profile = \"books\"", "profile = \"books\"\nmax_body = nan", "routes.books.max_body: must be a size"),
    (
        "[listeners.admin]",
        "workers = 9223372036854775807\n[listeners.admin]",
        "server.workers: must be from 1 to 256",
    ),
    ("[callers.billing]", "[callers]\nx = 3\n[callers.billing]", "callers.x: must be a table, not a number"),
    (
        "[profiles.books]",
        "[profiles]\nx = 1979-05-27\n[profiles.books]",
        "profiles.x: must be a table, not a date",
    ),
    (
        "routes = [\"books\"]",
        "routes = [\"bookz\"]",
        "callers.billing.routes: there is no route `bookz`; did you mean `books`?",
    ),
    ("routes = [\"books\"]", "routes = \"books\"", "callers.billing.routes: must be an array, not a string"),
    ("path = \"/books\"", "path = \"books\"", "routes.books.path: must start with `/`"),
    ("path = \"/books\"", "path = \"/books/\"", "routes.books.path: must not end with `/`"),
    ("path = \"/books\"", "path = \"/a/../b\"", "routes.books.path: must have no `.` or `..` segment"),
    ("path = \"/books\"", "path = \"/a//b\"", "routes.books.path: must have no empty segment"),
    ("path = \"/books\"", "path = \"/a%2e\"", "routes.books.path: must have no percent-encoding"),
    ("path = \"/books\"", "", "routes.books.path: is missing"),
    (
        "profile = \"books\"",
        "path2 = 1\nprofile = \"books\"",
        "routes.books.path2: unknown key; did you mean `path`?",
    ),
    ("https://api.acme", "http://api.acme", "routes.books.upstream: must be https"),
    (
        "https://api.acme.example/v1/",
        "https://api.acme.example/?a",
        "routes.books.upstream: must have no query",
    ),
    (
        "https://api.acme.example/v1/",
        "https://api.acme.example/#a",
        "routes.books.upstream: must have no fragment",
    ),
    (
        "https://api.acme.example/v1/",
        "https://api.acme.example/a/..%2fb",
        "routes.books.upstream: has a path that is refused",
    ),
    (
        "profile = \"books\"",
        "profile = \"book\"",
        "routes.books.profile: there is no profile `book`; did you mean `books`?",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\nsubject = \"cookie\"",
        "routes.books.subject: `cookie` is no source of a subject; known: caller, header, jwt, shared",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\nmethods = [\"get\"]",
        "routes.books.methods: `get` must be in capitals",
    ),
    ("profile = \"books\"", "profile = \"books\"\nmethods = []", "routes.books.methods: allows nothing"),
    (
        "profile = \"books\"",
        "profile = \"books\"\ntimeout = 30",
        "routes.books.timeout: must be a duration with its unit",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\nmax_body = \"10 apples\"",
        "routes.books.max_body: must be a size",
    ),
    (
        "profile = \"books\"",
        "profile = \"books\"\n[routes.b2]\npath = \"/books\"\nupstream = \"https://a.example\"\nprofile = \"books\"",
        "routes.books.path: is also that of routes.b2",
    ),
];

#[test]
fn each_fault_is_told_with_its_key() {
    for (from, to, wanted) in BAD {
        let text = good();
        assert!(text.contains(from), "{from}");
        let told = faults(&text.replacen(from, to, 1), &Variables::new());
        let right = told.iter().any(|fault| fault.starts_with(wanted));
        // What follows from a fault may be told as well, but the fault itself must be.
        assert!(right, "{from} -> {to}: wanted {wanted:?}, got {told:#?}");
    }
}

/// Slips of which one fault must be told and no more: what follows from it is not told.
#[test]
fn what_follows_from_a_fault_is_not_told() {
    let alone = [
        ("basic = {", "basic = \"HUSH\" # {"),
        ("client_secret = \"HUSH\"", "client_secret = { env = \"A\", file = \"HUSH\" }"),
        ("client_secret = \"HUSH\"", "client_secret = { env = [\"HUSH\"] }"),
        ("client_secret = \"HUSH\"", "client_secret = { env = \"NO\" }"),
        ("client_secret = \"HUSH\"", "client_secret = [5]"),
        ("token_endpoint = \"https://id.acme.example/token\"", "token_endpoint = 5"),
        ("bind = \"127.0.0.1:9000\"", "bind = 9000"),
        ("active = \"k1\"", "active = 1"),
        ("profile = \"books\"", "profile = 3"),
    ];
    for (from, to) in alone {
        let text = good();
        assert!(text.contains(from), "{from}");
        let told = faults(&text.replacen(from, to, 1), &Variables::new());
        assert_eq!(told.len(), 1, "{from} -> {to}: {told:#?}");
    }
    let environment = super::variables(&[("CLAVIGER_PROFILES__BOOKS", "HUSH")]);
    let told = faults(&good(), &environment);
    assert_eq!(told, ["environment variable CLAVIGER_PROFILES__BOOKS: profiles.books: must be a table"]);
    let environment = super::variables(&[("CLAVIGER_ROUTES__BOOKS", "HUSH")]);
    assert_eq!(faults(&good(), &environment).len(), 1);
}

#[test]
fn a_file_that_is_no_text_of_ours_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let told = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        crate::config::load(&path, &Variables::new()).unwrap_err().to_string()
    };
    assert!(
        told(b"[server]\nx = \"HUSH\xff\"\n").ends_with(": is not UTF-8 at line 2; save it as UTF-8 text")
    );
    assert!(told(&vec![b' '; 5 << 20]).contains(": is larger than "));
    assert!(told(b"").contains("server.public_url: is missing"));
    assert!(told(&[b"a = ".as_slice(), &[b'['; 100_000]].concat()).contains("recursion limit"));
    let doubled = told(b"[profiles.a]\nclient_secret = \"HUSH\"\nclient_secret = \"HUSH\"\n");
    assert!(doubled.contains("line 3") && doubled.contains("duplicate key `client_secret`"), "{doubled}");
    assert!(!doubled.contains("HUSH"), "{doubled}");
    let error = crate::config::load(directory.path(), &Variables::new()).unwrap_err().to_string();
    assert!(error.contains(": cannot be read: Is a directory"), "{error}");
}

#[test]
fn brackets_without_end_in_a_variable_are_a_fault() {
    let brackets = "[".repeat(100_000);
    let environment = super::variables(&[("CLAVIGER_CALLERS__BILLING__ROUTES", &brackets)]);
    let told = faults(&good(), &environment);
    assert!(told[0].ends_with("callers.billing.routes: must be an array"), "{told:?}");
}

#[test]
fn what_nothing_uses_is_warned_of() {
    let text = good()
        + "[routes.other]\npath = \"/books/sub\"\nupstream = \"https://a.example\"\nprofile = \"books\"\n"
        + "[profiles.spare]\nprovider = \"acme\"\nclient_id = \"c\"\nclient_secret = \"HUSH\"\n"
        + "grant = \"client_credentials\"\n"
        + &format!(
            "[callers.idle]\nroutes = []\nbasic = {{ username = \"i\", password_hash = \"{}\" }}\n",
            super::HASH
        );
    let environment = super::variables(&[
        ("CLAVIGER_SERVER_WORKERS", "3"),
        ("CLAVIGER_PROFILES_BOOKS_CLIENT_ID", "HUSH"),
        ("CLAVIGER_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("CLAVIGER_ADMIN_TOKEN", "HUSH"),
    ]);
    let warnings = super::load_text(&text, &environment).unwrap().warnings;
    let told: Vec<String> = warnings.iter().map(|w| format!("{}: {}", w.place.path, w.problem)).collect();
    assert_eq!(
        told,
        [
            "callers.idle.routes: is empty, so the caller may call nothing; list routes",
            "profiles.spare: no route uses it; add `profile = \"spare\"` to a route, or remove it",
            "routes.other: no caller may call it; add \"other\" to the `routes` of a caller, or remove it",
            ": is not read; did you mean CLAVIGER_PROFILES__BOOKS__CLIENT_ID?",
            ": is not read; did you mean CLAVIGER_SERVER__WORKERS?",
        ]
    );
    assert!(super::load_text(&good(), &Variables::new()).unwrap().warnings.is_empty());
}
