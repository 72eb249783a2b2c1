//! Waiting until a service's tasks run and stay running, and saying meanwhile how it goes.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::iter;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::query::{self, Filters, list, number, text};
use crate::show::{printable, short_id};

/// How often the daemon is asked, as the stock CLI does.
const POLL: Duration = Duration::from_millis(200);
/// How long the tasks have to stay running where the spec doesn't say (`UpdateConfig.Monitor`).
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);
/// Above this many tasks only the count is shown, as the stock CLI does.
const MAX_BARS: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Quiet,
    /// A line whenever something changes.
    Lines,
    /// A block of lines that is redrawn.
    Terminal,
}

impl Progress {
    pub(crate) fn for_stdout() -> Self {
        if io::stdout().is_terminal() { Self::Terminal } else { Self::Lines }
    }
}

/// Returns when the service has converged; `shown` is how the last line calls it. A service that can't converge is
/// waited for until the user has seen enough (^C), with the reason on the screen.
pub(crate) async fn wait(client: &Client, id: &str, shown: &str, progress: Progress) -> anyhow::Result<()> {
    let mut screen = Screen { progress, last: Vec::new(), told: HashSet::new() };
    tokio::select! {
        done = poll(client, id, shown, &mut screen) => done,
        _ = tokio::signal::ctrl_c() => {
            crate::out::line(format!("Operation continuing in background.\nUse `skep service ps {shown}` to check progress."))?;
            Ok(())
        }
    }
}

async fn poll(client: &Client, id: &str, shown: &str, screen: &mut Screen) -> anyhow::Result<()> {
    let service_path = format!("{}?insertDefaults=false", query::object("services", id)?);
    let tasks_path = Filters::default().and("service", id).and("_up-to-date", "true").on("/tasks", &[]);
    let mut stable_since = None;
    loop {
        let service = client.get(&service_path).await?;
        let tasks = client.get(&tasks_path).await?;
        let nodes = client.get("/nodes").await?;
        let picture = Picture::new(&service, list(&tasks, ""), list(&nodes, ""));
        let since = stable_since.take().filter(|_| picture.is_converged()).unwrap_or_else(Instant::now);
        if picture.is_converged() {
            stable_since = Some(since);
        }
        let remaining = monitor(&service).saturating_sub(since.elapsed());
        if picture.is_converged() && remaining.is_zero() {
            screen.draw(&picture, &format!("verify: Service {shown} converged"))?;
            return Ok(());
        }
        let verify = match picture.is_converged() {
            true => format!(
                "verify: Waiting {} seconds to verify that tasks are stable...",
                seconds_up(remaining)
            ),
            false => String::new(),
        };
        screen.draw(&picture, &verify)?;
        sleep(POLL.min(remaining.max(Duration::from_millis(1)))).await;
    }
}

fn monitor(service: &Value) -> Duration {
    let nanos = service.pointer("/Spec/UpdateConfig/Monitor").and_then(Value::as_u64);
    nanos.filter(|nanos| *nanos > 0).map_or(DEFAULT_MONITOR, Duration::from_nanos)
}

fn seconds_up(duration: Duration) -> u128 {
    duration.as_millis().div_ceil(1_000)
}

/// How a service stands.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    running: usize,
    /// None: a global service without a task yet.
    wanted: Option<usize>,
    /// The task of each slot (or of each node, for a global service).
    bars: Vec<Bar>,
    /// Tasks that failed, by id, and why.
    failures: Vec<(String, String)>,
}

impl Picture {
    fn new(service: &Value, tasks: &[Value], nodes: &[Value]) -> Self {
        let up: HashSet<&str> = nodes
            .iter()
            .filter(|node| text(node, "/Status/State") != "down")
            .map(|node| text(node, "/ID"))
            .collect();
        let mut slots: BTreeMap<(u64, &str), &Value> = BTreeMap::new();
        for task in tasks.iter().filter(|task| is_wanted(task)) {
            let slot = number(task, "/Slot");
            let key = (slot, if slot == 0 { text(task, "/NodeID") } else { "" });
            let newest = slots.entry(key).or_insert(task);
            if created(task) > created(newest) {
                *newest = task;
            }
        }
        let runs =
            |task: &&Value| text(task, "/Status/State") == "running" && up.contains(text(task, "/NodeID"));
        // How many hosts a global service wants is known by the tasks the cluster made for it.
        let wanted = service
            .pointer("/Spec/Mode/Replicated")
            .filter(|mode| !mode.is_null())
            .map(|mode| mode.get("Replicas").and_then(Value::as_u64).unwrap_or(1) as usize);
        Self {
            running: slots.values().copied().filter(runs).count(),
            wanted: wanted.or((!slots.is_empty()).then_some(slots.len())),
            bars: slots.values().map(|task| Bar::new(task)).collect(),
            failures: failures(tasks),
        }
    }

    /// No task where some are wanted is not converged; neither is a global service the cluster hasn't looked at yet.
    fn is_converged(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.running == wanted && self.bars.len() == wanted)
    }

    fn count(&self) -> String {
        match self.wanted {
            Some(wanted) => format!("overall progress: {} out of {wanted} tasks", self.running),
            None => "overall progress: waiting for new tasks".to_owned(),
        }
    }

    /// `1/3: running`, as many as a terminal has room for.
    fn bars(&self, shown: impl Fn(&Bar) -> bool) -> impl Iterator<Item = String> {
        let of = self.wanted.unwrap_or_default().max(self.bars.len());
        let bars = self.bars.iter().enumerate().filter(move |(_, bar)| shown(bar));
        bars.map(move |(at, bar)| format!("{}/{of}: {bar}", at + 1)).take(MAX_BARS)
    }
}

/// How a task stands, and why it isn't further.
#[derive(Debug, PartialEq, Eq)]
struct Bar {
    state: String,
    /// Empty where nothing is in the way.
    reason: String,
}

impl Bar {
    fn new(task: &Value) -> Self {
        Self { state: text(task, "/Status/State").to_owned(), reason: printable(text(task, "/Status/Err")) }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => f.write_str(&self.state),
            reason => write!(f, "{}: {reason}", self.state),
        }
    }
}

fn created(task: &Value) -> Option<Timestamp> {
    text(task, "/CreatedAt").parse().ok()
}

fn is_wanted(task: &Value) -> bool {
    !matches!(
        text(task, "/DesiredState"),
        "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned"
    )
}

fn failures(tasks: &[Value]) -> Vec<(String, String)> {
    let mut failed: Vec<&Value> =
        tasks.iter().filter(|task| matches!(text(task, "/Status/State"), "failed" | "rejected")).collect();
    failed.sort_by_key(|task| created(task));
    let why = |task: &&Value| match text(task, "/Status/Err") {
        "" => printable(text(task, "/Status/Message")),
        error => printable(error),
    };
    failed.iter().map(|task| (short_id(text(task, "/ID")), why(task))).collect()
}

struct Screen {
    progress: Progress,
    /// Lines drawn last.
    last: Vec<String>,
    /// Failed tasks that were told.
    told: HashSet<String>,
}

impl Screen {
    /// `verify` is empty while there is nothing to verify.
    fn draw(&mut self, picture: &Picture, verify: &str) -> io::Result<()> {
        match self.progress {
            Progress::Quiet => Ok(()),
            Progress::Lines => self.append(picture, verify),
            Progress::Terminal => self.redraw(picture, verify),
        }
    }

    /// Counts, reasons and the verification as they change. The states of single tasks would only flood a log.
    fn append(&mut self, picture: &Picture, verify: &str) -> io::Result<()> {
        let stuck = picture.bars(|bar| !bar.reason.is_empty());
        let lines: Vec<String> = iter::once(picture.count()).chain(stuck).chain(non_empty(verify)).collect();
        let mut stdout = io::stdout();
        for line in lines.iter().filter(|line| !self.last.contains(line)) {
            writeln!(stdout, "{line}")?;
        }
        self.last = lines;
        for (id, why) in &picture.failures {
            if self.told.insert(id.clone()) {
                writeln!(stdout, "task {id} failed: {why}")?;
            }
        }
        stdout.flush()
    }

    fn redraw(&mut self, picture: &Picture, verify: &str) -> io::Result<()> {
        let newest = picture.failures.last().map(|(id, why)| format!("task {id} failed: {why}"));
        let lines = iter::once(picture.count()).chain(picture.bars(|_| true)).chain(newest);
        let lines: Vec<String> = lines.chain(non_empty(verify)).collect();
        let mut stdout = io::stdout();
        if !self.last.is_empty() {
            // Up to the block's first line, and clear from there to the end of the screen.
            write!(stdout, "\x1b[{}A\x1b[J", self.last.len())?;
        }
        // A line that wrapped would count as two at the next redraw: cut at the right margin meanwhile.
        writeln!(stdout, "\x1b[?7l{}\x1b[?7h", lines.join("\n"))?;
        self.last = lines;
        stdout.flush()
    }
}

fn non_empty(line: &str) -> Option<String> {
    (!line.is_empty()).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(id: &str, slot: u64, node: &str, desired: &str, state: &str, err: &str) -> Value {
        json!({
            "ID": id, "Slot": slot, "NodeID": node, "DesiredState": desired,
            "CreatedAt": format!("2026-11-21T04:36:{id}Z"), "Status": {"State": state, "Err": err},
        })
    }

    fn replicated(n: u64) -> Value {
        json!({"Spec": {"Mode": {"Replicated": {"Replicas": n}}}})
    }

    fn nodes() -> Vec<Value> {
        vec![
            json!({"ID": "n1", "Status": {"State": "ready"}}),
            json!({"ID": "n2", "Status": {"State": "down"}}),
        ]
    }

    #[test]
    fn a_task_counts_when_it_is_wanted_runs_and_its_node_is_up() {
        let tasks = [
            task("10", 1, "n1", "running", "running", ""),
            task("11", 2, "n2", "running", "running", ""),
            task("12", 3, "n1", "shutdown", "running", ""),
            task("13", 4, "n1", "running", "starting", ""),
        ];
        let picture = Picture::new(&replicated(4), &tasks, &nodes());
        assert_eq!((picture.running, picture.wanted, picture.is_converged()), (1, Some(4), false));
        let picture = Picture::new(&replicated(1), &tasks[..1], &nodes());
        assert!(picture.is_converged());
        assert_eq!(picture.count(), "overall progress: 1 out of 1 tasks");
        assert_eq!(picture.bars(|_| true).collect::<Vec<_>>(), ["1/1: running"]);
    }

    #[test]
    fn the_newest_task_of_a_slot_speaks_for_it_and_failures_are_kept() {
        let tasks = [
            task("12", 1, "", "running", "pending", "no suitable node (1 node is down)"),
            task("10", 1, "n1", "shutdown", "failed", "task: non-zero exit (1)"),
            task("11", 1, "n1", "running", "ready", ""),
        ];
        let picture = Picture::new(&replicated(1), &tasks, &nodes());
        let bars: Vec<String> = picture.bars(|bar| !bar.reason.is_empty()).collect();
        assert_eq!(bars, ["1/1: pending: no suitable node (1 node is down)"]);
        assert_eq!(picture.failures, [("10".to_owned(), "task: non-zero exit (1)".to_owned())]);
        assert!(!picture.is_converged());
    }

    #[test]
    fn a_scale_down_is_done_when_the_surplus_is_unwanted() {
        let mut tasks = vec![
            task("10", 1, "n1", "running", "running", ""),
            task("11", 2, "n1", "running", "running", ""),
        ];
        assert!(!Picture::new(&replicated(1), &tasks, &nodes()).is_converged());
        tasks[1]["DesiredState"] = json!("remove");
        assert!(Picture::new(&replicated(1), &tasks, &nodes()).is_converged());
        assert!(Picture::new(&replicated(0), &[], &nodes()).is_converged());
    }

    #[test]
    fn a_global_service_wants_what_it_has_tasks_for() {
        let global = json!({"Spec": {"Mode": {"Global": {}, "Replicated": null}}});
        let tasks =
            [task("10", 0, "n1", "running", "running", ""), task("11", 0, "n3", "running", "starting", "")];
        let picture = Picture::new(&global, &tasks, &nodes());
        assert_eq!((picture.running, picture.wanted), (1, Some(2)));
        let unseen = Picture::new(&global, &[], &nodes());
        assert!(!unseen.is_converged(), "its tasks are not made yet");
        assert_eq!(unseen.count(), "overall progress: waiting for new tasks");
    }

    #[test]
    fn the_wait_is_the_specs() {
        assert_eq!(
            monitor(&json!({"Spec": {"UpdateConfig": {"Monitor": 1_000_000}}})),
            Duration::from_millis(1)
        );
        assert_eq!(monitor(&replicated(1)), DEFAULT_MONITOR);
        assert_eq!(seconds_up(Duration::from_millis(4_001)), 5);
    }
}
