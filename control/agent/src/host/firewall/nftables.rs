//! Firewalls in nftables, those made by `iptables-nft` included: its tables are plain ones. Rules in these
//! are of interfaces and verdicts only, which `iptables` can read back; it refuses a table with anything
//! it doesn't know.

use super::super::nft;
use super::super::{GWBRIDGE, SKEP0};
use super::{CHAIN, Direction, MARK, Outcome, PASSES, PLACES, jump_in, obstacle};
use crate::host::netns::Netns;
use serde_json::{Value, json};
use std::io;

/// Where `iptables-nft` keeps its table `filter`.
const FILTER: &str = "ip filter";
const FORWARD: &str = "FORWARD";
const FIREWALLD: &str = "firewalld";

pub(super) async fn pass(netns: &Netns) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let chains = list(netns, "chains").await?;
    let chains: Vec<&Value> = chains.iter().filter_map(|object| object.get("chain")).collect();
    let place = place_among(&chains);
    if let Some(place) = place
        && !is_made(netns, place).await?
    {
        make(netns, place).await?;
        outcome.made.push(jump_in(place));
    }
    for chain in chains.iter().filter(|chain| is_foreign_forward(chain)) {
        let is_passed = place.is_some() && table_of(chain) == FILTER && text(chain, "name") == FORWARD;
        if !is_passed && is_in_the_way(netns, chain).await? {
            outcome.obstacles.push(describe(chain));
        }
    }
    Ok(outcome)
}

pub(super) async fn leave(netns: &Netns) -> io::Result<()> {
    let mut commands = String::new();
    for place in PLACES {
        for jump in rules(netns, FILTER, place).await?.iter().filter(|rule| is_our_jump(rule)) {
            commands += &format!("delete rule {FILTER} {place} handle {}\n", handle(jump));
        }
    }
    if !list(netns, &format!("chain {FILTER} {CHAIN}")).await?.is_empty() {
        commands += &format!("flush chain {FILTER} {CHAIN}\ndelete chain {FILTER} {CHAIN}\n");
    }
    if commands.is_empty() { Ok(()) } else { nft::load(netns, commands).await.map_err(io::Error::other) }
}

fn place_among(chains: &[&Value]) -> Option<&'static str> {
    let is_there =
        |place: &str| chains.iter().any(|chain| table_of(chain) == FILTER && text(chain, "name") == place);
    PLACES.into_iter().find(|place| is_there(place))
}

/// Whether the jump is there and leads to what it should.
async fn is_made(netns: &Netns, place: &str) -> io::Result<bool> {
    let is_linked = rules(netns, FILTER, place).await?.iter().any(is_our_jump);
    let ours = rules(netns, FILTER, CHAIN).await?;
    let ours: Vec<Value> = ours.iter().map(|rule| without_counters(&rule["expr"])).collect();
    let wanted = PASSES.map(|(direction, name)| {
        let left = json!({ "meta": { "key": direction.key() } });
        json!([{ "match": { "op": "==", "left": left, "right": name } }, { "accept": null }])
    });
    Ok(is_linked && ours == wanted)
}

/// In one transaction. The jump comes last, but before a final `return`: what the host's operator has put
/// there is asked first.
async fn make(netns: &Netns, place: &str) -> io::Result<()> {
    let there = rules(netns, FILTER, place).await?;
    let mut commands = format!("add chain {FILTER} {CHAIN}\nflush chain {FILTER} {CHAIN}\n");
    for (direction, name) in PASSES {
        commands += &format!("add rule {FILTER} {CHAIN} {} \"{name}\" counter accept\n", direction.key());
    }
    for jump in there.iter().filter(|rule| is_our_jump(rule)) {
        commands += &format!("delete rule {FILTER} {place} handle {}\n", handle(jump));
    }
    let jump = format!("counter jump {CHAIN} comment \"{MARK}\"");
    let last = there.iter().rfind(|rule| !is_our_jump(rule));
    commands += &match last.filter(|rule| ends_in(rule, &["return"])) {
        Some(last) => format!("insert rule {FILTER} {place} handle {} {jump}\n", handle(last)),
        None => format!("add rule {FILTER} {place} {jump}\n"),
    };
    nft::load(netns, commands).await.map_err(io::Error::other)
}

impl Direction {
    fn key(self) -> &'static str {
        match self {
            Self::In => "iifname",
            Self::Out => "oifname",
        }
    }
}

/// At the forward hook, for IPv4, and not one of ours.
fn is_foreign_forward(chain: &Value) -> bool {
    text(chain, "hook") == "forward"
        && text(chain, "type") == "filter"
        && ["ip", "inet"].contains(&text(chain, "family"))
        && !text(chain, "table").starts_with("skep")
}

/// It drops, or refuses, what none of its rules is about, and none of them is about us.
async fn is_in_the_way(netns: &Netns, chain: &Value) -> io::Result<bool> {
    let (table, name) = (table_of(chain), text(chain, "name"));
    let rules = rules(netns, &table, name).await?;
    let refuses = rules.last().is_some_and(|rule| ends_in(rule, &["drop", "reject"]));
    if text(chain, "policy") != "drop" && !refuses {
        return Ok(false);
    }
    // firewalld sorts interfaces into zones in chains behind this one.
    let about = match text(chain, "table") {
        FIREWALLD => Value::from(list(netns, &format!("table {table}")).await?),
        _ => Value::from(rules),
    };
    let about = about.to_string();
    Ok(![SKEP0, GWBRIDGE].iter().all(|name| about.contains(&format!("\"{name}\""))))
}

fn describe(chain: &Value) -> String {
    let (table, name) = (table_of(chain), text(chain, "name"));
    let ours = format!("{{ \"{SKEP0}\", \"{GWBRIDGE}\" }}");
    let command = match text(chain, "table") {
        FIREWALLD => format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={SKEP0} --add-interface={GWBRIDGE} && \
             firewall-cmd --reload"
        ),
        _ => format!(
            "nft 'insert rule {table} {name} iifname {ours} accept; insert rule {table} {name} oifname {ours} accept'"
        ),
    };
    obstacle(&format!("the nft chain {table} {name}"), &command)
}

/// Empty where what is asked for is not there.
async fn list(netns: &Netns, what: &str) -> io::Result<Vec<Value>> {
    let args = vec!["--json", "--stateless", "--handle", "list"];
    let Some(answer) = nft::listing(netns, args, what).await?.filter(|answer| !answer.trim().is_empty())
    else {
        return Ok(Vec::new());
    };
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["nftables"].as_array().cloned().unwrap_or_default())
}

async fn rules(netns: &Netns, table: &str, chain: &str) -> io::Result<Vec<Value>> {
    let listed = list(netns, &format!("chain {table} {chain}")).await?;
    Ok(listed.into_iter().filter_map(|mut object| object.get_mut("rule").map(Value::take)).collect())
}

fn is_our_jump(rule: &Value) -> bool {
    text(rule, "comment") == MARK && rule["expr"].to_string().contains(&format!("\"{CHAIN}\""))
}

/// Whether all a rule does is one of `verdicts`, to whatever comes.
fn ends_in(rule: &Value, verdicts: &[&str]) -> bool {
    match without_counters(&rule["expr"]).as_array().map(Vec::as_slice) {
        Some([only]) => verdicts.iter().any(|verdict| only.get(verdict).is_some()),
        _ => false,
    }
}

fn without_counters(expressions: &Value) -> Value {
    let all = expressions.as_array().into_iter().flatten();
    all.filter(|expression| expression.get("counter").is_none()).cloned().collect()
}

fn table_of(chain: &Value) -> String {
    format!("{} {}", text(chain, "family"), text(chain, "table"))
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

fn handle(rule: &Value) -> u64 {
    rule["handle"].as_u64().unwrap_or_default()
}
