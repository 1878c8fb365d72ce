//! The real binary, started as an operator starts it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::browser::{Browser, Page};
use super::eventually;
use super::gateway_config::{GatewayConfig, PASSWORD};
use super::http::{self, Request, Response};

/// A running gateway. Killed when it is dropped.
pub struct Gateway {
    /// What it was started with.
    pub config: GatewayConfig,
    child: Child,
    log: Arc<Mutex<String>>,
    /// Read its standard output and error until they are closed.
    readers: Vec<JoinHandle<()>>,
}

/// How a command of the binary ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Gateway {
    /// Starts it and waits until it is ready.
    pub async fn start(config: GatewayConfig) -> Self {
        let mut gateway = Self::spawn(config);
        gateway.wait_until_ready().await;
        gateway
    }

    /// As [`Gateway::start`], from a copy of the binary.
    pub async fn start_program(program: &Path, config: GatewayConfig) -> Self {
        let mut gateway = Self::spawn_as(command_of(program, &config, "run"), config);
        gateway.wait_until_ready().await;
        gateway
    }

    /// As [`Gateway::start`], with sockets passed as systemd does, by these names. What is known of its
    /// addresses does not hold for them.
    pub async fn start_with_sockets(config: GatewayConfig, sockets: Vec<OwnedFd>, names: &str) -> Self {
        let mut command = command(&config, "run");
        command.env("LISTEN_FDS", sockets.len().to_string()).env("LISTEN_FDNAMES", names);
        let mapped =
            sockets.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.as_std_mut().fd_mappings(mapped.collect()).expect("each once");
        let gateway = Self::spawn_as(command, config);
        eventually("it listens", async || gateway.log().contains("claviger is listening")).await;
        gateway
    }

    /// Starts it and does not wait.
    pub fn spawn(config: GatewayConfig) -> Self {
        Self::spawn_as(command(&config, "run"), config)
    }

    fn spawn_as(mut command: Command, config: GatewayConfig) -> Self {
        let mut child = command.kill_on_drop(true).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let output = collect(child.stdout.take().expect("piped"), &log);
        let errors = collect(child.stderr.take().expect("piped"), &log);
        Self { config, child, log, readers: vec![output, errors] }
    }

    async fn wait_until_ready(&mut self) {
        let url = self.admin_url("/readyz");
        for _ in 0..1200 {
            if http::get(&url).try_send().await.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                panic!("the gateway ended before it was ready, {status}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the gateway was not ready within 30 seconds:\n{}", self.log());
    }

    /// A URL on the proxy listener.
    pub fn proxy_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.config.proxy)
    }

    /// A URL on the public listener.
    pub fn public_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.config.public)
    }

    /// A URL on the admin listener.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.config.admin)
    }

    /// The operating system's number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("running")
    }

    /// A call of caller `billing`, not sent yet.
    pub fn request(&self, method: &str, path: &str) -> Request {
        http::request(method, &self.proxy_url(path)).basic("billing", PASSWORD)
    }

    /// `GET path` as caller `billing`.
    pub async fn call(&self, path: &str) -> Response {
        self.request("GET", path).send().await
    }

    /// As [`Gateway::call`] on route `calendar`; the token that reached the upstream. Anything but
    /// a 200 fails the test.
    pub async fn token_used(&self) -> String {
        let echo = self.call("/calendar/events").await.expect_status(200).json();
        echo["token"].as_str().expect("a token").to_owned()
    }

    /// So many calls at once.
    pub async fn call_at_once(&self, path: &str, calls: usize) -> Vec<Response> {
        let running: Vec<_> = (0..calls).map(|_| tokio::spawn(self.request("GET", path).send())).collect();
        let mut answers = Vec::with_capacity(calls);
        for call in running {
            answers.push(call.await.expect("the call did not panic"));
        }
        answers
    }

    /// A request to the admin API, not sent yet.
    pub fn admin(&self, method: &str, path: &str) -> Request {
        http::request(method, &self.admin_url(path))
    }

    /// What the admin API shows of one connection.
    pub async fn connection(&self, profile: &str, subject: &str) -> Value {
        let path = format!("/api/connections/{profile}/{subject}");
        self.admin("GET", &path).send().await.expect_status(200).json()
    }

    /// What `/debug/actors` shows of actors of this kind.
    pub async fn actors(&self, kind: &str) -> Vec<Value> {
        let report = self.admin("GET", "/debug/actors").send().await.expect_status(200).json();
        let actors = report["actors"].as_array().expect("actors").clone();
        actors.into_iter().filter(|actor| actor["kind"] == kind).collect()
    }

    /// The connect link that a call of `billing` on `path` is told to open.
    pub async fn authorization_url(&self, path: &str) -> String {
        let problem = self.call(path).await.expect_problem(403, "authorization_required");
        let url = problem["authorization_url"].as_str().expect("a link").to_owned();
        assert!(url.starts_with(&self.public_url("/connect/")), "{url}");
        url
    }

    /// Has `login` consent for caller `billing` on route `calendar`, with a new browser.
    pub async fn connect(&self, login: &str) -> Page {
        let link = self.authorization_url("/calendar/events").await;
        let page = Browser::new().consent(&link, login, &self.config.callback()).await;
        page.response.clone().expect_status(200);
        page
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// What an ended process logged: its last lines may still have been in the pipe.
    async fn whole_log(&mut self) -> String {
        for reader in self.readers.drain(..) {
            tokio::time::timeout(Duration::from_secs(10), reader)
                .await
                .expect("the pipe ends")
                .expect("read");
        }
        self.log()
    }

    /// Fails the test if a planted secret, or one of `more`, is in the log in any spelling.
    #[track_caller]
    pub fn assert_no_secret_in_log(&self, more: &[String]) {
        assert_no_secret(&self.log(), self.config.secrets.iter().chain(more));
    }

    /// Ends it at once, as a power cut does.
    pub async fn kill(mut self) -> GatewayConfig {
        self.child.start_kill().expect("running");
        self.child.wait().await.expect("a child of ours");
        self.config
    }

    /// Sends it a signal, such as `TERM`.
    pub async fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().await;
        assert!(sent.expect("kill is there").success());
    }

    /// Asks it to end (SIGTERM) and waits; the exit status, the log and the configuration.
    pub async fn stop(self) -> (ExitStatus, String, GatewayConfig) {
        self.signal("TERM").await;
        self.ended().await
    }

    /// Waits until it has ended; the exit status, the log and the configuration.
    pub async fn ended(mut self) -> (ExitStatus, String, GatewayConfig) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let status = ended.expect("it ends within 30 seconds").expect("a child of ours");
        let log = self.whole_log().await;
        (status, log, self.config)
    }

    /// Waits until it has ended because another process took over, which keeps its standard output and
    /// error open; the exit status and the log.
    pub async fn handed_over(mut self) -> (ExitStatus, String) {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it runs:\n{}", self.log())).expect("a child of ours");
        eventually("it says who took over", async || self.log().contains("the new process serves")).await;
        (status, self.log())
    }

    /// Stops it and starts it again on the same store.
    pub async fn restart(self) -> Self {
        let (status, log, config) = self.stop().await;
        assert!(status.success(), "{status}\n{log}");
        Self::start(config).await
    }

    /// Waits for a gateway that should not be able to start.
    pub async fn wait_for_failure(mut self) -> Finished {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("it runs:\n{}", self.log())).expect("a child of ours");
        Finished { status, stdout: String::new(), stderr: self.whole_log().await }
    }
}

impl GatewayConfig {
    /// Runs a command of the binary that ends by itself, such as `check`.
    pub async fn run(&self, subcommand: &str) -> Finished {
        self.run_with(subcommand, &[]).await
    }

    /// As [`GatewayConfig::run`], with further arguments.
    pub async fn run_with(&self, subcommand: &str, arguments: &[&str]) -> Finished {
        let running = command(self, subcommand).args(arguments).kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(30), running).await;
        let output = output.expect("it ends within 30 seconds").expect("the binary starts");
        Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// Everything it printed.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// Fails the test if one of `secrets` is in `text`, plainly or percent-encoded.
#[track_caller]
pub fn assert_no_secret<'a>(text: &str, secrets: impl IntoIterator<Item = &'a String>) {
    for secret in secrets {
        let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for spelling in [secret, &encoded] {
            let line = text.lines().find(|line| line.contains(spelling.as_str()));
            assert!(line.is_none(), "{spelling:?} is in the log: {line:?}");
        }
    }
}

fn command(config: &GatewayConfig, subcommand: &str) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_claviger")), config, subcommand)
}

fn command_of(program: &Path, config: &GatewayConfig, subcommand: &str) -> Command {
    let file = config.folder().join("gateway.toml");
    std::fs::write(&file, config.toml()).expect("writable");
    let mut command = Command::new(program);
    command
        .arg(subcommand)
        .arg("--config")
        .arg(&file)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("CLAVIGER_LOG", "debug,claviger=trace,claviger_actors=trace")
        .envs(&config.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn collect(pipe: impl AsyncRead + Unpin + Send + 'static, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut log = log.lock();
            log.push_str(&line);
            log.push('\n');
        }
    })
}
