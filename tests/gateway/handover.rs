//! The program is started anew while it serves: nobody is refused, no call fails.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::http;
use crate::support::load::Load;
use crate::support::scene::ScriptedScene;

/// Ends a process that no test has as its child.
struct Stranger(u32);

impl Stranger {
    /// The one that the log says serves now.
    fn of(log: &str) -> Option<Self> {
        let (_, after) = log.split_once("the new process serves")?;
        let (_, number) = after.split_once("pid=")?;
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().map(Self)
    }

    fn signal(&self, name: &str) {
        let _ = std::process::Command::new("kill").args([&format!("-{name}"), &self.0.to_string()]).status();
    }

    fn is_alive(&self) -> bool {
        std::path::Path::new(&format!("/proc/{}/exe", self.0)).exists()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.signal("KILL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_takes_over_and_no_call_fails() {
    let scene = ScriptedScene::machine().await;
    scene.server.token_seconds(2.0);
    let gateway = scene.config.start().await;
    let config = gateway.config.clone();
    let load = Load::start(config.proxy, "/calendar/events", 16);
    eventually("all of them call", async || load.good() > 200).await;

    gateway.signal("USR2").await;
    let (status, log) = gateway.handed_over().await;
    let next = Stranger::of(&log).unwrap_or_else(|| panic!("nobody took over:\n{log}"));
    assert_eq!(status.code(), Some(0), "{log}");
    let before = load.good();
    eventually("calls are served", async || load.good() > before + 200).await;
    assert!(load.connections() >= 32, "{} connections", load.connections());
    load.stop().await;

    let url = format!("http://{}/readyz", config.admin);
    http::get(&url).send().await.expect_status(200);
    next.signal("TERM");
    eventually("it ends", async || !next.is_alive()).await;
}

/// The program as an operator exchanges it: a script in the place of the binary.
struct Exchanged {
    path: PathBuf,
}

impl Exchanged {
    fn new(gateway: &ScriptedScene) -> Self {
        let path = gateway.config.folder().join("claviger");
        std::fs::copy(env!("CARGO_BIN_EXE_claviger"), &path).unwrap();
        Self { path }
    }

    fn by(&self, script: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, script).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_take_over_leaves_the_old_process_serving() {
    let scene = ScriptedScene::machine().await;
    let program = Exchanged::new(&scene);
    let gateway = Gateway::start_program(&program.path, scene.config.clone()).await;
    let token = gateway.token_used().await;
    let load = Load::start(gateway.config.proxy, "/calendar/events", 4);

    // A configuration that the new process would refuse.
    let file = gateway.config.folder().join("gateway.toml");
    std::fs::write(&file, format!("{}\n[server2]\n", gateway.config.toml())).unwrap();
    gateway.signal("USR2").await;
    eventually("it is told", async || gateway.log().contains("nothing is handed over")).await;
    assert!(gateway.log().contains("server2"));
    std::fs::write(&file, gateway.config.toml()).unwrap();

    // A program that ends at once, or is none.
    for (round, script) in ["#!/bin/sh\nexit 3\n", "no program"].into_iter().enumerate() {
        program.by(script);
        gateway.signal("USR2").await;
        let told = async || gateway.log().matches("nothing is handed over").count() == round + 2;
        eventually("it is told", told).await;
    }
    let good = load.good();
    eventually("calls are served", async || load.good() > good + 50).await;

    // One that says it is ready, and then fails: the store is opened again.
    program.by("#!/bin/sh\necho ready >&0\nread go\nexit 3\n");
    gateway.signal("USR2").await;
    eventually("it is told", async || gateway.log().contains("nothing was handed over")).await;
    let good = load.good();
    eventually("calls are served", async || load.good() > good + 50).await;
    load.stop().await;
    assert_eq!(gateway.token_used().await, token);
    assert_eq!(gateway.admin("GET", "/readyz").send().await.status, 200);
    let (status, log, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(scene.server.count(), 1);
}

/// As systemd passes them: by name, in another order than ours, to this process alone.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_the_service_manager_are_used() {
    let scene = ScriptedScene::machine().await;
    let sockets: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let passed: Vec<OwnedFd> = sockets.into_iter().map(OwnedFd::from).collect();
    let gateway = Gateway::start_with_sockets(scene.config.clone(), passed, "admin:proxy").await;
    let url = format!("http://{}/calendar/events", addresses[1]);
    http::get(&url)
        .basic("billing", crate::support::gateway_config::PASSWORD)
        .send()
        .await
        .expect_status(200);
    let refused = tokio::net::TcpStream::connect(gateway.config.proxy).await;
    assert!(refused.is_err(), "`bind` is not used beside it");
    assert!(
        tokio::net::TcpStream::connect(gateway.config.public).await.is_ok(),
        "what is not passed is bound"
    );
    gateway.signal("TERM").await;
    let (status, log, _) = gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
}

/// What systemd hears of a service of `Type=notify-reload`.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told() {
    let mut scene = ScriptedScene::machine().await;
    let path = scene.config.folder().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    scene.config.env.insert("NOTIFY_SOCKET".into(), path.display().to_string());
    let hear = async || {
        let mut message = [0; 512];
        let length = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut message)).await;
        String::from_utf8_lossy(&message[..length.expect("told in time").unwrap()]).into_owned()
    };
    let gateway = scene.config.start().await;
    assert_eq!(hear().await.trim(), "READY=1");
    gateway.signal("HUP").await;
    let reloading = hear().await;
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert_eq!(hear().await.trim(), "READY=1");
    let (status, log, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(hear().await.trim(), "STOPPING=1");
}

/// The units that we give away are read by systemd itself, where it is at hand.
#[tokio::test]
async fn the_units_are_valid() {
    let units = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let folder = tempfile::TempDir::new().unwrap();
    for name in ["claviger.service", "claviger.socket"] {
        let unit = std::fs::read_to_string(units.join(name)).unwrap();
        // The program need not be installed here.
        let unit = unit.replace("/usr/local/bin/claviger", "/bin/true").replace("User=claviger\n", "");
        std::fs::write(folder.path().join(name), unit).unwrap();
    }
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(["claviger.service", "claviger.socket"].map(|name| folder.path().join(name)))
        .output()
        .await;
    let Ok(verify) = verify else { return };
    let said = String::from_utf8_lossy(&verify.stderr);
    // systemd knows this type since version 253.
    let ours = said.lines().filter(|line| line.contains("claviger") && !line.contains("notify-reload"));
    let ours: Vec<_> = ours.collect();
    assert!(ours.is_empty(), "{ours:?}");
}
