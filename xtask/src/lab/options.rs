//! The words after `lab`.

use super::layout::MAX_NODES;
use anyhow::{Context, Result, bail, ensure};

/// Those of `skep swarm init`.
const DATA_CIPHERS: [&str; 2] = ["chacha20-poly1305", "aes-256-gcm"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpOptions {
    pub(crate) nodes: usize,
    /// Of networks that are made here; a lab makes none but ingress, which is always encrypted.
    pub(crate) encrypted: bool,
    /// None: whatever a cluster has that asks for none.
    pub(crate) data_cipher: Option<String>,
    /// None: VXLAN's own.
    pub(crate) data_path_port: Option<u16>,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self { nodes: 3, encrypted: true, data_cipher: None, data_path_port: None }
    }
}

impl UpOptions {
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for (option, value) in pairs(words)? {
            match (option.as_str(), value.as_str()) {
                ("--nodes", number) => options.nodes = nodes(number)?,
                ("--encrypted", choice) => options.encrypted = encrypted(choice)?,
                ("--data-cipher", name) => options.data_cipher = Some(data_cipher(name)?),
                ("--data-path-port", number) => options.data_path_port = Some(port(number)?),
                ("--managers", "1") | ("--executor", "process") => {}
                ("--managers", _) => bail!("several managers aren't there yet: leave out --managers"),
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

fn encrypted(choice: &str) -> Result<bool> {
    choice.parse().with_context(|| format!("--encrypted takes true or false, not `{choice}`"))
}

fn port(number: &str) -> Result<u16> {
    number.parse().with_context(|| format!("--data-path-port takes a port, not `{number}`"))
}

/// Known here as well, so that a slip is told before anything is built.
fn data_cipher(name: &str) -> Result<String> {
    ensure!(DATA_CIPHERS.contains(&name), "--data-cipher takes {}, not `{name}`", DATA_CIPHERS.join(" or "));
    Ok(name.to_owned())
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
        for words in [["--managers", "3"], ["--executor", "docker"], ["--colour", "red"]] {
            assert!(UpOptions::parse(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn networks_are_encrypted_unless_it_is_said_and_ciphers_are_known() {
        let options = |words: &[&str]| UpOptions::parse(words).unwrap();
        assert!(options(&[]).encrypted && options(&["--encrypted", "true"]).encrypted);
        assert!(!options(&["--encrypted=false"]).encrypted);
        assert_eq!(options(&["--data-cipher", "aes-256-gcm"]).data_cipher.as_deref(), Some("aes-256-gcm"));
        assert_eq!(options(&["--data-path-port=7789"]).data_path_port, Some(7789));
        for words in [["--encrypted", "no"], ["--data-cipher", "rot13"], ["--data-path-port", "many"]] {
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
