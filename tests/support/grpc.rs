//! gRPC by people who did not write the gateway (`grpc/`): a server without TLS, and a client.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::npm;

/// A running server of `grpc/echo.proto`.
pub struct GrpcServer {
    /// Where it listens.
    pub address: String,
    // Killed on drop; it also exits when the pipe to its standard input closes.
    _child: Child,
}

impl GrpcServer {
    /// Starts it and waits until it listens.
    pub async fn start() -> Self {
        let mut child = node(&["server.mjs"]).await.spawn().expect("node is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line());
        let line = line.await.expect("it starts in a minute").expect("readable").expect("a line");
        let port = line.strip_prefix("listening ").expect("it says where it listens");
        Self { address: format!("127.0.0.1:{port}"), _child: child }
    }
}

/// Makes these calls at `address`, or else all there are, and gives what came: see `grpc/client.mjs`.
pub async fn call(address: SocketAddr, authorization: &str, names: &[&str]) -> Value {
    let mut command = node(&["client.mjs", &address.to_string(), authorization]).await;
    let output = command.args(names).stderr(Stdio::piped()).output().await.expect("node is installed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the client failed: {complaint}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn node(arguments: &[&str]) -> Command {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/grpc");
    npm::install(&folder, "@grpc/grpc-js", &INSTALLED).await;
    let mut command = Command::new("node");
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}
