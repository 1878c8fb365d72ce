//! What tells a profile from what it was before, and a configuration from what it was read from.

use std::path::Path;

use claviger_actors::profile::Profile;
use tempfile::TempDir;

use super::*;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("secret", "HUSH");
        std::fs::create_dir(folder.path().join("own")).unwrap();
        folder.write("own/mine.toml", "token_endpoint = \"https://mine.example/token\"");
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn load(&self, text: &str, environment: &Variables) -> (GatewayConfig, WatchedFiles) {
        self.write("gateway.toml", text);
        let (config, files) = load_watched(&self.path().join("gateway.toml"), environment, None);
        (config.unwrap(), files)
    }
}

/// With a profile for each place that a secret or a provider can come from.
fn text() -> String {
    good().replace("[server]", "[server]\ncatalogue = \"own\"").replace(
        "[callers.billing]",
        "[profiles.by_file]
        provider = \"acme\"
        client_id = \"c\"
        client_secret = { file = \"secret\" }
        grant = \"client_credentials\"
        [profiles.by_variable]
        provider = \"acme\"
        client_id = \"c\"
        client_secret = { env = \"SECRET\" }
        grant = \"client_credentials\"
        [profiles.own]
        provider = \"mine\"
        client_id = \"c\"
        client_secret = \"HUSH\"
        grant = \"client_credentials\"
        [callers.billing]",
    )
}

fn profile<'a>(config: &'a GatewayConfig, name: &str) -> &'a Profile {
    config.profiles.iter().find(|profile| profile.registration.profile.as_str() == name).unwrap()
}

#[test]
fn a_profile_is_the_same_until_something_that_it_is_made_of_changes() {
    let all = ["books", "by_file", "by_variable", "own"];
    let secret = variables(&[("SECRET", "HUSH")]);
    let folder = Folder::new();
    let (before, _) = folder.load(&text(), &secret);
    let changed = |text: &str, environment: &Variables| -> Vec<&str> {
        let (after, _) = folder.load(text, environment);
        all.into_iter().filter(|name| !profile(&before, name).is_same_as(profile(&after, name))).collect()
    };
    assert!(changed(&text(), &secret).is_empty());
    let other = text().replace("path = \"/books\"", "path = \"/other\"").replace("9000", "9001");
    assert!(changed(&other, &secret).is_empty(), "routes and listeners are no part of it");
    assert_eq!(changed(&text().replacen("\"HUSH\"", "\"LOUD\"", 1), &secret), ["books"]);
    let elsewhere = text().replace("https://api.acme.example", "https://other.example");
    assert_eq!(changed(&elsewhere, &secret), ["books"], "what its tokens are bound to is");
    let moved = text().replace("id.acme.example", "login.acme.example");
    assert_eq!(changed(&moved, &secret), ["books", "by_file", "by_variable"]);
    assert_eq!(changed(&text(), &variables(&[("SECRET", "LOUD")])), ["by_variable", "own"]);
    let key = variables(&[("SECRET", "HUSH"), ("CLAVIGER_PROFILES__BOOKS__CLIENT_ID", "d")]);
    assert_eq!(changed(&text(), &key), ["books"]);
    folder.write("own/mine.toml", "token_endpoint = \"https://mine.example/token2\"");
    assert_eq!(changed(&text(), &secret), ["own"]);
    folder.write("own/mine.toml", "token_endpoint = \"https://mine.example/token\"");
    folder.write("secret", "LOUD");
    assert_eq!(changed(&text(), &secret), ["by_file", "own"], "`own` could name any file");
    assert!(all.iter().all(|name| profile(&before, name).made_of.is_some()));
}

#[test]
fn keys_that_count_at_the_start_are_named() {
    let secret = variables(&[("SECRET", "HUSH")]);
    let folder = Folder::new();
    let differing = |from: &str, to: &str| {
        let (before, _) = folder.load(from, &secret);
        let (after, _) = folder.load(to, &secret);
        before.start_keys.differing(&after.start_keys)
    };
    assert!(differing(&text(), &text()).is_empty());
    let to = text()
        .replace("9000", "9001")
        .replace("\"data\"", "\"elsewhere\"")
        .replace("https://gw.example/base/", "https://gw.example/")
        .replace("catalogue = \"own\"", "catalogue = \"own\"\nsigning_key_lifetime = \"30d\"\nworkers = 3")
        .replace("\"/books\"", "\"/other\"");
    let keys = ["listeners.admin.bind", "server.public_url", "server.workers", "store.path"];
    assert_eq!(differing(&text(), &to), keys);
    let key = KEY.replace("AAEC", "BBEC");
    assert_eq!(differing(&text(), &text().replace(KEY, &key)), ["store.encryption.keys.k1"]);
    let with_token = text().replace("bind =", "token = { file = \"secret\" }\nbind =");
    let (before, _) = folder.load(&with_token, &secret);
    folder.write("secret", "LOUD");
    let (after, _) = folder.load(&with_token, &secret);
    assert_eq!(before.start_keys.differing(&after.start_keys), ["listeners.admin.token"]);
}

#[test]
fn every_file_is_watched_also_one_that_is_not_there() {
    let secret = variables(&[("SECRET", "HUSH")]);
    let folder = Folder::new();
    let (_, files) = folder.load(&text(), &secret);
    assert_eq!(files, files.now());
    for name in ["secret", "own/mine.toml", "gateway.toml"] {
        let before = files.now();
        let kept = std::fs::read_to_string(folder.path().join(name)).unwrap();
        folder.write("new", &kept);
        std::fs::rename(folder.path().join("new"), folder.path().join(name)).unwrap();
        assert_ne!(before, files.now(), "{name}");
    }
    let before = files.now();
    folder.write("own/another.toml", "");
    assert_ne!(before, files.now(), "what comes into the catalogue");
    std::fs::remove_file(folder.path().join("own/another.toml")).unwrap();

    std::fs::remove_file(folder.path().join("secret")).unwrap();
    let (refused, files) = load_watched(&folder.path().join("gateway.toml"), &secret, None);
    assert!(refused.is_err());
    assert_eq!(files, files.now());
    folder.write("secret", "HUSH");
    assert_ne!(files, files.now(), "what was missed is seen to come");
}
