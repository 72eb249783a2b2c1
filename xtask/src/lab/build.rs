//! Which build of Skep the lab runs.

use crate::program::root;
use anyhow::{Result, bail};
use std::env;
use std::path::PathBuf;

/// Trying a change on real hosts shouldn't take a release build each time.
const PROFILE: &str = "SKEP_LAB_PROFILE";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    Release,
    Debug,
}

impl Build {
    pub(crate) fn chosen() -> Result<Self> {
        match env::var(PROFILE).as_deref() {
            Err(_) | Ok("" | "release") => Ok(Self::Release),
            Ok("debug") => Ok(Self::Debug),
            Ok(other) => bail!("{PROFILE} is release or debug, not `{other}`"),
        }
    }

    /// What cargo has to be told.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Debug => &[],
        }
    }

    pub(crate) fn directory(self) -> PathBuf {
        root().join(match self {
            Self::Release => "target/release",
            Self::Debug => "target/debug",
        })
    }
}
