//! Token endpoints that take assertions and check every claim (`python/strict_assertions.py`), and the
//! means to look at signatures with other people's libraries.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::http;

/// A running server.
pub struct StrictAssertions {
    /// Its base URL.
    pub url: String,
    // Killed on drop; it also exits when the pipe to its standard input closes.
    _child: Child,
}

impl StrictAssertions {
    /// Starts it, expecting assertions like this: see `python/strict_assertions.py`.
    pub async fn start(expected: &Value) -> Self {
        let mut child = script(&["serve", &expected.to_string()]).await.spawn().expect("python runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = async {
            let line = lines.next_line().await.expect("readable").expect("it says where it listens");
            line.strip_prefix("listening ").expect("it says where it listens").to_owned()
        };
        let port = tokio::time::timeout(Duration::from_secs(60), ready).await.expect("it starts in a minute");
        Self { url: format!("http://127.0.0.1:{port}"), _child: child }
    }

    /// Where SAML assertions are taken.
    pub fn saml_endpoint(&self) -> String {
        format!("{}/saml/token", self.url)
    }

    /// Where JWT assertions are taken.
    pub fn jwt_endpoint(&self) -> String {
        format!("{}/jwt/token", self.url)
    }

    /// Changes what is expected.
    pub async fn expect(&self, expected: &Value) {
        let url = format!("{}/test/expect", self.url);
        http::request("POST", &url).json(expected).send().await.expect_status(200);
    }

    /// The forms that came so far, each with its `path`.
    pub async fn requests(&self) -> Vec<Value> {
        let forms = http::get(&format!("{}/test/requests", self.url)).send().await.expect_status(200).json();
        forms.as_array().expect("an array").clone()
    }

    /// Sends a token request as it is. `Ok` if it was taken, else the words of the error.
    pub async fn ask(&self, endpoint: &str, form: &[(&str, &str)]) -> Result<(), String> {
        let form: Vec<_> =
            form.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = http::request("POST", endpoint).form(&form).send().await;
        match answer.status {
            200 => Ok(()),
            400 => Err(answer.json()["error_description"].as_str().unwrap_or_default().to_owned()),
            other => panic!("the server answered {other}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
}

/// Key pairs with certificates of their own, made once for all tests of this process.
pub struct TestKeys(TempDir);

impl TestKeys {
    /// `rsa`, `ec` (P-256), `p384` and `other` (RSA).
    pub async fn get() -> &'static Self {
        static KEYS: OnceCell<TestKeys> = OnceCell::const_new();
        KEYS.get_or_init(|| async {
            let folder = TempDir::new().expect("a temporary folder");
            let made = script(&["keys", folder.path().to_str().expect("UTF-8")]).await.output().await;
            assert_success("making keys", &made.expect("python runs"));
            TestKeys(folder)
        })
        .await
    }

    /// The file of a private key, in PEM.
    pub fn key_file(&self, name: &str) -> PathBuf {
        self.0.path().join(name).with_extension("pem")
    }

    /// The file of its certificate, in PEM.
    pub fn certificate_file(&self, name: &str) -> PathBuf {
        self.0.path().join(name).with_extension("crt")
    }

    /// The private key, in PEM.
    pub fn key(&self, name: &str) -> String {
        std::fs::read_to_string(self.key_file(name)).expect("made")
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self, name: &str) -> String {
        std::fs::read_to_string(self.certificate_file(name)).expect("made")
    }
}

/// What signxml says of signed assertions, each with the certificate in PEM that it should verify with:
/// the canonical form of what the signature covers, or why it does not verify.
pub async fn signxml(assertions: &[(&str, &str)]) -> Vec<Result<String, String>> {
    let mut child = script(&["verify"]).await.spawn().expect("python runs");
    let mut input = child.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut answers = Vec::new();
    for (xml, certificate) in assertions {
        let line = format!("{}\n", json!({ "xml": xml, "certificate": certificate }));
        input.write_all(line.as_bytes()).await.expect("it reads");
        let answer = lines.next_line().await.expect("readable").expect("an answer a line");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let text = |member: &str| answer[member].as_str().unwrap_or_default().to_owned();
        answers.push(if answer["ok"] == true { Ok(text("covered")) } else { Err(text("why")) });
    }
    answers
}

/// Whether `xmlsec1` verifies a signed assertion with this certificate.
pub async fn xmlsec1(xml: &str, certificate: &Path) -> bool {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("assertion.xml");
    std::fs::write(&file, xml).expect("writable");
    let done = Command::new("xmlsec1")
        .args(["--verify", "--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion"])
        .args(["--enabled-reference-uris", "same-doc", "--pubkey-cert-pem"])
        .args([certificate, &file])
        .output()
        .await;
    done.expect("xmlsec1 is installed: apt-get install xmlsec1, or scripts/test").status.success()
}

async fn script(arguments: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python");
    let mut command = Command::new(install(&folder).await.join("bin/python"));
    command
        .arg(folder.join("strict_assertions.py"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command
}

/// The virtual environment, made once for all tests of this process, if `scripts/test` has not done it.
async fn install(folder: &Path) -> &'static Path {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    let (requirements, folder) = (folder.join("requirements.txt"), folder.join(".venv"));
    INSTALLED
        .get_or_init(|| async {
            let (wanted, stamp) =
                (std::fs::read(&requirements).expect("there"), folder.join(".installed-from"));
            if std::fs::read(&stamp).ok().as_ref() != Some(&wanted) {
                let hint = "python3 with venv is needed: apt-get install python3-venv, or scripts/test";
                let made =
                    Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output().await;
                assert_success(hint, &made.expect(hint));
                let mut pip = Command::new(folder.join("bin/pip"));
                pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
                assert_success("pip", &pip.arg(&requirements).output().await.expect("pip runs"));
                std::fs::write(&stamp, wanted).expect("writable");
            }
            folder
        })
        .await
}

fn assert_success(what: &str, output: &Output) {
    assert!(output.status.success(), "{what}\n{}", String::from_utf8_lossy(&output.stderr));
}
