//! The assignments on disk: what a daemon knows to do while no manager can be asked.

use crate::completion::on_a_thread;
use serde::{Deserialize, Serialize};
use skep_model::assign::{Assignment, Desired};
use skep_model::{NodeId, TaskId};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const FILE: &str = "desired.json";
/// Of the file's form. A daemon leaves files of other versions alone until it has a set of its own to write.
const VERSION: u32 = 2;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    desired: &'a Desired,
}

#[derive(Deserialize)]
struct Read {
    desired: Desired,
}

/// What files of every form have.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// Why the file is of no use. The manager's next set replaces it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error("another release wrote it (form {0}, this one reads {VERSION})")]
    Version(u32),
    #[error("it is another node's")]
    Foreign,
}

/// `desired.json` in the agent's directory. Clones are the same file.
#[derive(Clone, Debug)]
pub(crate) struct DesiredFile {
    directory: PathBuf,
    /// One write at a time.
    writing: Arc<Mutex<()>>,
}

impl DesiredFile {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), writing: Arc::default() }
    }

    /// Writes the whole set. A failure is logged: the node does what it was told all the same, and asks a
    /// manager after a restart.
    pub(crate) async fn save(&self, desired: Arc<Desired>) {
        let file = self.clone();
        self.log_failure(on_a_thread(move || file.alone(|| file.write(&desired))).await);
    }

    /// A task of the set has ended and is not to be started again. Whoever knows a manager doesn't need it: the
    /// next set lacks the task.
    pub(crate) async fn save_without(&self, task: TaskId) {
        let file = self.clone();
        self.log_failure(on_a_thread(move || file.alone(|| file.rewrite_without(&task))).await);
    }

    fn rewrite_without(&self, task: &TaskId) -> io::Result<()> {
        // A file that is of no use starts no task.
        let Ok(Some(mut desired)) = self.read() else { return Ok(()) };
        desired.assignments.retain(|_, a| !matches!(a, Assignment::Task(assigned) if assigned.id == *task));
        self.write(&desired)
    }

    fn alone<T>(&self, change: impl FnOnce() -> T) -> T {
        // The file is replaced whole: a panic leaves nothing half done.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        change()
    }

    fn log_failure(&self, written: io::Result<()>) {
        if let Err(error) = written {
            let path = self.path();
            tracing::warn!(path = %path.display(), %error, "the assignments could not be written down");
        }
    }

    /// Atomic: a crash leaves the old set or the new one.
    fn write(&self, desired: &Desired) -> io::Result<()> {
        let partial = self.directory.join("desired.json.partial");
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        out.write_all(&serde_json::to_vec(&Written { version: VERSION, desired })?)?;
        out.sync_all()?;
        fs::rename(&partial, self.path())?;
        File::open(&self.directory)?.sync_all()
    }

    /// What was written last for `node`; None if nothing ever was.
    pub(crate) fn load(&self, node: &NodeId) -> Result<Option<Desired>, LoadError> {
        let Some(desired) = self.read()? else { return Ok(None) };
        let is_own =
            |assignment: &Assignment| matches!(assignment, Assignment::Node(this) if this.id == *node);
        if desired.assignments.values().any(is_own) { Ok(Some(desired)) } else { Err(LoadError::Foreign) }
    }

    fn read(&self) -> Result<Option<Desired>, LoadError> {
        let bytes = match fs::read(self.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Form { version } = serde_json::from_slice(&bytes)?;
        if version != VERSION {
            return Err(LoadError::Version(version));
        }
        let Read { desired } = serde_json::from_slice(&bytes)?;
        Ok(Some(desired))
    }

    /// The node is no member any more.
    pub(crate) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::example;
    use skep_model::task::TaskState;

    fn own() -> NodeId {
        "n1".into()
    }

    #[tokio::test]
    async fn assignments_survive_on_disk_until_they_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let file = DesiredFile::new(directory.path());
        assert!(file.load(&own()).unwrap().is_none());
        let first = Arc::new(Desired::new(7, [example::this_node()]));
        let second = Arc::new(Desired::new(9, [example::this_node(), example::peer("n2", true)]));
        file.save(first).await;
        file.save(second.clone()).await;
        assert_eq!(file.load(&own()).unwrap().as_ref(), Some(&*second));
        file.forget().unwrap();
        file.forget().unwrap();
        assert!(file.load(&own()).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_task_that_ended_is_not_in_what_a_restart_begins_with() {
        let directory = tempfile::tempdir().unwrap();
        let file = DesiredFile::new(directory.path());
        let tasks = [1, 2].map(|n| Assignment::Task(example::task(n, TaskState::Running)));
        file.save(Arc::new(Desired::new(7, tasks.into_iter().chain([example::this_node()])))).await;
        file.save_without("t1".into()).await;
        let kept = file.load(&own()).unwrap().unwrap();
        let keys: Vec<_> = kept.assignments.keys().map(|key| key.0.as_str()).collect();
        assert_eq!((kept.revision, keys), (7, vec!["node/self", "task/t2"]));
    }

    #[tokio::test]
    async fn a_damaged_and_a_foreign_file_are_told_from_an_empty_set() {
        let directory = tempfile::tempdir().unwrap();
        let (file, path) = (DesiredFile::new(directory.path()), directory.path().join(FILE));
        file.save(Arc::new(Desired::new(7, [example::this_node()]))).await;
        assert!(matches!(file.load(&"n2".into()), Err(LoadError::Foreign)));
        let whole = fs::read(&path).unwrap();
        for torn in 0..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            assert!(matches!(file.load(&own()), Err(LoadError::Damaged(_))), "{torn} bytes");
        }
        fs::write(&path, br#"{"version":1,"desired":{"revision":1,"assignments":{"peer/n2":{}}}}"#).unwrap();
        assert!(matches!(file.load(&own()), Err(LoadError::Version(1))));
        fs::write(&path, br#"{"revision":1,"assignments":{}}"#).unwrap();
        assert!(file.load(&own()).is_err());
        file.save_without("t1".into()).await;
        assert_eq!(fs::read(&path).unwrap(), br#"{"revision":1,"assignments":{}}"#, "it is left alone");
    }
}
