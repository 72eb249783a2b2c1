//! What a node reported while the store takes nothing. The session goes on: a full disk of the manager is no
//! reason to lose touch with the nodes.

use super::{Session, SessionEnd};
use crate::server::reports::Origin;
use crate::server::{WriteFailed, reports};
use jiff::Timestamp;
use skep_model::TaskId;
use skep_model::node::PortConflict;
use skep_model::session::{Hello, TaskReport, ToAgent};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// As often as the store is looked at.
const RETRY: Duration = Duration::from_secs(1);
/// Statuses and conflicts replace the ones before, so that these are attachments given up meanwhile. A node that
/// gives up more begins anew, which says the same.
const CAPACITY: usize = 256;

/// Something a node says that has to be written down.
#[derive(Clone, Debug)]
pub(super) enum Report {
    Hello(Box<Hello>, Origin),
    Statuses { sequence: u64, statuses: Vec<TaskReport> },
    Conflicts(Vec<PortConflict>),
    Detach(TaskId),
}

/// In the order in which it was said.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    reports: VecDeque<Report>,
    retry: Option<Instant>,
}

impl Unwritten {
    /// Ends when it is time to try again; never while nothing waits.
    pub(super) fn due(&self) -> impl Future<Output = ()> + use<> {
        let retry = self.retry;
        async move {
            match retry {
                Some(time) => tokio::time::sleep_until(time).await,
                None => std::future::pending().await,
            }
        }
    }

    fn keep(&mut self, report: Report) -> Result<(), SessionEnd> {
        // A node repeats all that is not accepted, and says all conflicts each time.
        let replaced = |known: &Report| std::mem::discriminant(known) == std::mem::discriminant(&report);
        if !matches!(report, Report::Detach(_)) {
            self.reports.retain(|known| !replaced(known));
        }
        if self.reports.len() == CAPACITY {
            return Err(SessionEnd::Store);
        }
        self.reports.push_back(report);
        self.retry.get_or_insert_with(|| Instant::now() + RETRY);
        Ok(())
    }
}

impl Session<'_> {
    /// Writes the report down and answers it, or keeps it until the store takes writes again.
    pub(super) async fn report(&mut self, report: Report) -> Result<(), SessionEnd> {
        if !self.unwritten.reports.is_empty() {
            return self.unwritten.keep(report);
        }
        match self.write_report(report.clone()).await? {
            Ok(()) => Ok(()),
            Err(WriteFailed) => self.unwritten.keep(report),
        }
    }

    pub(super) async fn report_again(&mut self) -> Result<(), SessionEnd> {
        self.unwritten.retry = None;
        while let Some(report) = self.unwritten.reports.front().cloned() {
            if self.write_report(report).await?.is_err() {
                self.unwritten.retry = Some(Instant::now() + RETRY);
                return Ok(());
            }
            self.unwritten.reports.pop_front();
        }
        Ok(())
    }

    async fn write_report(&mut self, report: Report) -> Result<Result<(), WriteFailed>, SessionEnd> {
        let (node, now) = (self.node.clone(), Timestamp::now());
        let mut answer = None;
        let written = match report {
            Report::Hello(hello, origin) => {
                let connected = move |state: &_| reports::connected(state, &node, &hello, origin, now);
                match self.core.try_write(connected).await {
                    Err(Some(refused)) => return Err(refused.into()),
                    written => written.map_err(|_failed| WriteFailed),
                }
            }
            Report::Statuses { sequence, statuses } => {
                answer = Some(ToAgent::StatusAccepted { sequence });
                self.core.write(move |state| reports::statuses(state, &node, &statuses, now)).await
            }
            Report::Conflicts(conflicts) => {
                self.core.write(move |state| reports::port_conflicts(state, &node, &conflicts, now)).await
            }
            Report::Detach(task) => {
                self.core.write(move |state| reports::detached(state, &node, &task)).await
            }
        };
        if let (Ok(_revision), Some(answer)) = (&written, answer) {
            self.send(&answer).await?;
        }
        Ok(written.map(|_revision| ()))
    }
}
