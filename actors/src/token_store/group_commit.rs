//! Group commit: while one commit of the backend is under way, writes gather, and are the next one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::store::{StoreError, TokenStore, Write, WriteOutcome};

/// Writes of one commit.
pub(super) const MAX_BATCH: usize = 256;
/// Writes that may wait; further ones are refused as busy.
pub(super) const MAX_WAITING: usize = 4096;
/// Bytes of values that may wait.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// A commit of the backend that takes longer counts as failed.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);
/// From asking to answer, waiting for one's turn included. A write whose turn has not come by then
/// is not made.
const WRITE_DEADLINE: Duration = Duration::from_secs(15);

/// What has been written, for the debug endpoint.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct CommitStatistics {
    /// Commits of the backend that were made.
    pub(super) commits: u64,
    /// Writes in them, those that met a conflict included.
    pub(super) writes: u64,
    /// Writes that met a conflict.
    pub(super) conflicts: u64,
    /// Commits that failed.
    pub(super) failed_commits: u64,
    /// Most writes in one commit.
    pub(super) batch_max: usize,
    /// How long the last commit took.
    pub(super) last_commit_ms: u64,
}

/// How the writing goes.
pub(super) enum Progress {
    /// Nothing to do, and nothing wrong.
    Idle,
    /// A commit is under way.
    Committing,
    /// The last commit failed.
    Failing,
}

struct Waiting {
    write: Write,
    answer: oneshot::Sender<Result<WriteOutcome, StoreError>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    running: bool,
    failing: bool,
    last_error: Option<String>,
    statistics: CommitStatistics,
}

/// The writes under way. Its task is its own: it goes on and answers whoever waits even if the
/// actor that asked is gone.
pub(super) struct GroupCommit {
    store: Arc<dyn TokenStore>,
    clock: Arc<dyn Clock>,
    state: RefCell<State>,
}

impl GroupCommit {
    pub(super) fn new(store: Arc<dyn TokenStore>, clock: Arc<dyn Clock>) -> Rc<Self> {
        Rc::new(Self { store, clock, state: RefCell::default() })
    }

    /// Makes one write; the answer means durable.
    pub(super) async fn write(self: &Rc<Self>, write: Write) -> Result<WriteOutcome, StoreError> {
        let answered = self.enqueue(write)?;
        match timeout(WRITE_DEADLINE, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Unavailable("a write was dropped without an answer".into())),
            Err(_) => Err(StoreError::Unavailable(format!(
                "a write was not durable within {} seconds",
                WRITE_DEADLINE.as_secs()
            ))),
        }
    }

    fn enqueue(
        self: &Rc<Self>,
        write: Write,
    ) -> Result<oneshot::Receiver<Result<WriteOutcome, StoreError>>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.state.borrow_mut();
        let bytes = state.waiting_bytes.saturating_add(size(&write));
        if state.waiting.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES {
            return Err(StoreError::Unavailable("the token store is busy: too many writes wait".into()));
        }
        state.waiting_bytes = bytes;
        state.waiting.push_back(Waiting { write, answer });
        if !state.running {
            state.running = true;
            actix_rt::spawn(self.clone().run());
        }
        Ok(answered)
    }

    async fn run(self: Rc<Self>) {
        let mut running = Running { commits: self, finished: false };
        let this = running.commits.clone();
        while let Some((writes, answers)) = this.next_batch() {
            let started = this.clock.now();
            let committed = timeout(COMMIT_DEADLINE, this.store.commit(writes)).await.unwrap_or_else(|_| {
                Err(StoreError::Unavailable(format!(
                    "the backend did not commit within {} seconds",
                    COMMIT_DEADLINE.as_secs()
                )))
            });
            let committed = committed.and_then(|outcomes| {
                if outcomes.len() == answers.len() {
                    return Ok(outcomes);
                }
                Err(StoreError::Unavailable("the backend lost count of its writes".into()))
            });
            this.note(answers.len(), &committed, this.clock.now().since(started));
            match committed {
                Ok(outcomes) => {
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        let _ = answer.send(Ok(outcome));
                    }
                }
                Err(error) => {
                    for answer in answers {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
        running.finished = true;
    }

    #[expect(clippy::type_complexity, reason = "two lists that belong together for a moment")]
    fn next_batch(&self) -> Option<(Vec<Write>, Vec<oneshot::Sender<Result<WriteOutcome, StoreError>>>)> {
        let mut state = self.state.borrow_mut();
        let (mut writes, mut answers) = (Vec::new(), Vec::new());
        while writes.len() < MAX_BATCH {
            let Some(next) = state.waiting.pop_front() else { break };
            state.waiting_bytes = state.waiting_bytes.saturating_sub(size(&next.write));
            // Whoever asked has been told that it was not made.
            if !next.answer.is_closed() {
                writes.push(next.write);
                answers.push(next.answer);
            }
        }
        if writes.is_empty() { None } else { Some((writes, answers)) }
    }

    fn note(&self, writes: usize, committed: &Result<Vec<WriteOutcome>, StoreError>, took: Duration) {
        let mut state = self.state.borrow_mut();
        let statistics = &mut state.statistics;
        statistics.last_commit_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        statistics.batch_max = statistics.batch_max.max(writes);
        match committed {
            Ok(outcomes) => {
                let conflicts = outcomes.iter().filter(|o| matches!(o, WriteOutcome::Conflict(_))).count();
                statistics.commits = statistics.commits.saturating_add(1);
                statistics.writes = statistics.writes.saturating_add(writes as u64);
                statistics.conflicts = statistics.conflicts.saturating_add(conflicts as u64);
                state.failing = false;
            }
            Err(error) => {
                tracing::error!(writes, %error, "a commit of the token store failed");
                statistics.failed_commits = statistics.failed_commits.saturating_add(1);
                state.failing = true;
                state.last_error = Some(error.to_string());
            }
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let state = self.state.borrow();
        match (state.failing, state.running) {
            (true, _) => Progress::Failing,
            (false, true) => Progress::Committing,
            (false, false) => Progress::Idle,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    pub(super) fn statistics(&self) -> CommitStatistics {
        self.state.borrow().statistics.clone()
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.state.borrow().last_error.clone()
    }
}

fn size(write: &Write) -> usize {
    write.key.0.len().saturating_add(write.value.as_ref().map_or(0, Vec::len))
}

/// Ends a run, also one that a panicking backend cut off: what still waits is dropped then, which
/// tells its askers, and the next write starts a new run.
struct Running {
    commits: Rc<GroupCommit>,
    finished: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Ok(mut state) = self.commits.state.try_borrow_mut() else { return };
        state.running = false;
        if !self.finished {
            state.waiting.clear();
            state.waiting_bytes = 0;
            state.failing = true;
            state.last_error = Some("a commit of the token store was cut off".into());
            state.statistics.failed_commits = state.statistics.failed_commits.saturating_add(1);
        }
    }
}
