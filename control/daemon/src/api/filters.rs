//! The `filters` query parameter: JSON in two spellings. The CLI sends `{"label":{"a=b":true}}`,
//! docker-py and others `{"label":["a=b"]}`.

use super::error::ApiError;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    /// Parses the parameter; `known` are the keys this endpoint understands.
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let parsed: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|error| ApiError::bad_request(format!("filters are not valid JSON: {error}")))?;
        let mut filters = BTreeMap::new();
        for (key, values) in parsed {
            if !known.contains(&key.as_str()) {
                return Err(ApiError::bad_request(format!("Invalid filter '{key}'")));
            }
            let values = match values {
                Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
                Values::List(list) => list.into_iter().collect(),
            };
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// Refuses a value of `key` that no object can have: a slip there would list nothing, as if nothing were there.
    pub(crate) fn one_of(&self, key: &str, known: &[&str]) -> Result<(), ApiError> {
        let mut values = self.0.get(key).into_iter().flatten();
        match values.find(|value| !known.contains(&value.as_str())) {
            Some(value) => Err(ApiError::bad_request(format!(
                "Invalid filter '{key}={value}': {key} is one of {}",
                known.join(", ")
            ))),
            None => Ok(()),
        }
    }

    /// True if `key` is not filtered on, or one of its values satisfies `matches`.
    pub(crate) fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| matches(value)))
    }

    /// As [`Self::any`], but every value must match: Docker's rule for labels.
    pub(crate) fn all(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().all(|value| matches(value)))
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// `key` or `key=value` against an object's labels.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels_of("label", labels)
    }

    /// As [`Self::labels`], for labels that are filtered by another name.
    pub(crate) fn labels_of(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.all(key, |wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let known = ["name"];
        let set = Filters::parse(Some(r#"{"name":{"web":true,"off":false}}"#), &known).unwrap();
        let list = Filters::parse(Some(r#"{"name":["web"]}"#), &known).unwrap();
        assert_eq!(set, list);
        assert!(set.any("name", |name| "web.1".starts_with(name)));
        assert!(!set.any("name", |name| name == "db"));
    }

    #[test]
    fn unknown_keys_and_broken_json_are_refused() {
        assert!(Filters::parse(Some(r#"{"bogus":["x"]}"#), &["name"]).is_err());
        assert!(Filters::parse(Some("notjson"), &["name"]).is_err());
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let filters = Filters::parse(Some(r#"{"role":["worker","boss"]}"#), &["role"]).unwrap();
        assert!(filters.one_of("role", &["worker", "manager"]).is_err());
        assert!(filters.one_of("role", &["worker", "boss"]).is_ok());
        assert!(filters.one_of("name", &[]).is_ok());
    }

    #[test]
    fn labels_match_by_key_or_pair() {
        let labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
        let filter = |text| Filters::parse(Some(text), &["label"]).unwrap();
        assert!(filter(r#"{"label":["tier"]}"#).labels(&labels));
        assert!(filter(r#"{"label":["tier=front"]}"#).labels(&labels));
        assert!(!filter(r#"{"label":["tier=front","other"]}"#).labels(&labels));
    }
}
