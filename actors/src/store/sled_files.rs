//! What the sled backend keeps around its database: who may read the files, whether the disk has
//! them, and a mark that tells a new store from one that lost its content.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// First line of the mark; the second is a number.
const MARK_TITLE: &str = "claviger token store 1";

/// How long a close waits for sled's background work to let go of the lock.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
const CLOSE_POLL: Duration = Duration::from_millis(2);

/// The directory of one store.
#[derive(Clone, Debug)]
pub(super) struct StoreDirectory {
    path: PathBuf,
}

impl StoreDirectory {
    /// Makes the directory for its owner alone, or takes everybody else's rights away.
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(io::Error::new(ErrorKind::NotADirectory, "there is a file of that name"));
            }
            other => other?,
        }
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        if mode != OWNER_ONLY_DIRECTORY {
            fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY_DIRECTORY))?;
            tracing::warn!(path = %path.display(), "took others' rights to the token store's directory away");
        }
        Ok(Self { path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// sled's one data file.
    pub(super) fn data_file(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Leaves every file to its owner alone: sled makes them as the umask has it.
    pub(super) fn tighten(&self) -> io::Result<()> {
        for directory in [self.path.clone(), self.path.join("blobs")] {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let mode = if entry.file_type()?.is_dir() { OWNER_ONLY_DIRECTORY } else { OWNER_ONLY_FILE };
                match fs::set_permissions(entry.path(), Permissions::from_mode(mode)) {
                    // sled may replace a snapshot meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Waits, within limits, until the lock that sled held is free: its background tasks may hold
    /// the file for a moment longer than the database.
    pub(super) fn await_unlocked(&self) {
        let polls = CLOSE_PATIENCE.as_millis() / CLOSE_POLL.as_millis().max(1);
        for _ in 0..polls {
            if !self.is_locked() {
                return;
            }
            std::thread::sleep(CLOSE_POLL);
        }
    }

    /// Whether a database is open here, in this process or another.
    pub(super) fn is_locked(&self) -> bool {
        let tried = File::open(self.data_file()).map(|file| file.try_lock());
        matches!(tried, Ok(Err(fs::TryLockError::WouldBlock)))
    }

    fn mark(&self) -> PathBuf {
        self.path.join("claviger-store")
    }

    /// The number of the mark; `None` if there is none.
    pub(super) fn read_mark(&self) -> io::Result<Option<u64>> {
        let text = match fs::read_to_string(self.mark()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let number = text.strip_prefix(MARK_TITLE).and_then(|rest| rest.trim().parse().ok());
        number
            .map(Some)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the file claviger-store is unreadable"))
    }

    /// Opens the mark to be written at each commit; makes one, on the disk, if there is none.
    pub(super) fn open_mark(&self) -> io::Result<Mark> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(OWNER_ONLY_FILE);
        if self.read_mark()?.is_none() {
            let draft = self.mark().with_extension("new");
            let mark = Mark(options.open(&draft)?);
            mark.write(0)?;
            mark.0.sync_all()?;
            fs::rename(&draft, self.mark())?;
            File::open(&self.path)?.sync_all()?;
        }
        options.open(self.mark()).map(Mark)
    }
}

/// Says beside the database how far it had come. It is not flushed each time: a mark that is behind
/// is no harm, it only notices less.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// Overwrites the number in place, always as long as before.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        self.0.write_all_at(format!("{MARK_TITLE}\n{number:020}\n").as_bytes(), 0)
    }
}

/// Has the disk keep what sled wrote: sled's own flush leaves it with the operating system, which
/// survives the end of the process, but not the end of the power.
#[derive(Debug)]
pub(super) struct DiskSync {
    data: File,
    blobs: PathBuf,
    synced: BTreeSet<std::ffi::OsString>,
}

impl DiskSync {
    pub(super) fn new(directory: &StoreDirectory) -> io::Result<Self> {
        let data = File::open(directory.data_file())?;
        let mut sync = Self { data, blobs: directory.path.join("blobs"), synced: BTreeSet::new() };
        sync.run()?;
        Ok(sync)
    }

    /// Returns once all that was flushed is on the disk.
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.data.sync_data()?;
        // Large pages are files of their own, written once and never changed.
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&self.blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.synced.contains(&name) {
                match File::open(entry.path()) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    file => {
                        let file = file?;
                        file.set_permissions(Permissions::from_mode(OWNER_ONLY_FILE))?;
                        file.sync_all()?;
                    }
                }
            }
            present.insert(name);
        }
        if present.iter().any(|name| !self.synced.contains(name)) {
            File::open(&self.blobs)?.sync_all()?;
        }
        self.synced = present;
        Ok(())
    }
}
