//! Packages of Node that tests need.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// `npm ci` in `folder`, once for all tests of this process, if `scripts/test` has not done it before:
/// `package` is then there.
pub async fn install(folder: &Path, package: &str, once: &OnceCell<()>) {
    once.get_or_init(|| async {
        if folder.join("node_modules").join(package).exists() {
            return;
        }
        let done = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .status()
            .await;
        assert!(done.expect("npm is installed").success(), "npm ci failed");
    })
    .await;
}
