//! Waiting until a service's tasks run and stay running, and saying meanwhile how it goes.

use std::collections::{BTreeMap, HashSet};
use std::io::{IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::query::{self, Filters, list, number, text};

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
        if std::io::stdout().is_terminal() { Self::Terminal } else { Self::Lines }
    }
}

/// Returns when the service has converged; `shown` is how the last line calls it. A service that can't converge is
/// waited for until the user has seen enough (^C), with the reason on the screen.
pub(crate) async fn wait(client: &Client, id: &str, shown: &str, progress: Progress) -> anyhow::Result<()> {
    let mut screen = Screen { progress, last: Vec::new(), told: HashSet::new() };
    tokio::select! {
        done = poll(client, id, shown, &mut screen) => done,
        _ = tokio::signal::ctrl_c() => {
            println!("Operation continuing in background.\nUse `skep service ps {shown}` to check progress.");
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
            screen.draw(
                &picture.lines(),
                &picture.failures,
                &format!("verify: Service {shown} converged"),
            )?;
            return Ok(());
        }
        let verify = match picture.is_converged() {
            true => format!(
                "verify: Waiting {} seconds to verify that tasks are stable...",
                seconds_up(remaining)
            ),
            false => String::new(),
        };
        screen.draw(&picture.lines(), &picture.failures, &verify)?;
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
    wanted: usize,
    /// State of each task, by slot (or by node, for a global service).
    bars: Vec<String>,
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
            wanted: wanted.unwrap_or(slots.len()),
            bars: slots.values().map(|task| bar(task)).collect(),
            failures: failures(tasks),
        }
    }

    /// No task where some are wanted is not converged; neither is a global service the cluster hasn't looked at yet.
    fn is_converged(&self) -> bool {
        self.running == self.wanted && self.bars.len() == self.wanted
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("overall progress: {} out of {} tasks", self.running, self.wanted)];
        if self.wanted <= MAX_BARS {
            let bars = self.bars.iter().enumerate();
            lines.extend(
                bars.map(|(at, bar)| format!("{}/{}: {bar}", at + 1, self.wanted.max(self.bars.len()))),
            );
        }
        lines
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

/// `pending: no suitable node`: a state with the reason why it isn't the next one.
fn bar(task: &Value) -> String {
    let (state, error) = (text(task, "/Status/State"), text(task, "/Status/Err"));
    if error.is_empty() { state.to_owned() } else { format!("{state}: {error}") }
}

fn failures(tasks: &[Value]) -> Vec<(String, String)> {
    let mut failed: Vec<&Value> =
        tasks.iter().filter(|task| matches!(text(task, "/Status/State"), "failed" | "rejected")).collect();
    failed.sort_by_key(|task| created(task));
    let why = |task: &&Value| match text(task, "/Status/Err") {
        "" => text(task, "/Status/Message").to_owned(),
        error => error.to_owned(),
    };
    failed.iter().map(|task| (text(task, "/ID").to_owned(), why(task))).collect()
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
    fn draw(&mut self, lines: &[String], failures: &[(String, String)], verify: &str) -> std::io::Result<()> {
        match self.progress {
            Progress::Quiet => Ok(()),
            Progress::Lines => self.draw_lines(lines, failures, verify),
            Progress::Terminal => self.redraw(lines, failures, verify),
        }
    }

    /// Counts, reasons and the verification as they change. States of single tasks would only flood a log.
    fn draw_lines(
        &mut self,
        lines: &[String],
        failures: &[(String, String)],
        verify: &str,
    ) -> std::io::Result<()> {
        let mut stdout = std::io::stdout();
        let reasons = lines[1..].iter().filter(|line| line.contains(": ") && line.matches(": ").count() > 1);
        let shown: Vec<String> = lines[..1]
            .iter()
            .chain(reasons)
            .cloned()
            .chain(Some(verify.to_owned()).filter(|v| !v.is_empty()))
            .collect();
        for line in shown.iter().filter(|line| !self.last.contains(line)) {
            writeln!(stdout, "{line}")?;
        }
        self.last = shown;
        for (id, why) in failures {
            if self.told.insert(id.clone()) {
                writeln!(stdout, "task {} failed: {why}", crate::show::short_id(id))?;
            }
        }
        stdout.flush()
    }

    fn redraw(
        &mut self,
        lines: &[String],
        failures: &[(String, String)],
        verify: &str,
    ) -> std::io::Result<()> {
        let newest =
            failures.last().map(|(id, why)| format!("task {} failed: {why}", crate::show::short_id(id)));
        let shown: Vec<String> = lines
            .iter()
            .cloned()
            .chain(newest)
            .chain(Some(verify.to_owned()).filter(|v| !v.is_empty()))
            .collect();
        let mut stdout = std::io::stdout();
        if !self.last.is_empty() {
            // Up to the block's first line, and clear from there to the end of the screen.
            write!(stdout, "\x1b[{}A\x1b[J", self.last.len())?;
        }
        for line in &shown {
            writeln!(stdout, "{line}")?;
        }
        self.last = shown;
        stdout.flush()
    }
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
        assert_eq!((picture.running, picture.wanted, picture.is_converged()), (1, 4, false));
        let picture = Picture::new(&replicated(1), &tasks[..1], &nodes());
        assert!(picture.is_converged());
        assert_eq!(picture.lines(), ["overall progress: 1 out of 1 tasks", "1/1: running"]);
    }

    #[test]
    fn the_newest_task_of_a_slot_speaks_for_it_and_failures_are_kept() {
        let tasks = [
            task("12", 1, "", "running", "pending", "no suitable node (1 node is down)"),
            task("10", 1, "n1", "shutdown", "failed", "task: non-zero exit (1)"),
            task("11", 1, "n1", "running", "ready", ""),
        ];
        let picture = Picture::new(&replicated(1), &tasks, &nodes());
        assert_eq!(picture.bars, ["pending: no suitable node (1 node is down)"]);
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
        assert_eq!((picture.running, picture.wanted), (1, 2));
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
