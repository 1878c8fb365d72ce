//! `claviger demo` as a newcomer meets it: the printed guide is pasted into a shell, whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use claviger::demo::guide::LAST_LINE;
use serde_json::Value;

/// Ends the demo even if the test fails.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Demo {
    /// Starts it with a folder of its own for temporary files, and waits for its guide.
    fn start(folder: &std::path::Path) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .arg("demo")
            .env("TMPDIR", folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let demo = Self(child);
        let (lines, printed) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut guide = String::new();
        while !guide.contains(LAST_LINE) {
            let line = printed.recv_timeout(Duration::from_secs(20)).expect("the whole guide is printed");
            guide.push_str(&line);
            guide.push('\n');
        }
        (demo, guide)
    }

    /// Sends SIGTERM and waits for the end.
    fn terminate(&mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the demo does not end");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn every_line_of_the_guide_works_when_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut demo, guide) = Demo::start(folder.path());
    let shell = Command::new("sh").arg("-c").arg(&guide).env("TMPDIR", folder.path()).output().unwrap();
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
    let output = String::from_utf8(shell.stdout).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    let [asked, consent, events, added, shown, refreshed, robot, actors, deleted, again] = lines[..] else {
        panic!("one line for each step:\n{output}");
    };
    let json = |line: &str| serde_json::from_str::<Value>(line).expect(line);

    for problem in [asked, again] {
        let problem = json(problem);
        assert_eq!((&problem["status"], &problem["code"]), (&403.into(), &"authorization_required".into()));
        assert!(problem["authorization_url"].as_str().unwrap().contains("/connect/"));
    }
    assert_eq!(consent, "consent: 200");
    assert_eq!(json(events)["calendar"], "alice");
    assert_eq!(json(added)["summary"], "Tea");
    let (shown, refreshed) = (json(shown), json(refreshed));
    assert_eq!((&shown["state"], &refreshed["state"]), (&"active".into(), &"active".into()));
    assert_ne!(shown["access_token_fingerprint"], refreshed["access_token_fingerprint"]);
    assert_eq!(json(robot)["calendar"], "claviger-robot");
    assert!(json(actors)["actors"].as_array().unwrap().iter().any(|row| row["kind"] == "proxy"));
    assert_eq!(deleted, "deleted: 204");

    assert_eq!(demo.terminate(), Some(0));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| !path.to_string_lossy().contains("claviger-demo-")), "{left:?}");
}
