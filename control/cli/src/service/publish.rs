//! `--publish`: docker's short form `[PUBLISHED:]TARGET[/PROTOCOL]` with ranges, and its long form
//! `published=80,target=8080,protocol=tcp,mode=ingress`.

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

/// A port as docker's `EndpointSpec.Ports` has it. `published` 0: the cluster picks one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    protocol: String,
    target: u16,
    published: u16,
    mode: String,
}

impl Port {
    pub(crate) fn to_json(&self) -> Value {
        let mut port = Map::from_iter([
            ("Protocol".to_owned(), json!(self.protocol)),
            ("TargetPort".to_owned(), json!(self.target)),
        ]);
        // Docker leaves out what isn't set.
        if self.published != 0 {
            port.insert("PublishedPort".into(), json!(self.published));
        }
        port.insert("PublishMode".into(), json!(self.mode));
        Value::Object(port)
    }
}

/// The ports of one `--publish`.
pub(crate) fn parse(word: &str) -> anyhow::Result<Vec<Port>> {
    let ports = if word.contains('=') { parse_long(word) } else { parse_short(word) };
    ports.with_context(|| format!("bad --publish {word}"))
}

fn parse_short(word: &str) -> anyhow::Result<Vec<Port>> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let (published, target) = match ports.split(':').collect::<Vec<_>>()[..] {
        [target] => (None, target),
        [published, target] => (Some(published).filter(|port| !port.is_empty()), target),
        _ => bail!(
            "a host's address can't be chosen: a published port answers on every address of every host. Write PUBLISHED:TARGET"
        ),
    };
    expand(published, target, &checked_protocol(protocol)?, "ingress")
}

fn parse_long(word: &str) -> anyhow::Result<Vec<Port>> {
    let (mut target, mut published, mut protocol, mut mode) =
        (None, None, "tcp".to_owned(), "ingress".to_owned());
    for field in word.split(',') {
        let (key, value) = field.split_once('=').with_context(|| format!("{field} is not KEY=VALUE"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "target" => target = Some(value.trim()),
            "published" => published = Some(value.trim()),
            "protocol" => protocol = checked_protocol(value.trim())?,
            "mode" => mode = checked_mode(value.trim())?,
            other => bail!("{other} is no field of a port; target, published, protocol and mode are"),
        }
    }
    let target = target.context("the field target is missing: the port the service listens on")?;
    ensure!(!target.contains('-'), "target is one port, not a range");
    expand(published, target, &protocol, &mode)
}

fn checked_protocol(word: &str) -> anyhow::Result<String> {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "tcp" | "udp" | "sctp" => Ok(word),
        _ => bail!("{word} is no protocol of a port; tcp and udp are"),
    }
}

fn checked_mode(word: &str) -> anyhow::Result<String> {
    match word {
        "ingress" | "host" => Ok(word.to_owned()),
        _ => bail!("{word} is no mode of a port; ingress is"),
    }
}

/// Ranges of one length go side by side; a range to one target is that target under every number.
fn expand(published: Option<&str>, target: &str, protocol: &str, mode: &str) -> anyhow::Result<Vec<Port>> {
    let targets = range(target)?;
    let port = |published, target| Port { protocol: protocol.into(), target, published, mode: mode.into() };
    let Some(published) = published.filter(|word| *word != "0") else {
        return Ok(targets.map(|target| port(0, target)).collect());
    };
    let published = range(published)?;
    match targets.len() {
        n if n == published.len() => Ok(published.zip(targets).map(|(p, t)| port(p, t)).collect()),
        1 => Ok(published.map(|published| port(published, *targets.start())).collect()),
        n => bail!("{} published ports can't serve {n} targets: give ranges of one length", published.len()),
    }
}

fn range(word: &str) -> anyhow::Result<std::ops::RangeInclusive<u16>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (number(first)?, number(last)?);
    ensure!(first <= last, "{word} runs backwards");
    Ok(first..=last)
}

fn number(word: &str) -> anyhow::Result<u16> {
    match word.parse() {
        Ok(port) if port != 0 && word.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => bail!("\"{word}\" is no port: a number from 1 to 65535 is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ports(word: &str) -> Vec<(u16, u16, String)> {
        parse(word).unwrap().into_iter().map(|port| (port.published, port.target, port.protocol)).collect()
    }

    #[test]
    fn short_and_long_forms() {
        let tcp = |published, target| (published, target, "tcp".to_owned());
        assert_eq!(ports("80:8080"), [tcp(80, 8080)]);
        assert_eq!(ports("8080"), [tcp(0, 8080)]);
        assert_eq!(ports("53:53/UDP"), [(53, 53, "udp".to_owned())]);
        assert_eq!(ports("8000-8002:80-82"), [tcp(8000, 80), tcp(8001, 81), tcp(8002, 82)]);
        assert_eq!(ports("8000-8001:80"), [tcp(8000, 80), tcp(8001, 80)]);
        assert_eq!(ports("80-81"), [tcp(0, 80), tcp(0, 81)]);
        assert_eq!(ports("published=8080,target=80"), [tcp(8080, 80)]);
        assert_eq!(ports("target=80,published=8000-8001,protocol=udp").len(), 2);
        assert_eq!(ports("target=80"), [tcp(0, 80)]);
    }

    /// As the stock CLI 28.2.2 sent them.
    #[test]
    fn ports_are_sent_as_docker_sends_them() {
        let sent = |word: &str| parse(word).unwrap()[0].to_json().to_string();
        assert_eq!(
            sent("80:80"),
            r#"{"Protocol":"tcp","TargetPort":80,"PublishedPort":80,"PublishMode":"ingress"}"#
        );
        assert_eq!(
            sent("mode=host,target=90,published=9090"),
            r#"{"Protocol":"tcp","TargetPort":90,"PublishedPort":9090,"PublishMode":"host"}"#
        );
        assert_eq!(sent("80"), r#"{"Protocol":"tcp","TargetPort":80,"PublishMode":"ingress"}"#);
    }

    #[test]
    fn bad_ports_are_told_why() {
        for (word, why) in [
            ("", "is no port"),
            ("0:80", ""),
            ("80:0", "is no port"),
            ("80:65536", "is no port"),
            ("+80:80", "is no port"),
            ("80:80/icmp", "is no protocol"),
            ("127.0.0.1:80:80", "a host's address can't be chosen"),
            ("82-80:80-82", "runs backwards"),
            ("80-81:80-82", "ranges of one length"),
            ("published=80", "target is missing"),
            ("target=80-81", "not a range"),
            ("target=80,mode=maybe", "is no mode"),
            ("target=80,host=x", "is no field"),
            ("target=80,x", "is not KEY=VALUE"),
        ] {
            if why.is_empty() {
                assert_eq!(ports(word)[0].0, 0, "0 means any, as in docker");
                continue;
            }
            let said = format!("{:#}", parse(word).unwrap_err());
            assert!(said.starts_with("bad --publish") && said.contains(why), "{word}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_word_panics(word in r"([0-9]{1,6}|-|:|/|=|,|target|published|tcp|\PC){0,12}") {
            let _ = parse(&word);
        }
    }
}
