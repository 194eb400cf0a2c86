//! Starts coordinators and hosts of this program as processes of their own: for `up --hosts`, for `demo`, and for tests.
//!
//! A started process is tethered: its standard input is a pipe from here, and when that ends, by [`Process::stop`] or
//! because this process died, however it died, it stops by itself. What it logs is in `log` in its data directory.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::{
    client::{Client, URL_FILE},
    clock::Stopwatch,
};

/// The file that hosts join with, in a coordinator's data directory.
pub const TICKET_FILE: &str = "ticket";
/// What a started process logs, in its data directory.
pub const LOG_FILE: &str = "log";
/// Time for a process to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// Time for a process to stop by itself before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Why a process is not there.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It cannot be started.
    #[error("{name} cannot be started in {}: {source}", dir.display())]
    Start {
        /// What.
        name: String,
        /// Its data directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{name} ended ({status}): {last}; its log is {}", log.display())]
    Ended {
        /// What.
        name: String,
        /// How.
        status: ExitStatus,
        /// The last line of its log.
        last: String,
        /// The log.
        log: PathBuf,
    },
    /// It is not ready in time.
    #[error("{name} is not ready after {} s; its log is {}", READY_MAX.as_secs(), log.display())]
    NotReady {
        /// What.
        name: String,
        /// The log.
        log: PathBuf,
    },
}

/// A process with a data directory. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    dir: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `exe` with these arguments; its data directory is `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(exe: &Path, name: &str, dir: &Path, args: &[&str]) -> Result<Self, LaunchError> {
        let failed = |source| LaunchError::Start { name: name.to_owned(), dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let log = File::options().create(true).append(true).open(dir.join(LOG_FILE)).map_err(failed)?;
        let child = Command::new(exe)
            .args(args)
            .arg("--data-dir")
            .arg(dir)
            .arg("--tethered")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name: name.to_owned(), dir: dir.to_owned(), child })
    }

    /// A coordinator on free ports of the loopback interface.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn coordinator(exe: &Path, dir: &Path, args: &[&str]) -> Result<Self, LaunchError> {
        Self::coordinator_at(exe, dir, "127.0.0.1:0", args)
    }

    /// A coordinator whose hosts find it at this address: the one of an earlier start, so that they come back.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn coordinator_at(exe: &Path, dir: &Path, net_listen: &str, args: &[&str]) -> Result<Self, LaunchError> {
        // A file of an earlier start leads nowhere.
        let _ = std::fs::remove_file(dir.join(URL_FILE));
        let args = [&["up", "--listen", "127.0.0.1:0", "--net-listen", net_listen], args].concat();
        Self::start(exe, "coordinator", dir, &args)
    }

    /// A host that joins the coordinator whose data directory is `coordinator`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn host(exe: &Path, name: &str, dir: &Path, coordinator: &Path, args: &[&str]) -> Result<Self, LaunchError> {
        let ticket = coordinator.join(TICKET_FILE);
        let ticket = ticket.to_string_lossy();
        let args = [&["node", "--join", &ticket, "--net-listen", "127.0.0.1:0"], args].concat();
        Self::start(exe, name, dir, &args)
    }

    /// Its data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG_FILE)
    }

    /// Its number among the system's processes.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the coordinator listens, and gives a client of it.
    ///
    /// # Errors
    /// When it ends first or takes too long.
    pub async fn client(&mut self) -> Result<Client, LaunchError> {
        let watch = Stopwatch::start();
        loop {
            if self.dir.join(URL_FILE).exists()
                && let Ok(client) = Client::of_data_dir(&self.dir, None, None)
                && client.text("/healthz").await.is_ok()
            {
                return Ok(client);
            }
            self.check_running()?;
            if watch.elapsed() > READY_MAX {
                return Err(LaunchError::NotReady { name: self.name.clone(), log: self.log() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it ended.
    pub fn check_running(&mut self) -> Result<(), LaunchError> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                let log = self.log();
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let last = text.trim_end().lines().last().unwrap_or("it said nothing").to_owned();
                Err(LaunchError::Ended { name: self.name.clone(), status, last, log })
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Ends it at once, as SIGKILL does: nothing is flushed and nobody is told.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it stop by itself; kills it when it takes too long. Says whether it stopped by itself.
    pub fn stop(&mut self) -> bool {
        drop(self.child.stdin.take());
        let watch = Stopwatch::start();
        while watch.elapsed() < STOP_MAX {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(POLL);
        }
        self.kill();
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
