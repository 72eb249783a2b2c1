//! The assignments on disk: what a daemon knows to do before a manager can be asked again.

use crate::completion::on_a_thread;
use skep_model::assign::Desired;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE: &str = "desired.json";

/// `desired.json` in the agent's directory.
#[derive(Clone, Debug)]
pub(crate) struct DesiredFile {
    directory: PathBuf,
}

impl DesiredFile {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Writes the whole set. A failure is logged: the node does what it was told all the same, and asks a
    /// manager after a restart.
    pub(crate) async fn save(&self, desired: Arc<Desired>) {
        let file = self.clone();
        if let Err(error) = on_a_thread(move || file.write(&desired)).await {
            let path = self.path();
            tracing::warn!(path = %path.display(), %error, "the assignments could not be written down");
        }
    }

    /// Atomic: a crash leaves the old set or the new one.
    fn write(&self, desired: &Desired) -> io::Result<()> {
        let partial = self.directory.join("desired.json.partial");
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        out.write_all(&serde_json::to_vec(desired)?)?;
        out.sync_all()?;
        fs::rename(&partial, self.path())?;
        File::open(&self.directory)?.sync_all()
    }

    /// What was written last; None if nothing ever was.
    pub(crate) fn load(&self) -> io::Result<Option<Desired>> {
        match fs::read(self.path()) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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

    #[tokio::test]
    async fn assignments_survive_on_disk_until_they_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let file = DesiredFile::new(directory.path());
        assert_eq!(file.load().unwrap(), None);
        let first = Arc::new(Desired::new(7, [example::this_node()]));
        let second = Arc::new(Desired::new(9, [example::this_node(), example::peer("n2", true)]));
        file.save(first).await;
        file.save(second.clone()).await;
        assert_eq!(file.load().unwrap().as_ref(), Some(&*second));
        file.forget().unwrap();
        file.forget().unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_set() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), b"{\"revision\":").unwrap();
        assert!(DesiredFile::new(directory.path()).load().is_err());
    }
}
