//! Input nobody should have to trust: over 5,000 strings and some thirty values of wrong kinds, made the same way
//! every time, and the places of a JSON body they are put into. For tests alone.

use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What each string is about. None is longer than some lines; [`LONG`] are.
const KINDS: &[&str] = &[
    // Paths
    "../",
    "../../../etc/passwd",
    "/",
    "/etc/shadow",
    "..",
    ".",
    "./x",
    "//",
    "/proc/1/root",
    "a/../b",
    "..\\",
    // What ends a C string, a line, a field
    "\0",
    "a\0b",
    "\n",
    "a\nb",
    "\r",
    "\r\n",
    "\t",
    "\u{b}",
    "\u{1b}[2J",
    "\u{1b}]0;x\u{7}",
    "\u{7f}",
    "\u{85}",
    // Formats and templates
    "%n",
    "%s%s%s%n",
    "%00",
    "%2e%2e%2f",
    "{{.Node.Hostname}}",
    "{{",
    "${HOME}",
    "$(reboot)",
    "`reboot`",
    "{}",
    // Options
    "-",
    "--",
    "-v",
    "--flag",
    "--help",
    "-rf /",
    "@file",
    // What shells and nft read
    ";",
    "; reboot",
    "{ }",
    "}",
    "{",
    "$",
    "|",
    "&",
    "<",
    ">",
    "*",
    "?",
    "#",
    "~",
    "!",
    "'",
    "\"",
    "\\",
    "(",
    ")",
    "a; add rule inet skep x accept",
    "} table inet evil {",
    "\" comment \"",
    "include \"/etc/passwd\"",
    "10.0.0.1 evil",
    "nameserver 6.6.6.6",
    "127.0.0.1\tevil",
    "a=b",
    "=",
    "=b",
    "a=",
    ",",
    "a,b",
    ":",
    "a:b",
    "[",
    "]",
    // Letters that look like others, turn direction, combine, or are none
    "wеb",
    "ｗｅｂ",
    "web\u{200b}",
    "\u{202e}bew",
    "\u{2066}web",
    "we\u{301}b",
    "ß",
    "İ",
    "ſ",
    "\u{feff}web",
    "\u{fffd}",
    "\u{10ffff}",
    "🐝",
    "web\u{a0}",
    "ﷺ",
    // Names that mean something, and names that are none
    "",
    " ",
    "   ",
    "web.",
    ".web",
    "we..b",
    "-web",
    "web-",
    "_web",
    "tasks.web",
    "localhost",
    "ingress",
    "host",
    "none",
    "bridge",
    "docker_gwbridge",
    "skep0",
    "eth0",
    "lo",
    "null",
    "true",
    "nil",
    "undefined",
    "NaN",
    "tasks",
    // Numbers
    "0",
    "-1",
    "1",
    "+1",
    "1.5",
    "1e9",
    "0x10",
    "007",
    "65535",
    "65536",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "-9223372036854775809",
    "Infinity",
    // Addresses
    "0.0.0.0",
    "255.255.255.255",
    "10.0.0.0/33",
    "10.0.0.1/24",
    "::1",
    "::/0",
    "0.0.0.0/0",
    "127.0.0.0/8",
    "10.0.0.0/-1",
    "1.2.3",
    "010.1.1.1",
    "10.9.0.0/24",
    "224.0.0.0/4",
    // JSON within a string
    "{\"a\":1}",
    "[]",
    "\"x\"",
    "{\"__proto__\":{}}",
];

/// What is done to each.
const MUTATIONS: &[fn(&str) -> String] = &[
    |kind| kind.to_owned(),
    |kind| format!("web{kind}"),
    |kind| format!("{kind}web"),
    |kind| format!("we{kind}b"),
    |kind| format!(" {kind}"),
    |kind| format!("{kind} "),
    |kind| format!("{kind}\n"),
    |kind| format!("\n{kind}"),
    |kind| format!("{kind}\0"),
    |kind| format!("{kind}\0web"),
    |kind| format!("{kind}\r\n{kind}"),
    |kind| format!("\"{kind}\""),
    |kind| format!("'{kind}'"),
    |kind| format!("--{kind}"),
    |kind| format!("../{kind}"),
    |kind| format!("{kind}/.."),
    |kind| format!("{kind}={kind}"),
    |kind| format!("{kind}.{kind}"),
    |kind| format!("{kind},{kind}"),
    |kind| format!("\u{202e}{kind}"),
    |kind| format!("{kind}\u{301}"),
    |kind| kind.to_uppercase(),
    |kind| kind.chars().rev().collect(),
    |kind| kind.repeat(2),
    |kind| kind.repeat(16),
    |kind| kind.repeat(64),
    |kind| format!("{}{kind}", "a".repeat(63)),
    |kind| format!("{}{kind}", "a".repeat(255)),
    |kind| format!("node.labels.{kind}==x"),
    |kind| format!("node.id=={kind}"),
    |kind| format!("node.hostname!={kind}"),
    |kind| format!("SIG{kind}"),
    |kind| format!("$({kind})"),
    |kind| format!("{kind}:{kind}"),
    |kind| format!("10.9.0.0/{kind}"),
    |kind| Value::from(kind).to_string(),
];

/// Lengths at which something ends: a name of an interface, a DNS label, a host name, a path, a message, a body.
const LENGTHS: &[usize] = &[15, 16, 63, 64, 65, 128, 253, 254, 255, 256, 4095, 4096, 10_000, 65_536];
/// What the longest strings are made of.
const LONG: &[&str] = &["a", "a.", "-", "é", "\n", "\0", "../", "{", "\"", "%s"];
const MEGABYTE: usize = 1 << 20;

/// Every string but the megabytes: what thousands of tries can afford.
pub fn strings() -> Vec<String> {
    let mutated = KINDS.iter().flat_map(|kind| MUTATIONS.iter().map(move |mutate| mutate(kind)));
    let long = LONG.iter().flat_map(|piece| LENGTHS.iter().map(move |length| of_length(piece, *length)));
    let unique: BTreeSet<String> = mutated.chain(long).collect();
    unique.into_iter().collect()
}

/// Strings of a megabyte.
pub fn megabytes() -> impl Iterator<Item = String> {
    LONG.iter().map(|piece| of_length(piece, MEGABYTE))
}

/// Cut at the last character that fits.
fn of_length(piece: &str, length: usize) -> String {
    piece.repeat(length / piece.len())
}

/// Values of every kind but the right one, wherever they are put.
pub fn values() -> Vec<Value> {
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let deep = (0..100).fold(json!(1), |inner, _| json!({"a": inner}));
    vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1),
        json!(1.5),
        json!(-0.0),
        json!(1e308),
        json!(65_535),
        json!(65_536),
        json!(u32::MAX),
        json!(u64::from(u32::MAX) + 1),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(i64::MAX as u64 + 1),
        json!(u64::MAX),
        json!([]),
        json!([[]]),
        json!([null]),
        json!([1, "a", {}]),
        json!(vec!["a"; 1000]),
        json!(vec![json!({}); 1000]),
        json!({}),
        json!({"": ""}),
        json!({"a": null}),
        json!({"a": "b"}),
        json!({"Unheard": {"Of": 1}}),
        nested,
        deep,
    ]
}

/// The JSON pointers of everything within `body`, the inner nodes included.
pub fn places(body: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(body, String::new(), &mut found);
    found
}

fn collect(value: &Value, at: String, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        collect(child, at.clone(), found);
        found.push(at);
    }
}

/// `body` with another value at the place, which has to exist.
pub fn with(body: &Value, place: &str, value: Value) -> Value {
    let mut body = body.clone();
    if let Some(found) = body.pointer_mut(place) {
        *found = value;
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_thousands_and_always_the_same() {
        let strings = strings();
        assert!(strings.len() >= 5_000, "{}", strings.len());
        assert_eq!(strings, super::strings());
        assert!(megabytes().all(|text| text.len() > MEGABYTE - 3));
    }

    #[test]
    fn every_place_of_a_body_is_reached() {
        let body = json!({"A": {"B": ["x", {"C": 1}]}});
        let places = places(&body);
        assert_eq!(places, ["/A/B/0", "/A/B/1/C", "/A/B/1", "/A/B", "/A"]);
        assert_eq!(with(&body, "/A/B/1/C", json!("evil"))["A"]["B"][1]["C"], "evil");
    }
}
