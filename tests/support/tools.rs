//! Programs that others wrote, where they say more about TLS than a client of ours would.

use std::process::Stdio;

use tokio::process::Command;

use super::gateway::Finished;

/// Runs `curl` with these arguments, silently but for errors, and shows the head of the answer.
pub async fn curl(arguments: &[&str]) -> Finished {
    run("curl", &[&["-sSi", "--max-time", "30"], arguments].concat()).await
}

/// Runs `openssl` with these arguments and nothing to read.
pub async fn openssl(arguments: &[&str]) -> Finished {
    run("openssl", arguments).await
}

async fn run(program: &str, arguments: &[&str]) -> Finished {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
