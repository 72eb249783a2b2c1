//! Paths and queries of API requests.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::bail;
use serde_json::Value;

/// Percent-encodes all but RFC 3986's unreserved characters, so that a name can't end a path or a query early.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// `/services/NAME`. An empty name would ask for the list.
pub(crate) fn object(collection: &str, name: &str) -> anyhow::Result<String> {
    if name.trim().is_empty() {
        bail!("invalid {} name or ID: value is empty", collection.trim_end_matches('s'));
    }
    Ok(format!("/{collection}/{}", encode(name)))
}

/// Docker's `filters` parameter: `{"key":{"value":true}}`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, BTreeMap<String, bool>>);

impl Filters {
    /// From `--filter KEY=VALUE` words.
    pub(crate) fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut filters = Self::default();
        for word in words {
            match word.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    filters = filters.and(&key.trim().to_lowercase(), value.trim());
                }
                _ => bail!("bad filter \"{word}\": write it as KEY=VALUE, for example name=web"),
            }
        }
        Ok(filters)
    }

    pub(crate) fn and(mut self, key: &str, value: &str) -> Self {
        self.0.entry(key.to_owned()).or_default().insert(value.to_owned(), true);
        self
    }

    /// `path` with the filters, if there are any, and with further parameters that are already encoded.
    pub(crate) fn on(&self, path: &str, more: &[&str]) -> String {
        let filters = (!self.0.is_empty()).then(|| {
            let json = serde_json::to_string(&self.0).unwrap_or_default();
            format!("filters={}", encode(&json))
        });
        let parameters: Vec<&str> = filters.as_deref().into_iter().chain(more.iter().copied()).collect();
        if parameters.is_empty() { path.to_owned() } else { format!("{path}?{}", parameters.join("&")) }
    }
}

/// The text at a JSON pointer, empty if there is none: listings show what is there.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The elements at a JSON pointer; Go servers write `null` for an empty list.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_sent_as_the_stock_client_sends_them() {
        let filters = Filters::parse(&["service=x".into(), "_up-to-date=true".into()]).unwrap();
        assert_eq!(
            filters.on("/tasks", &["a=1"]),
            format!("/tasks?filters={}&a=1", encode(r#"{"_up-to-date":{"true":true},"service":{"x":true}}"#))
        );
        let label = Filters::parse(&["label=a=b".into(), "Label=c".into()]).unwrap();
        assert_eq!(
            label.on("/x", &[]),
            format!("/x?filters={}", encode(r#"{"label":{"a=b":true,"c":true}}"#))
        );
        assert_eq!(Filters::default().on("/services", &[]), "/services");
        for bad in ["name", "=x", ""] {
            assert!(Filters::parse(&[bad.into()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn hostile_names_stay_inside_their_path_segment() {
        assert_eq!(object("services", "../a?b#c d").unwrap(), "/services/..%2Fa%3Fb%23c%20d");
        assert!(object("services", " ").is_err());
    }
}
