//! Log lines that containers can cause, without letting them fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);

/// Says something at most every ten seconds, whoever causes it.
#[derive(Debug, Default)]
pub(crate) struct Rarely {
    last: Mutex<Option<Instant>>,
}

impl Rarely {
    pub(crate) fn say(&self, line: impl FnOnce()) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= EVERY) {
            *last = Some(now);
            line();
        }
    }
}
