//! The words after `lab`.

use super::layout::MAX_NODES;
use anyhow::{Context, Result, bail, ensure};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpOptions {
    pub(crate) nodes: usize,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self { nodes: 3 }
    }
}

impl UpOptions {
    pub(super) fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for (option, value) in pairs(words)? {
            match (option.as_str(), value.as_str()) {
                ("--nodes", number) => options.nodes = nodes(number)?,
                ("--managers", "1") | ("--encrypted", "false") | ("--executor", "process") => {}
                ("--managers", _) => bail!("several managers aren't there yet: leave out --managers"),
                ("--encrypted", _) => bail!("encrypted networks aren't there yet: leave out --encrypted"),
                ("--executor", _) => bail!("only the executor `process` is there yet: leave out --executor"),
                _ => bail!("`lab up` has no option `{option}`"),
            }
        }
        Ok(options)
    }
}

fn nodes(number: &str) -> Result<usize> {
    let nodes = number.parse().with_context(|| format!("--nodes takes a number, not `{number}`"))?;
    ensure!((1..=MAX_NODES).contains(&nodes), "a lab has 1 to {MAX_NODES} nodes");
    Ok(nodes)
}

/// `--option value` and `--option=value`.
fn pairs(words: &[&str]) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, value),
            None => (*word, *rest.next().with_context(|| format!("`{word}` needs a value"))?),
        };
        pairs.push((option.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Takes `--name NAME` out of the words, wherever it is.
pub(super) fn take_name<'a>(words: &[&'a str]) -> Result<(String, Vec<&'a str>)> {
    let mut name = "skep".to_owned();
    let mut others = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.strip_prefix("--name") {
            Some("") => name = (*rest.next().context("`--name` needs a value")?).to_owned(),
            Some(value) if value.starts_with('=') => name = value[1..].to_owned(),
            _ => others.push(*word),
        }
    }
    Ok((name, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_an_option_mean_the_same() {
        assert_eq!(UpOptions::parse(&["--nodes", "5"]).unwrap().nodes, 5);
        assert_eq!(UpOptions::parse(&["--nodes=5"]).unwrap().nodes, 5);
    }

    #[test]
    fn what_is_not_there_yet_is_refused() {
        for words in
            [["--managers", "3"], ["--encrypted", "true"], ["--executor", "docker"], ["--colour", "red"]]
        {
            assert!(UpOptions::parse(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_name_is_found_anywhere() {
        let (name, rest) = take_name(&["exec", "--name", "other", "n1"]).unwrap();
        assert_eq!((name.as_str(), rest.as_slice()), ("other", ["exec", "n1"].as_slice()));
        assert_eq!(take_name(&["down", "--name=b"]).unwrap().0, "b");
        assert_eq!(take_name(&["down"]).unwrap().0, "skep");
    }
}
