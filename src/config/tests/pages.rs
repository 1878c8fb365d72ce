//! What the pages of the documentation show: every configuration is good, and the list of providers is
//! the catalogue's.
//!
//! A block marked `toml` is a whole configuration. One marked `toml,fragment` shows what matters, and is
//! completed here with what its page says stands beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use claviger_actors::testing::keys;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::super::entry::Entry;
use super::{HASH, KEY, Variables, load};

/// Pages of these folders.
const FOLDERS: [&str; 2] = ["docs", "docs/providers"];
const LIST: &str = "docs/providers/README.md";

/// Each page with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let files = FOLDERS.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = files.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// The blocks of a page that are marked `kind`, also where they are indented.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let (mut blocks, mut lines) = (Vec::new(), page.lines());
    let opening = format!("```{kind}");
    while let Some(line) = lines.next() {
        if line.trim() == opening {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
            blocks.push(block.iter().map(|line| format!("{}\n", line.trim_start())).collect());
        }
    }
    blocks
}

/// A folder with every file that the pages name.
struct Folder {
    directory: TempDir,
    files: BTreeSet<String>,
}

impl Folder {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let robot = serde_json::json!({
            "type": "service_account", "private_key_id": "0a1b2c", "client_email": "robot@p.example",
            "private_key": std::str::from_utf8(keys::RSA).unwrap(),
            "token_uri": "https://oauth2.googleapis.com/token",
        });
        let template = blocks(&std::fs::read_to_string("docs/grants.md").unwrap(), "xml").remove(0);
        let (robot, key) = (robot.to_string(), key.serialize_pem());
        let files: [(&str, &[u8]); 13] = [
            ("sign.pem", keys::P256),
            ("sign-new.pem", keys::ED25519),
            ("ledger.pem", keys::P256),
            ("crm.pem", keys::RSA),
            ("payroll.pem", keys::RSA),
            ("payroll.crt", keys::RSA_CERTIFICATE),
            ("robot.json", robot.as_bytes()),
            ("assertion.xml", template.as_bytes()),
            ("client.pem", certificate.as_bytes()),
            ("client.key", key.as_bytes()),
            ("ca.pem", certificate.as_bytes()),
            ("books.secret", b"HUSH"),
            ("books-new.secret", b"HUSH too"),
        ];
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
        std::fs::create_dir(directory.path().join("providers")).unwrap();
        Self { directory, files: files.iter().map(|(name, _)| (*name).to_owned()).collect() }
    }

    /// What is wrong with the configuration `text`.
    fn check(&self, text: &str) -> Vec<String> {
        let path = self.directory.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let place = format!("{}/", self.directory.path().display());
        match load(&path, &environment(text)) {
            Ok(config) => config.warnings.iter().map(|warning| format!("warning: {warning}")).collect(),
            Err(errors) => errors.to_string().lines().map(|line| line.replace(&place, "")).collect(),
        }
    }
}

/// A value for every variable that `text` takes a secret from.
fn environment(text: &str) -> Variables {
    let names = text.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let value = |name: &str| match name {
        name if name.starts_with("CLAVIGER_KEY_") => KEY,
        name if name.ends_with("_PASSWORD_HASH") => HASH,
        _ => "HUSH",
    };
    names.map(|name| (name.to_owned(), value(name).to_owned())).collect()
}

/// The tables of a configuration, in order: header and lines.
fn tables(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut tables: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((header, _)) => tables.push((header.to_owned(), Vec::new())),
            None => tables.last_mut().expect("a fragment begins with a table").1.push(line),
        }
    }
    tables
}

fn has(lines: &[&str], key: &str) -> bool {
    lines.iter().any(|line| line.split_once('=').is_some_and(|(name, _)| name.trim() == key))
}

/// The name in a header such as `routes.NAME`.
fn named<'a>(header: &'a str, section: &str) -> Option<&'a str> {
    header.strip_prefix(section)?.strip_prefix('.').filter(|name| !name.contains('.'))
}

/// A fragment with what stands beside it.
fn completed(fragment: &str) -> String {
    let shown = tables(fragment);
    let names = |section: &str| -> Vec<String> {
        shown.iter().filter_map(|(header, _)| named(header, section)).map(str::to_owned).collect()
    };
    let (profiles, mut routes) = (names("profiles"), names("routes"));
    let first = profiles.first().cloned().unwrap_or_else(|| "books".to_owned());
    let mut text = String::new();
    for (header, lines) in &shown {
        let mut missing = Vec::new();
        if header == "server" {
            missing.push(("public_url", "\"https://gateway.example.com\"".to_owned()));
        } else if named(header, "profiles").is_some() && !has(lines, "provider") {
            missing.extend([
                ("provider", "\"acme\"".to_owned()),
                ("client_id", "\"claviger\"".to_owned()),
                ("grant", "\"authorization_code\"".to_owned()),
            ]);
            if !has(lines, "client_auth") {
                missing.push(("client_secret", "\"HUSH\"".to_owned()));
            }
        } else if named(header, "providers").is_some() && !has(lines, "token_endpoint") {
            missing.push(("issuer", "\"https://id.acme.example\"".to_owned()));
        } else if let Some(name) = named(header, "routes") {
            missing.extend([
                ("path", format!("\"/{name}\"")),
                ("upstream", "\"https://api.acme.example\"".to_owned()),
                ("profile", format!("{first:?}")),
            ]);
        }
        let written: String = missing
            .iter()
            .filter(|(key, _)| !has(lines, key))
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        writeln!(text, "[{header}]\n{written}{}", lines.join("\n")).unwrap();
    }
    let shows = |header: &str| shown.iter().any(|(shown, _)| shown == header);
    if !shows("server") {
        text.push_str("[server]\npublic_url = \"https://gateway.example.com\"\n");
    }
    text.push_str("[store]\nbackend = \"sled\"\npath = \"data\"\n");
    if !shows("store.encryption") {
        writeln!(text, "[store.encryption]\nactive = \"k1\"\nkeys = {{ k1 = \"{KEY}\" }}").unwrap();
    }
    if !shows("providers.acme") {
        text.push_str("[providers.acme]\nissuer = \"https://id.acme.example\"\n");
    }
    let without_route = profiles.iter().filter(|name| !text.contains(&format!("profile = {name:?}")));
    let without_route: Vec<String> = without_route.cloned().collect();
    for name in without_route {
        let route =
            format!("path = \"/{name}\"\nupstream = \"https://api.acme.example\"\nprofile = {name:?}");
        writeln!(text, "[routes.{name}]\n{route}").unwrap();
        routes.push(name);
    }
    if profiles.is_empty() && !routes.is_empty() {
        let client = "provider = \"acme\"\nclient_id = \"claviger\"\nclient_secret = \"HUSH\"";
        writeln!(text, "[profiles.books]\n{client}\ngrant = \"client_credentials\"").unwrap();
    }
    if names("callers").is_empty() && !routes.is_empty() {
        // With a JWT besides, for routes that take something from it.
        let jwt = "jwt = { issuer = \"https://id.acme.example\", audience = \"claviger\", \
                   jwks_uri = \"https://id.acme.example/jwks\" }";
        let basic = format!("basic = {{ username = \"billing\", password_hash = \"{HASH}\" }}");
        writeln!(text, "[callers.billing]\n{basic}\n{jwt}\nmay_name_subject = true\nroutes = {routes:?}")
            .unwrap();
    }
    text
}

#[test]
fn what_the_pages_show_is_good() {
    let folder = Folder::new();
    let (mut faults, mut shown, mut unnamed) = (Vec::new(), 0, folder.files.clone());
    for (page, text) in pages() {
        let whole = blocks(&text, "toml");
        let fragments = blocks(&text, "toml,fragment");
        assert_eq!(text.matches("```toml").count(), whole.len() + fragments.len(), "{}", page.display());
        for block in whole.into_iter().chain(fragments.iter().map(|fragment| completed(fragment))) {
            shown += 1;
            unnamed.retain(|file| !block.contains(&format!("\"{file}\"")));
            let told = folder.check(&block);
            faults.extend(told.into_iter().map(|fault| format!("{}: {fault}\n{block}", page.display())));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(shown > 40, "{shown}");
    assert!(unnamed.is_empty(), "no page names {unnamed:?} any more");
}

#[test]
fn a_fault_in_a_fragment_would_be_told() {
    let folder = Folder::new();
    for (fragment, told) in [
        ("[profiles.books]\npushed = true\n", "profiles.books.pushed: unknown key"),
        ("[routes.books]\nsubject = \"{nobody}\"\n", "routes.books.subject: has the unknown placeholder"),
        (
            "[providers.acme]\nissuer = \"https://id.acme.example\"\nretries = 99\n",
            "providers.acme.retries: ",
        ),
        ("[server]\nsigning_key_lifetime = \"soon\"\n", "server.signing_key_lifetime: "),
    ] {
        let faults = folder.check(&completed(fragment));
        assert!(faults.len() == 1 && faults[0].contains(told), "{fragment}: {faults:?}");
    }
}

#[test]
fn the_list_of_providers_is_the_catalogues() {
    let page = std::fs::read_to_string(LIST).unwrap();
    let (_, list) = page.split_once("|---|---|---|---|\n").unwrap();
    let rows: Vec<&str> = list.lines().take_while(|line| line.starts_with('|')).collect();
    let expected: Vec<String> = Entry::all()
        .unwrap()
        .iter()
        .map(|entry| {
            let Entry { name, title, .. } = entry;
            let grants: Vec<String> = entry.grants.iter().map(|grant| format!("`{grant}`")).collect();
            let confidence = entry.confidence.as_deref().unwrap_or_default();
            let file = format!("../../config/providers/{name}.toml");
            format!("| [`{name}`]({file}) | {title} | {} | {confidence} |", grants.join(", "))
        })
        .collect();
    let wrong: Vec<&String> = expected.iter().filter(|row| !rows.contains(&row.as_str())).collect();
    assert!(wrong.is_empty(), "{LIST} lacks these rows:\n{wrong:#?}");
    assert_eq!(rows, expected, "in the order of their names, and no others");
}
