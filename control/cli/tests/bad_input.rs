//! `skep` asked for what cannot be, and beside daemons that fail: a sentence, Docker's exit code, never a panic.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use tempfile::TempDir;

fn skep(host: &str, words: &[OsString]) -> Output {
    let mut skep = Command::new(env!("CARGO_BIN_EXE_skep"));
    skep.args(words).env("SKEP_HOST", host).env("RUST_BACKTRACE", "1").stdin(Stdio::null()).output().unwrap()
}

fn line(host: &str, line: &str) -> Output {
    skep(host, &line.split(' ').map(OsString::from).collect::<Vec<_>>())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It ended by itself, in words.
fn in_words(output: &Output) {
    let said = said(output);
    assert!(output.status.code().is_some_and(|code| code < 128), "{}: {said}", output.status);
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
    assert!(output.status.success() || !said.trim().is_empty(), "it fails without a word");
}

/// Flags with a value, and the words around it.
const FLAGS: &[&str] = &[
    "swarm init --advertise-addr ? ",
    "swarm init --default-addr-pool ?",
    "swarm init --data-path-port ?",
    "swarm join --token ? 192.0.2.1:2377",
    "swarm join --token x ?",
    "swarm update --task-history-limit ?",
    "swarm join-token ?",
    "node update --availability ? n1",
    "node update --label-add ? n1",
    "node ls --filter ?",
    "node ls --format ?",
    "node inspect ?",
    "node ps ?",
    "network create -d overlay ?",
    "network create -d ? net",
    "network create -d overlay --subnet ? net",
    "network create -d overlay --gateway ? net",
    "network create -d overlay --opt ? net",
    "network create -d overlay --label ? net",
    "network rm ?",
    "service create --name ? host true",
    "service create --replicas ? host true",
    "service create --mode ? host true",
    "service create --network ? host true",
    "service create --publish ? host true",
    "service create --env ? host true",
    "service create --label ? host true",
    "service create --constraint ? host true",
    "service create --restart-condition ? host true",
    "service create --restart-delay ? host true",
    "service create --restart-max-attempts ? host true",
    "service create --stop-signal ? host true",
    "service create --stop-grace-period ? host true",
    "service create --user ? host true",
    "service create --workdir ? host true",
    "service create --hostname ? host true",
    "service create ? true",
    "service scale ?",
    "service logs --tail ? web",
    "service logs --since ? web",
    "service update --replicas ? web",
    "service ps --filter ? web",
    "service ls --format ?",
    "run --network ? host true",
    "run --name ? host true",
    "run --env ? host true",
    "run --hostname ? host true",
    "run ? true",
    "attach --netns ? net",
    "attach --ip ? net",
    "info --format ?",
    "?",
    "service ?",
    "-H ? info",
    "--host ? info",
];
/// The program starts once for each, so that not all strings go to every flag.
const EACH: usize = 37;

#[test]
fn hostile_words_are_refused_in_words() {
    let nobody = format!("unix://{}", TempDir::new().unwrap().path().join("s").display());
    let strings: Vec<String> = skep_hostile::strings();
    let mut words = strings.iter().filter(|text| !text.contains('\0')).step_by(EACH).cycle();
    for flag in FLAGS {
        for text in words.by_ref().take(4) {
            let split: Vec<OsString> = flag
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(|word| word.replace('?', text).into())
                .collect();
            in_words(&skep(&nobody, &split));
        }
        let bytes = OsString::from_vec(b"web\xff\xfe".to_vec());
        let split: Vec<OsString> = flag
            .split(' ')
            .filter(|word| !word.is_empty())
            .map(|word| if word == "?" { bytes.clone() } else { word.into() })
            .collect();
        let output = skep(&nobody, &split);
        in_words(&output);
        assert!(!output.status.success(), "{flag} with bytes that are no text");
    }
}

#[test]
fn a_socket_that_is_no_daemons_is_told() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| format!("unix://{}", dir.path().join(name).display());
    fs::write(dir.path().join("file"), "x").unwrap();
    fs::set_permissions(dir.path().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    drop(UnixListener::bind(dir.path().join("dead")).unwrap());
    for (host, words) in [
        (at("none"), "Is skepd running?"),
        (at("dead"), "nobody listens"),
        (at("file"), "nobody listens"),
        (at(&"x".repeat(300)), "Cannot connect"),
        ("tcp://1.2.3.4:5".to_owned(), "only unix sockets"),
        ("unix://".to_owned(), "only unix sockets"),
    ] {
        let output = line(&host, "node ls");
        assert_eq!(output.status.code(), Some(1), "{host}");
        assert!(said(&output).contains(words), "{host}: {}", said(&output));
        assert_eq!(line(&host, "run --network net host true").status.code(), Some(125), "{host}");
    }
}

/// A daemon that answers each connection with these bytes and is gone.
fn daemon(answer: &'static [u8]) -> (TempDir, String) {
    let dir = TempDir::new().unwrap();
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    let host = format!("unix://{}", dir.path().join("s").display());
    (dir, host)
}

#[test]
fn a_daemon_that_breaks_off_or_talks_nonsense_is_told() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{\"ID\":",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0\0\0\0",
    ] {
        let (_dir, host) = daemon(answer);
        for words in [
            "node ls",
            "service ls",
            "network ls",
            "info",
            "swarm init",
            "service ps web",
            "service logs web",
        ] {
            let output = line(&host, words);
            in_words(&output);
        }
        let output = line(&host, "run --network net host true");
        in_words(&output);
        assert_eq!(output.status.code(), Some(125), "{answer:?}: {}", said(&output));
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let answer: &'static [u8] = Box::leak(many_services().into_boxed_slice());
    let (_dir, host) = daemon(answer);
    let mut skep = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["service", "ls", "--format", "{{.Name}}"])
        .env("SKEP_HOST", &host)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 4];
    skep.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = skep.wait_with_output().unwrap();
    assert_eq!((&first, said(&output).as_str()), (b"web0", ""));
    in_words(&output);
}

/// Enough to fill a pipe.
fn many_services() -> Vec<u8> {
    let services: Vec<_> = (0..20_000)
        .map(|n| serde_json::json!({"ID": format!("id{n}"), "Spec": {"Name": format!("web{n}")}}))
        .collect();
    let body = serde_json::Value::from(services).to_string();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
