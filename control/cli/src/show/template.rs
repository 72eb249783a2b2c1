//! The part of Go's templates that people use with `--format`: fields, `json`, `len`, `range`, `if`.

use anyhow::{Context, bail};
use serde_json::Value;

use super::Row;

/// A parsed template.
#[derive(Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Print(Function, Path),
    Range(Path, Vec<Self>),
    If(Path, Vec<Self>, Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Plain,
    Json,
    Len,
    Upper,
    Lower,
}

/// `.Spec.Name` as its words; `.` is empty.
type Path = Vec<String>;

/// Whether a missing field is an error (rows have a known set) or prints Go's `<no value>` (objects don't).
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Error,
    NoValue,
}

impl Template {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut tokens = tokenize(&text)?.into_iter();
        let (parts, ended) = block(&mut tokens)?;
        match ended {
            None => Ok(Self(parts)),
            Some(word) => bail!("bad --format: {{{{{word}}}}} ends nothing"),
        }
    }

    /// One line of a listing.
    pub(crate) fn row(&self, row: &Row) -> anyhow::Result<String> {
        render(&self.0, &Value::Object(row.clone()), Missing::Error)
    }

    /// Any object.
    pub(crate) fn value(&self, value: &Value) -> anyhow::Result<String> {
        render(&self.0, value, Missing::NoValue)
    }

    /// The headings of `table TEMPLATE`: every field replaced by its heading.
    pub(crate) fn headings(&self, heading: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Print(_, path) | Part::Range(path, _) | Part::If(path, ..) => {
                path.first().map_or(String::new(), |field| heading(field))
            }
        };
        self.0.iter().map(part).collect()
    }
}

enum Token<'a> {
    Text(&'a str),
    Action(&'a str),
}

type Tokens<'a> = std::vec::IntoIter<Token<'a>>;

fn tokenize(text: &str) -> anyhow::Result<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").context("bad --format: a {{ has no }}")?;
        tokens.push(Token::Text(before));
        tokens.push(Token::Action(action.trim().trim_matches('-').trim()));
        rest = after;
    }
    tokens.push(Token::Text(rest));
    Ok(tokens)
}

/// Parts up to the end of the text, or up to an `end` or `else`, which is returned.
fn block<'a>(tokens: &mut Tokens<'a>) -> anyhow::Result<(Vec<Part>, Option<&'a str>)> {
    let mut parts = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text("") => continue,
            Token::Text(text) => {
                parts.push(Part::Text(text.to_owned()));
                continue;
            }
            Token::Action(action) => action,
        };
        let words: Vec<&str> = action.split_whitespace().collect();
        parts.push(match words[..] {
            ["end" | "else"] => return Ok((parts, Some(words[0]))),
            ["range", path] => match block(tokens)? {
                (body, Some("end")) => Part::Range(parse_path(path)?, body),
                _ => bail!("bad --format: {{{{range}}}} needs an {{{{end}}}}"),
            },
            ["if", path] => conditional(path, tokens)?,
            [path] => Part::Print(Function::Plain, parse_path(path)?),
            [function, path] => Part::Print(parse_function(function)?, parse_path(path)?),
            _ => bail!("bad --format: {{{{{action}}}}} isn't there yet; fields, json, len, upper, lower, range and if are"),
        });
    }
    Ok((parts, None))
}

fn conditional<'a>(path: &str, tokens: &mut Tokens<'a>) -> anyhow::Result<Part> {
    let path = parse_path(path)?;
    let (then, ended) = block(tokens)?;
    match ended {
        Some("end") => Ok(Part::If(path, then, Vec::new())),
        Some(_) => match block(tokens)? {
            (otherwise, Some("end")) => Ok(Part::If(path, then, otherwise)),
            _ => bail!("bad --format: {{{{else}}}} needs an {{{{end}}}}"),
        },
        None => bail!("bad --format: {{{{if}}}} needs an {{{{end}}}}"),
    }
}

fn parse_function(word: &str) -> anyhow::Result<Function> {
    Ok(match word {
        "json" => Function::Json,
        "len" => Function::Len,
        "upper" => Function::Upper,
        "lower" => Function::Lower,
        "println" | "print" => Function::Plain,
        _ => bail!("bad --format: the function {word} isn't there yet; json, len, upper and lower are"),
    })
}

fn parse_path(word: &str) -> anyhow::Result<Path> {
    let Some(path) = word.strip_prefix('.') else {
        bail!("bad --format: {word} is no field; fields begin with a dot, as in {{{{.Name}}}}")
    };
    Ok(path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect())
}

fn render(parts: &[Part], value: &Value, missing: Missing) -> anyhow::Result<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Print(function, path) => text.push_str(&print(*function, walk(value, path, missing)?)),
            Part::Range(path, body) => {
                for element in elements(walk(value, path, missing)?) {
                    text.push_str(&render(body, element, Missing::NoValue)?);
                }
            }
            Part::If(path, then, otherwise) => {
                let chosen = if is_true(walk(value, path, missing)?) { then } else { otherwise };
                text.push_str(&render(chosen, value, missing)?);
            }
        }
    }
    Ok(text)
}

fn walk<'a>(value: &'a Value, path: &Path, missing: Missing) -> anyhow::Result<&'a Value> {
    let mut at = value;
    for step in path {
        at = match at.get(step) {
            Some(next) => next,
            None if missing == Missing::NoValue => return Ok(&Value::Null),
            None => {
                let known: Vec<&str> =
                    at.as_object().into_iter().flat_map(|o| o.keys().map(String::as_str)).collect();
                bail!("bad --format: there is no field .{step}; there are .{}", known.join(", ."))
            }
        };
    }
    Ok(at)
}

fn print(function: Function, value: &Value) -> String {
    match function {
        Function::Plain if value.is_null() => "<no value>".to_owned(),
        Function::Plain => plain(value),
        Function::Json => value.to_string(),
        Function::Len => value.as_str().map_or_else(|| elements(value).count(), str::len).to_string(),
        Function::Upper => plain(value).to_uppercase(),
        Function::Lower => plain(value).to_lowercase(),
    }
}

/// A string as it is, anything else as JSON; nothing for null.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn elements(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(elements) => Box::new(elements.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// Go's truth: not the zero value.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => elements(value).next().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn show(template: &str, value: &Value) -> String {
        Template::parse(template).unwrap().value(value).unwrap()
    }

    #[test]
    fn fields_functions_ranges_and_conditions() {
        let value = json!({"Name": "web", "N": 3, "Spec": {"Ports": [{"P": 80}, {"P": 81}], "Empty": null}});
        for (template, text) in [
            ("{{.Name}} x{{ .N }}\\t|", "web x3\t|"),
            ("{{json .Spec}}", r#"{"Ports":[{"P":80},{"P":81}],"Empty":null}"#),
            ("{{json .}}", &value.to_string()),
            ("{{range .Spec.Ports}}{{.P}};{{end}}", "80;81;"),
            ("{{len .Spec.Ports}} {{upper .Name}}", "2 WEB"),
            ("{{if .Spec.Empty}}a{{else}}b{{end}}{{if .N}}c{{end}}", "bc"),
            ("{{.Nope.Deeper}}", "<no value>"),
            ("plain", "plain"),
        ] {
            assert_eq!(show(template, &value), text, "{template}");
        }
    }

    #[test]
    fn a_rows_unknown_field_names_the_known_ones() {
        let row = super::super::row([("Name", json!("web")), ("ID", json!("x"))]);
        let said = Template::parse("{{.Nmae}}").unwrap().row(&row).unwrap_err().to_string();
        assert_eq!(said, "bad --format: there is no field .Nmae; there are .ID, .Name");
    }

    #[test]
    fn bad_templates_are_told_why() {
        for bad in [
            "{{.A",
            "{{A}}",
            "{{nope .A}}",
            "{{range .A}}",
            "{{end}}",
            "{{if .A}}{{else}}",
            "{{.A | json}}",
            "{{}}",
        ] {
            assert!(Template::parse(bad).unwrap_err().to_string().starts_with("bad --format"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_template_panics(template in r"(\{\{|\}\}|\.|json|range|if|else|end|[a-zA-Z \\t-]){0,24}") {
            if let Ok(template) = Template::parse(&template) {
                let _ = template.value(&json!({"a": [1, {"b": null}], "json": "x"}));
                template.headings(str::to_uppercase);
            }
        }
    }
}
