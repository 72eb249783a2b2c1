//! Many logs as one, in the order of their lines' times.

use super::TaskLogContext;
use skep_model::session::LogLine;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a log that says nothing holds up those that do. What a node keeps is there within a round trip and a
/// disk's turn; a task that is quiet for longer is no longer waited for, until it says something.
const PATIENCE: Duration = Duration::from_millis(500);

/// One task's log, in the order it was written.
struct Lane {
    context: TaskLogContext,
    lines: mpsc::Receiver<LogLine>,
    head: Option<LogLine>,
    /// Not waited for.
    is_quiet: bool,
}

/// Lines come out in the order of their times as long as no log is [`PATIENCE`] late. It holds one line of each.
#[derive(Default)]
pub(super) struct Merge {
    lanes: Vec<Lane>,
}

impl Merge {
    pub(super) fn add(&mut self, context: TaskLogContext, lines: mpsc::Receiver<LogLine>) {
        self.lanes.push(Lane { context, lines, head: None, is_quiet: false });
    }

    /// Whether all logs have ended and all their lines were given out.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The next line; None when all logs have ended. Nothing is lost if it is dropped before it is ready.
    pub(super) async fn next(&mut self) -> Option<(TaskLogContext, LogLine)> {
        loop {
            if timeout(PATIENCE, poll_fn(|cx| self.poll_heads(cx))).await.is_err() {
                let late = self.lanes.iter_mut().filter(|lane| lane.head.is_none());
                late.for_each(|lane| lane.is_quiet = true);
            }
            if let Some(line) = self.take_oldest() {
                return Some(line);
            }
            if self.is_empty() {
                return None;
            }
            // All are quiet: whoever speaks first.
            poll_fn(|cx| self.poll_any(cx)).await;
        }
    }

    /// Ready when nobody is waited for.
    fn poll_heads(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.take_heads(cx);
        let waited_for = |lane: &Lane| lane.head.is_none() && !lane.is_quiet;
        if self.lanes.iter().any(waited_for) { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.take_heads(cx);
        let some = self.is_empty() || self.lanes.iter().any(|lane| lane.head.is_some());
        if some { Poll::Ready(()) } else { Poll::Pending }
    }

    fn take_heads(&mut self, cx: &mut Context<'_>) {
        self.lanes.retain_mut(|lane| {
            if lane.head.is_some() {
                return true;
            }
            match lane.lines.poll_recv(cx) {
                Poll::Ready(Some(line)) => {
                    lane.head = Some(line);
                    lane.is_quiet = false;
                    true
                }
                Poll::Ready(None) => false,
                Poll::Pending => true,
            }
        });
    }

    fn take_oldest(&mut self) -> Option<(TaskLogContext, LogLine)> {
        let oldest = self.lanes.iter_mut().filter(|lane| lane.head.is_some());
        let oldest = oldest.min_by_key(|lane| lane.head.as_ref().map(|line| line.time))?;
        Some((oldest.context.clone(), oldest.head.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use skep_model::session::LogStream;

    fn context(task: &str) -> TaskLogContext {
        TaskLogContext { task: task.into(), node: "n1".into(), service: "s1".into() }
    }

    fn line(second: i64) -> LogLine {
        let time = Timestamp::from_second(second).unwrap();
        LogLine { time, stream: LogStream::Stdout, text: second.to_string() }
    }

    fn lane(merge: &mut Merge, task: &str) -> mpsc::Sender<LogLine> {
        let (to, lines) = mpsc::channel(64);
        merge.add(context(task), lines);
        to
    }

    async fn seconds(merge: &mut Merge) -> Vec<i64> {
        let mut all = Vec::new();
        while let Some((_, line)) = merge.next().await {
            all.push(line.time.as_second());
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_log_is_waited_for_and_a_quiet_one_is_not() {
        let mut merge = Merge::default();
        let (busy, slow, quiet) =
            (lane(&mut merge, "busy"), lane(&mut merge, "slow"), lane(&mut merge, "quiet"));
        for second in [2, 3, 20] {
            busy.try_send(line(second)).unwrap();
        }
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE / 2).await;
            slow.send(line(1)).await.unwrap();
        });
        for second in [1, 2, 3] {
            assert_eq!(merge.next().await.unwrap().1, line(second));
        }
        quiet.send(line(10)).await.unwrap();
        assert_eq!(merge.next().await.unwrap().1, line(10), "it is back among the others");
        drop((busy, quiet));
        assert_eq!(seconds(&mut merge).await, [20]);
        assert!(merge.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_followed_is_not_held_up_by_quiet_ones() {
        let mut merge = Merge::default();
        let (busy, _quiet) = (lane(&mut merge, "busy"), lane(&mut merge, "quiet"));
        busy.send(line(1)).await.unwrap();
        assert!(merge.next().await.is_some());
        let begun = tokio::time::Instant::now();
        for second in 2..60 {
            busy.send(line(second)).await.unwrap();
            assert_eq!(merge.next().await.unwrap().1, line(second));
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn what_is_there_comes_out_sorted(logs in prop::collection::vec(prop::collection::vec(0i64..50, 0..20), 0..6)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut expected: Vec<i64> = logs.concat();
            expected.sort_unstable();
            let out = runtime.block_on(async {
                let mut merge = Merge::default();
                for (number, mut log) in logs.into_iter().enumerate() {
                    log.sort_unstable();
                    let to = lane(&mut merge, &format!("t{number}"));
                    log.into_iter().for_each(|second| to.try_send(line(second)).unwrap());
                }
                seconds(&mut merge).await
            });
            prop_assert_eq!(out, expected);
        }
    }
}
