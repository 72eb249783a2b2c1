//! `--network`: a name, or docker's long form `name=NET,alias=A,alias=B`.

use anyhow::{Context, bail, ensure};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) network: String,
    pub(crate) aliases: Vec<String>,
}

pub(crate) fn parse(word: &str) -> anyhow::Result<Attachment> {
    let attachment = if word.contains('=') {
        parse_long(word).with_context(|| format!("bad --network {word}"))?
    } else {
        Attachment { network: word.to_owned(), aliases: Vec::new() }
    };
    ensure!(!attachment.network.is_empty(), "bad --network {word}: the network's name is missing");
    Ok(attachment)
}

fn parse_long(word: &str) -> anyhow::Result<Attachment> {
    let mut attachment = Attachment::default();
    for field in word.split(',') {
        let (key, value) = field.split_once('=').with_context(|| format!("{field} is not KEY=VALUE"))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => attachment.network = value.to_owned(),
            "alias" => attachment.aliases.push(value.to_ascii_lowercase()),
            "driver-opt" | "ip" | "ip6" | "mac-address" | "link-local-ip" | "gw-priority" => {
                bail!("the field {key} isn't there yet")
            }
            other => bail!("{other} is no field of a network; name and alias are"),
        }
    }
    Ok(attachment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_the_long_form() {
        assert_eq!(parse("backend").unwrap().network, "backend");
        let long = parse("name=n1,alias=Foo,alias=bar").unwrap();
        assert_eq!(long, Attachment { network: "n1".into(), aliases: vec!["foo".into(), "bar".into()] });
        for (bad, why) in [
            ("", "name is missing"),
            ("alias=x", "name is missing"),
            ("name=n1,driver-opt=a=b", "isn't there yet"),
            ("name=n1,x", "is not KEY=VALUE"),
            ("name=n1,nam=x", "is no field"),
        ] {
            let said = format!("{:#}", parse(bad).unwrap_err());
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
