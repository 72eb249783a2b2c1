//! `skep service ls`.

use serde_json::{Value, json};

use super::ports_text;
use crate::cli::ListArgs;
use crate::client::Client;
use crate::query::{Filters, list, number, text};
use crate::show::{self, Column, Row, natural_order, row, short_id};
use crate::tasks::shown_image;

const COLUMNS: [Column; 6] = [
    ("ID", "ID"),
    ("NAME", "Name"),
    ("MODE", "Mode"),
    ("REPLICAS", "Replicas"),
    ("IMAGE", "Image"),
    ("PORTS", "Ports"),
];

pub(super) async fn run(client: &Client, args: &ListArgs) -> anyhow::Result<u8> {
    let filters = Filters::parse(&args.filter)?;
    let services = client.get(&filters.on("/services", &["status=true"])).await?;
    let mut services = list(&services, "").to_vec();
    services.sort_by(|a, b| natural_order(text(a, "/Spec/Name"), text(b, "/Spec/Name")));
    let rows: Vec<Row> = services.iter().map(service_row).collect();
    let format = if args.quiet { Some("{{.ID}}") } else { args.format.as_deref() };
    show::listing(&COLUMNS, &rows, format)?;
    Ok(0)
}

fn service_row(service: &Value) -> Row {
    let mode = &service["Spec"]["Mode"];
    let mode = [("Global", "global"), ("ReplicatedJob", "replicated job"), ("GlobalJob", "global job")]
        .iter()
        .find(|(field, _)| mode.get(field).is_some_and(|mode| !mode.is_null()))
        .map_or("replicated", |(_, name)| name);
    let status = &service["ServiceStatus"];
    row([
        ("ID", json!(short_id(text(service, "/ID")))),
        ("Name", json!(text(service, "/Spec/Name"))),
        ("Mode", json!(mode)),
        (
            "Replicas",
            json!(format!("{}/{}", number(status, "/RunningTasks"), number(status, "/DesiredTasks"))),
        ),
        ("Image", json!(shown_image(text(service, "/Spec/TaskTemplate/ContainerSpec/Image")))),
        ("Ports", json!(ports_text(list(service, "/Endpoint/Ports"), "ingress"))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_dockers_fields() {
        let service = json!({
            "ID": "sckfl3x41zmpa5wimwjz48d07",
            "Spec": {
                "Name": "w",
                "TaskTemplate": {"ContainerSpec": {"Image": "nginx:latest@sha256:ac7c"}},
                "Mode": {"Replicated": {"Replicas": 1}},
            },
            "Endpoint": {"Spec": {"Mode": "vip"}},
            "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 0},
        });
        let docker = r#"{"ID":"sckfl3x41zmp","Image":"nginx:latest","Mode":"replicated","Name":"w","Ports":"","Replicas":"1/1"}"#;
        assert_eq!(Value::Object(service_row(&service)).to_string(), docker);
        assert_eq!(service_row(&json!({"Spec": {"Mode": {"Global": {}}}}))["Mode"], "global");
    }
}
