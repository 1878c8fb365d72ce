#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use argon2::{Argon2, PasswordHash, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::CommandFactory as _;

use super::*;

/// What a command gave: whether it is done well, standard output, standard error.
fn run(arguments: &[&str], input: &str) -> (Option<bool>, String, String) {
    let cli = Cli::try_parse_from(std::iter::once("claviger").chain(arguments.iter().copied())).unwrap();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let mut input = Cursor::new(input.as_bytes());
    let mut streams = Streams { input: &mut input, output: &mut output, errors: &mut errors };
    let outcome = cli.execute(&BTreeMap::new(), &mut streams);
    let done = match outcome {
        Outcome::Done(code) => Some(format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS)),
        Outcome::Serve(..) | Outcome::Demo { .. } => None,
    };
    (done, String::from_utf8(output).unwrap(), String::from_utf8(errors).unwrap())
}

#[test]
fn the_arguments_are_well_formed() {
    Cli::command().debug_assert();
    let usage = Cli::try_parse_from(["claviger", "frob"]).unwrap_err();
    assert_eq!(usage.exit_code(), 2);
}

#[test]
fn a_key_is_all_that_is_printed() {
    let (done, first, errors) = run(&["keys", "generate"], "");
    assert_eq!((done, errors.as_str()), (Some(true), ""));
    assert_eq!(STANDARD.decode(first.strip_suffix('\n').unwrap()).unwrap().len(), 32);
    assert_ne!(run(&["keys", "generate"], "").1, first);
}

#[test]
fn a_hash_verifies_the_line_that_was_given() {
    for input in ["correct horse", "correct horse\n", "correct horse\r\n"] {
        let (done, hash, _) = run(&["hash-secret"], input);
        assert_eq!(done, Some(true));
        let hash = PasswordHash::new(hash.trim_end()).unwrap();
        assert_eq!(hash.algorithm.as_str(), "argon2id");
        Argon2::default().verify_password(b"correct horse", &hash).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse\n", &hash).is_err());
    }
    for input in ["", "\n", &"x".repeat(2000)] {
        let (done, output, errors) = run(&["hash-secret"], input);
        assert_eq!((done, output.as_str()), (Some(false), ""));
        assert!(!errors.is_empty() && !errors.contains("xxx"));
    }
}

#[test]
fn an_api_key_is_hashed_as_a_caller_is_configured_with_it() {
    let (done, hash, _) = run(&["hash-secret", "--api-key"], "abc\n");
    assert_eq!(done, Some(true));
    assert_eq!(hash, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n");
    assert_eq!(run(&["hash-secret", "--api-key"], "").0, Some(false));
}

#[test]
fn a_bad_configuration_fails_check_and_run_alike() {
    let check = run(&["check"], "");
    assert_eq!(check.0, Some(false));
    assert_eq!(check.2.lines().count(), 3, "{}", check.2);
    assert_eq!(run(&["run", "--config", config::DEFAULT_PATH], ""), check);
}

#[test]
fn providers_are_listed_and_shown() {
    let (done, list, errors) = run(&["providers"], "");
    assert_eq!((done, errors.as_str()), (Some(true), ""));
    let google = list.lines().find(|line| line.starts_with("google ")).unwrap();
    assert!(google.contains(" Google ") && google.contains(" authorization_code "), "{google}");
    assert!(google.ends_with(" high"), "{google}");

    let (_, shown, _) = run(&["providers", "salesforce"], "");
    for part in [
        "Salesforce (salesforce)\n",
        "http://127.0.0.1:8081/callback",
        "\nWhat to know\n\n  create an external client app",
        "\n  host           Where people sign in",
        "\n[profiles.salesforce]\nprovider = \"salesforce\"\n",
        "\n[routes.salesforce]\npath = \"/salesforce\"\nupstream = \"{token.instance_url}/",
        "  curl -u NAME 'http://127.0.0.1:8080/salesforce/limits'\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert!(!shown.contains("From:") && !shown.contains("token_endpoint"), "{shown}");

    let source = std::fs::read_to_string("config/providers/salesforce.toml").unwrap();
    assert_eq!(run(&["providers", "salesforce", "--source"], "").1, source);
    let (done, _, told) = run(&["providers", "nobody"], "");
    assert_eq!(done, Some(false));
    assert!(told.contains("there is no provider `nobody`"), "{told}");
    assert_eq!(run(&["providers", "--source"], "").0, Some(false));
}

/// An admin listener that gives one answer, and then what it was asked.
fn admin(answer: &'static str) -> (tempfile::TempDir, String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        let mut buffer = [0u8; 4096];
        loop {
            let count = socket.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
            let read = String::from_utf8_lossy(&text).into_owned();
            let whole = read.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                body.len() >= length.unwrap_or(0)
            });
            if whole || count == 0 {
                socket.write_all(answer.as_bytes()).unwrap();
                return read;
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, format!("[listeners.admin]\nbind = \"{address}\"\ntoken = \"HUSH\"\n")).unwrap();
    (directory, path.display().to_string(), asked)
}

#[test]
fn connections_are_asked_for_at_the_admin_listener() {
    const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"state\":\"good\"}";
    let cases: [(&[&str], &str); 8] = [
        (&["list", "--profile", "a b", "--limit", "5"], "GET /api/connections?profile=a+b&limit=5 HTTP/1.1"),
        (&["show", "calendar", "al/ice?"], "GET /api/connections/calendar/al%2Fice%3F HTTP/1.1"),
        (&["refresh", "calendar", "alice"], "POST /api/connections/calendar/alice/refresh HTTP/1.1"),
        (&["introspect", "calendar", "alice"], "POST /api/connections/calendar/alice/introspect HTTP/1.1"),
        (&["import", "calendar", "alice"], "PUT /api/connections/calendar/alice HTTP/1.1"),
        (&["userinfo", "calendar", "alice"], "GET /api/connections/calendar/alice/userinfo HTTP/1.1"),
        (&["rekey", "calendar", "s1", "--to", "alice"], "POST /api/connections/calendar/s1/rekey HTTP/1.1"),
        (
            &["rekey", "calendar", "s1", "--to-id-token-sub", "--replace"],
            "POST /api/connections/calendar/s1/rekey",
        ),
    ];
    for (arguments, line) in cases {
        let (_directory, path, asked) = admin(GOOD);
        let all = [&["connections", "--config", &path], arguments].concat();
        let (done, output, errors) = run(&all, "{\"access_token\":\"t\"}");
        let asked = asked.join().unwrap();
        assert!(asked.starts_with(line), "{asked}");
        assert!(asked.to_lowercase().contains("authorization: bearer hush\r\n"), "{asked}");
        assert_eq!(asked.ends_with("{\"access_token\":\"t\"}"), arguments[0] == "import", "{asked}");
        if arguments[0] == "rekey" {
            let body = match arguments.len() {
                5 if arguments[3] == "--to" => r#"{"replace":false,"subject":"alice"}"#,
                _ => r#"{"replace":true,"to":"id_token_sub"}"#,
            };
            assert!(asked.ends_with(body), "{asked}");
        }
        assert_eq!((done, errors.as_str()), (Some(true), ""));
        assert_eq!(output, "{\n  \"state\": \"good\"\n}\n");
    }
}

#[test]
fn a_connection_moves_to_one_subject() {
    for wrong in [&["--to", "a", "--to-id-token-sub"][..], &[], &["--replace"]] {
        let all = [&["claviger", "connections", "rekey", "calendar", "s1"], wrong].concat();
        assert_eq!(Cli::try_parse_from(all).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_or_is_not_json_fails() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"state\":",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        "",
    ] {
        let (_directory, path, asked) = admin(answer);
        let (done, output, errors) = run(&["connections", "list", "--config", &path], "");
        asked.join().unwrap();
        assert_eq!((done, output.as_str()), (Some(false), ""), "{answer}");
        assert!(!errors.is_empty());
    }
}

#[test]
fn a_gateway_that_does_not_run_is_told_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    std::fs::write(&path, format!("listeners.admin.bind = \"{address}\"\n")).unwrap();
    let (done, _, errors) = run(&["connections", "list", "--config", &path.display().to_string()], "");
    assert_eq!(done, Some(false));
    assert!(errors.contains(&address.to_string()) && errors.contains("is the gateway running"), "{errors}");
}

#[test]
fn usage_helps_along() {
    let fault = |arguments: &[&str]| {
        let all = std::iter::once("claviger").chain(arguments.iter().copied());
        Cli::try_parse_from(all).unwrap_err()
    };
    let nothing = fault(&[]);
    assert_eq!(nothing.exit_code(), 2);
    assert!(nothing.to_string().contains("hash-secret"), "{nothing}");
    for (arguments, tip) in [
        (&["chekc"][..], "'check'"),
        (&["connections", "lst"], "'list'"),
        (&["run", "--confg", "x"], "'--config'"),
    ] {
        let fault = fault(arguments);
        assert_eq!(fault.exit_code(), 2);
        assert!(fault.to_string().contains(tip), "{fault}");
    }
}

#[test]
fn a_deleted_connection_prints_nothing() {
    let (_directory, path, asked) = admin("HTTP/1.1 204 No Content\r\n\r\n");
    let given = run(&["connections", "delete", "calendar", "alice", "--config", &path], "");
    assert!(asked.join().unwrap().starts_with("DELETE /api/connections/calendar/alice "));
    assert_eq!(given, (Some(true), String::new(), String::new()));
}

#[test]
fn a_refusal_tells_its_detail_and_fails() {
    let (_directory, path, asked) =
        admin("HTTP/1.1 404 Not Found\r\ncontent-length: 28\r\n\r\n{\"detail\":\"no such profile\"} ");
    let (done, output, errors) = run(&["connections", "show", "x", "y", "--config", &path], "");
    asked.join().unwrap();
    assert_eq!((done, output.as_str()), (Some(false), ""));
    assert_eq!(errors, "the gateway answered 404 Not Found: no such profile\n");
}

#[test]
fn what_is_imported_must_be_json_and_is_never_quoted() {
    let (_directory, path, _asked) = admin("");
    let given = run(&["connections", "import", "x", "y", "--config", &path], "{\"access_token\": HUSH}");
    assert_eq!(given.0, Some(false));
    assert!(given.2.contains("not JSON") && !given.2.contains("HUSH"), "{}", given.2);
    let given = run(&["connections", "import", "x", "y", "--config", &path], " \n");
    assert_eq!(given.0, Some(false));
    assert!(given.2.contains("is empty"), "{}", given.2);
}

#[test]
fn all_connections_of_a_profile_are_revoked_only_on_a_second_word() {
    const GOOD: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 39\r\n\r\n{\"revoked\":3,\"failed\":0,\"not_told\":1}\n\n\n";
    let (_directory, path, asked) = admin(GOOD);
    let all = ["connections", "--config", &path, "revoke-all", "--profile", "a b"];
    let (done, output, errors) = run(&all, "");
    assert_eq!((done, output.as_str()), (Some(false), ""));
    assert!(errors.contains("--yes") && errors.contains("a b"), "{errors}");
    let (done, output, errors) = run(&[&all[..], &["--yes"]].concat(), "");
    assert_eq!((done, errors.as_str()), (Some(true), ""));
    let told: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(told, serde_json::json!({ "revoked": 3, "failed": 0, "not_told": 1 }));
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("DELETE /api/connections?profile=a+b HTTP/1.1"), "{asked}");
    assert!(Cli::try_parse_from(["claviger", "connections", "revoke-all", "--yes"]).is_err(), "no profile");
}

#[test]
fn what_could_not_be_forgotten_is_a_failure() {
    const BAD: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 39\r\n\r\n{\"revoked\":3,\"failed\":2,\"not_told\":0}\n\n\n";
    let (_directory, path, asked) = admin(BAD);
    let all = ["connections", "--config", &path, "revoke-all", "--profile", "calendar", "--yes"];
    let (done, output, errors) = run(&all, "");
    asked.join().unwrap();
    assert_eq!((done, output.as_str()), (Some(false), ""));
    assert!(errors.contains("2 not forgotten"), "{errors}");
}
