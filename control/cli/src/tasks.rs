//! Tasks as `service ps` and `node ps` list them.

use std::collections::HashMap;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::client::{Client, Error};
use crate::query::{self, Filters, list as elements, number, text};
use crate::service::ports_text;
use crate::show::{self, Column, Row, ago, capitalized, natural_order, row, short_id};

#[derive(Args, Debug)]
pub(crate) struct TaskListArgs {
    /// Only what matches, as KEY=VALUE
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// `json` (one object a line), or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids and errors
    #[arg(long)]
    no_trunc: bool,
    /// Ids instead of the names of services and hosts
    #[arg(long)]
    no_resolve: bool,
}

const COLUMNS: [Column; 8] = [
    ("ID", "ID"),
    ("NAME", "Name"),
    ("IMAGE", "Image"),
    ("NODE", "Node"),
    ("DESIRED STATE", "DesiredState"),
    ("CURRENT STATE", "CurrentState"),
    ("ERROR", "Error"),
    ("PORTS", "Ports"),
];

/// Longer errors end in `…` unless `--no-trunc`.
const MAX_ERROR: usize = 30;

pub(crate) async fn list(client: &Client, filters: &Filters, args: &TaskListArgs) -> anyhow::Result<()> {
    let tasks = client.get(&filters.on("/tasks", &[])).await?;
    let mut names = Names::new(client, args.no_resolve);
    let mut named = Vec::new();
    for task in elements(&tasks, "") {
        named.push((names.task(task).await?, names.node(text(task, "/NodeID")).await?, task));
    }
    // The newest task of a slot first; its history under it.
    named.sort_by(|a, b| natural_order(&a.0, &b.0).then_with(|| created(b.2).cmp(&created(a.2))));
    let table =
        !args.quiet && args.format.as_deref().is_none_or(|format| format.trim_start().starts_with("table"));
    let rows = rows(&named, args.no_trunc, table, Timestamp::now());
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    show::listing(&COLUMNS, &rows, format)
}

fn created(task: &Value) -> Option<Timestamp> {
    text(task, "/CreatedAt").parse().ok()
}

/// Tasks with their name and their node's, sorted. In a table a task under another of its slot is indented.
fn rows(tasks: &[(String, String, &Value)], no_trunc: bool, table: bool, now: Timestamp) -> Vec<Row> {
    let mut above = None;
    let mut row = |(name, node, task): &(String, String, &Value)| {
        let indent = table && above.replace(name.clone()).as_ref() == Some(name);
        let name = if indent { format!(" \\_ {name}") } else { name.clone() };
        task_row(task, &name, node, no_trunc, now)
    };
    tasks.iter().map(&mut row).collect()
}

fn task_row(task: &Value, name: &str, node: &str, no_trunc: bool, now: Timestamp) -> Row {
    let id = text(task, "/ID");
    let state = capitalized(text(task, "/Status/State"));
    row([
        ("ID", json!(if no_trunc { id.to_owned() } else { short_id(id) })),
        ("Name", json!(name)),
        ("Image", json!(shown_image(text(task, "/Spec/ContainerSpec/Image")))),
        ("Node", json!(node)),
        ("DesiredState", json!(capitalized(text(task, "/DesiredState")))),
        ("CurrentState", json!(format!("{state} {}", ago(text(task, "/Status/Timestamp"), now)))),
        ("Error", json!(shown_error(text(task, "/Status/Err"), no_trunc))),
        ("Ports", json!(ports_text(elements(task, "/Status/PortStatus/Ports"), "host"))),
    ])
}

fn shown_error(error: &str, no_trunc: bool) -> String {
    if error.is_empty() {
        return String::new();
    }
    let short: String = match error.chars().count() > MAX_ERROR && !no_trunc {
        true => error.chars().take(MAX_ERROR - 1).chain(['…']).collect(),
        false => error.to_owned(),
    };
    format!("\"{}\"", short.replace('"', "\\\""))
}

/// Without the digest, which says nothing to a reader.
pub(crate) fn shown_image(image: &str) -> &str {
    image.split('@').next().unwrap_or(image)
}

/// Names of services and nodes, each asked for once.
pub(crate) struct Names<'c> {
    client: &'c Client,
    no_resolve: bool,
    known: HashMap<String, String>,
}

impl<'c> Names<'c> {
    pub(crate) fn new(client: &'c Client, no_resolve: bool) -> Self {
        Self { client, no_resolve, known: HashMap::new() }
    }

    pub(crate) async fn node(&mut self, id: &str) -> Result<String, Error> {
        self.name("nodes", id, "/Description/Hostname").await
    }

    /// `web.1`; `agent.<node id>` for a task of a global service.
    pub(crate) async fn task(&mut self, task: &Value) -> Result<String, Error> {
        let service = self.name("services", text(task, "/ServiceID"), "/Spec/Name").await?;
        Ok(match number(task, "/Slot") {
            // Attachments belong to no service and have a name of their own.
            0 if service.is_empty() => text(task, "/Name").to_owned(),
            0 => format!("{service}.{}", text(task, "/NodeID")),
            slot => format!("{service}.{slot}"),
        })
    }

    /// The id itself where the object is gone (history outlives its service or node).
    async fn name(&mut self, collection: &str, id: &str, pointer: &str) -> Result<String, Error> {
        if id.is_empty() || self.no_resolve {
            return Ok(id.to_owned());
        }
        if let Some(name) = self.known.get(id) {
            return Ok(name.clone());
        }
        let path = format!("/{collection}/{}", query::encode(id));
        let name = match self.client.get(&path).await {
            Ok(object) => Some(text(&object, pointer).to_owned()).filter(|name| !name.is_empty()),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let name = name.unwrap_or_else(|| id.to_owned());
        self.known.insert(id.to_owned(), name.clone());
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str, desired: &str, state: &str, since: &str, err: &str) -> Value {
        json!({
            "ID": id, "Spec": {"ContainerSpec": {"Image": "nginx:1.27@sha256:afa2"}}, "DesiredState": desired,
            "Status": {"State": state, "Timestamp": since, "Err": err, "PortStatus": {}},
        })
    }

    /// The layout of the stock CLI's `node ps`, with an error as it shows one.
    #[test]
    fn history_is_listed_under_its_slot() {
        let running = task("pk6u90a2y1ujxxxxx", "running", "running", "2026-11-21T04:36:50Z", "");
        let failed = task(
            "2ghsw05mix5axxxxx",
            "shutdown",
            "failed",
            "2026-11-21T04:36:44Z",
            "task: non-zero exit (137)",
        );
        let tasks = [
            ("myweb.2".to_owned(), "node-2".to_owned(), &running),
            ("myweb.2".to_owned(), "node-2".to_owned(), &failed),
            ("web2.2".to_owned(), "node-2".to_owned(), &running),
        ];
        let rows = rows(&tasks, false, true, "2026-11-21T04:36:55Z".parse().unwrap());
        let cells =
            |row: &Row| COLUMNS.iter().map(|(_, field)| row[*field].as_str().unwrap().to_owned()).collect();
        let headings = COLUMNS.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let printed = show::table(headings, rows.iter().map(cells).collect());
        let expected = "\
ID             NAME          IMAGE        NODE      DESIRED STATE   CURRENT STATE           ERROR                         PORTS
pk6u90a2y1uj   myweb.2       nginx:1.27   node-2    Running         Running 5 seconds ago                                 
2ghsw05mix5a    \\_ myweb.2   nginx:1.27   node-2    Shutdown        Failed 11 seconds ago   \"task: non-zero exit (137)\"   
pk6u90a2y1uj   web2.2        nginx:1.27   node-2    Running         Running 5 seconds ago                                 
";
        assert_eq!(printed, expected);
    }

    #[test]
    fn a_row_has_dockers_fields() {
        let task = task("k051wi3g75qtuckfpyfptjp3v", "running", "running", "2026-11-21T05:02:47.8Z", "");
        let row = task_row(&task, "w.1", "node-1", false, "2026-11-21T05:02:48Z".parse().unwrap());
        let docker = r#"{"CurrentState":"Running less than a second ago","DesiredState":"Running","Error":"","ID":"k051wi3g75qt","Image":"nginx:1.27","Name":"w.1","Node":"node-1","Ports":""}"#;
        assert_eq!(Value::Object(row).to_string(), docker);
    }

    #[test]
    fn long_errors_are_cut_and_quoted() {
        let long = "no suitable node (host-mode port already in use on 3 nodes)";
        assert_eq!(shown_error(long, false), "\"no suitable node (host-mode p…\"");
        assert_eq!(shown_error(long, true), format!("\"{long}\""));
        assert_eq!(shown_error("", false), "");
    }
}
