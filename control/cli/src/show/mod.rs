//! What listings and inspections print.

mod human;
mod table;
mod template;

pub(crate) use human::{age, ago, bytes, capitalized, natural_order, short_id};
pub(crate) use table::{printable, table};
pub(crate) use template::Template;

use anyhow::bail;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::out;

/// A column of a table: its heading and the field of the rows it shows.
pub(crate) type Column = (&'static str, &'static str);

/// One object of a listing, by docker's field names.
pub(crate) type Row = Map<String, Value>;

/// A row from field names and values; docker's JSON lists fields by name.
pub(crate) fn row<const N: usize>(fields: [(&str, Value); N]) -> Row {
    let mut fields = fields.map(|(name, value)| (name.to_owned(), value));
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Row::from_iter(fields)
}

/// Prints a listing in the asked form: docker's table, `json` (one object a line), a template, or
/// `table TEMPLATE`.
pub(crate) fn listing(columns: &[Column], rows: &[Row], format: Option<&str>) -> anyhow::Result<()> {
    let format = format.unwrap_or("table").trim();
    if format == "json" {
        return print_each(rows, |row| Ok(Value::Object(row.clone()).to_string()));
    }
    match format.strip_prefix("table") {
        Some("") => {
            let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
            let cells = |row: &Row| columns.iter().map(|(_, field)| cell(row, field)).collect();
            Ok(out::raw(table(headings, rows.iter().map(cells).collect()))?)
        }
        Some(rest) if rest.starts_with(char::is_whitespace) => custom_table(columns, rows, rest.trim_start()),
        _ => {
            let template = Template::parse(format)?;
            print_each(rows, |row| template.row(row))
        }
    }
}

fn custom_table(columns: &[Column], rows: &[Row], format: &str) -> anyhow::Result<()> {
    let template = Template::parse(format)?;
    let split = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let heading = |field: &str| {
        let known = columns.iter().find(|(_, of)| *of == field).map(|(heading, _)| (*heading).to_owned());
        known.unwrap_or_else(|| field.to_uppercase())
    };
    let headings = split(template.headings(heading));
    let mut lines = Vec::new();
    for row in rows {
        lines.push(split(template.row(row)?));
    }
    Ok(out::raw(table(headings, lines))?)
}

fn print_each(rows: &[Row], show: impl Fn(&Row) -> anyhow::Result<String>) -> anyhow::Result<()> {
    for row in rows {
        out::line(show(row)?)?;
    }
    Ok(())
}

fn cell(row: &Row, field: &str) -> String {
    template::plain(row.get(field).unwrap_or(&Value::Null))
}

/// Prints objects as docker's `inspect` does: an indented JSON array, or a template for each.
pub(crate) fn inspection(objects: &[Value], format: Option<&str>) -> anyhow::Result<()> {
    match format {
        None => Ok(out::line(indented(&Value::Array(objects.to_vec())))?),
        Some("json") => Ok(out::line(Value::Array(objects.to_vec()))?),
        Some(format) => {
            let template = Template::parse(format)?;
            for object in objects {
                out::line(template.value(object)?)?;
            }
            Ok(())
        }
    }
}

/// Prints one object in the asked form; `plain` is what is printed without `--format`.
pub(crate) fn object(
    object: &Value,
    format: Option<&str>,
    plain: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        None => Ok(out::raw(plain())?),
        Some("json") => Ok(out::line(object)?),
        Some("") => bail!("--format is empty: write json, or a template such as '{{{{.Name}}}}'"),
        Some(format) => Ok(out::line(Template::parse(format)?.value(object)?)?),
    }
}

/// Docker indents by four spaces.
fn indented(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(),
    }
}
