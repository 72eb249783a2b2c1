//! A daemon that is asked, started and joined wrongly: a sentence, nothing half-made, and it goes on.

use anyhow::{Context, Result, ensure};
use netns_tests::api::{Answer, ask, ask_raw};
use netns_tests::lab::{built, eventually};
use netns_tests::{Netns, Running};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const READY: Duration = Duration::from_secs(20);
const ADDR: &str = "192.0.2.1";

/// A host with one address, and a directory for its daemon.
struct Host {
    netns: Netns,
    dir: TempDir,
}

impl Host {
    fn new() -> Result<Self> {
        let netns = Netns::new()?;
        netns.run("ip link add net type veth peer name net-far")?;
        netns.run(&format!("ip addr add {ADDR}/24 dev net"))?;
        netns.run("ip link set net up")?;
        netns.run("ip link set net-far up")?;
        // Not /tmp, which tasks have their own of.
        Ok(Self { netns, dir: TempDir::new_in("/var/tmp")? })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn skepd(&self) -> Result<Command> {
        let mut skepd = self.netns.command(&built("skepd")?.display().to_string());
        skepd.arg("--socket").arg(self.socket()).arg("--state-dir").arg(self.dir.path().join("state"));
        Ok(skepd)
    }

    fn start(&self) -> Result<Running> {
        let mut daemon = Running::start(&mut self.skepd()?)?;
        daemon.wait_for_line("ready", READY)?;
        Ok(daemon)
    }

    fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Answer> {
        ask(&self.socket(), method, target, body)
    }

    /// A request that has to succeed; what it answers.
    fn done(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.ask(method, target, body)?;
        ensure!(!answer.is_refusal(), "{method} {target}: {answer:?}");
        Ok(answer.body)
    }

    fn init(&self) -> Result<Value> {
        self.done("POST", "/swarm/init", Some(&json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": ADDR})))
    }

    /// A request that has to be refused; in which words.
    fn refused(&self, method: &str, target: &str, body: Option<&Value>) -> Result<String> {
        let answer = self.ask(method, target, body)?;
        ensure!(answer.is_refusal(), "{method} {target} was not refused: {answer:?}");
        Ok(answer.message()?.to_owned())
    }
}

/// A body of the API, and the request that takes it.
struct Form {
    method: &'static str,
    target: &'static str,
    body: Value,
}

/// None of them starts a task when it is accepted.
fn forms() -> Vec<Form> {
    let form = |target, body| Form { method: "POST", target, body };
    vec![
        form(
            "/services/create",
            json!({
                "Name": "web", "Labels": {"a": "b"},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "host", "Command": ["true"], "Args": ["x"], "Env": ["A=1"], "Dir": "/",
                        "User": "root", "Hostname": "h", "StopSignal": "TERM", "StopGracePeriod": 1, "Labels": {"a": "b"}},
                    "Networks": [{"Target": "backend", "Aliases": ["w"]}],
                    "Placement": {"Constraints": ["node.id==nowhere"], "MaxReplicas": 1},
                    "RestartPolicy": {"Condition": "none", "Delay": 1, "MaxAttempts": 1, "Window": 1},
                },
                "Mode": {"Replicated": {"Replicas": 1}},
                "EndpointSpec": {"Mode": "vip", "Ports": [{"Name": "http", "Protocol": "tcp", "TargetPort": 80,
                    "PublishedPort": 8080, "PublishMode": "ingress"}]},
            }),
        ),
        form(
            "/networks/create",
            json!({
                "Name": "front", "Driver": "overlay", "Scope": "swarm", "Labels": {"a": "b"}, "Options": {"encrypted": "false"},
                "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1",
                    "IPRange": "10.9.0.128/25", "AuxiliaryAddresses": {"a": "10.9.0.9"}}]},
            }),
        ),
        form(
            "/containers/create?name=c",
            json!({
                "Image": "host", "Hostname": "h", "Entrypoint": ["true"], "Cmd": ["x"], "Env": ["A=1"], "WorkingDir": "/",
                "User": "root", "StopSignal": "TERM", "StopTimeout": 1, "Tty": false,
                "HostConfig": {"NetworkMode": "backend", "AutoRemove": true, "RestartPolicy": {"Name": "no"},
                    "ConsoleSize": [24, 80], "Binds": [], "PortBindings": {}},
                "NetworkingConfig": {"EndpointsConfig": {"backend": {"IPAMConfig": {"IPv4Address": "10.0.1.9"}}}},
            }),
        ),
        form(
            "/skep/attach",
            json!({"Network": "backend", "Netns": "/nowhere", "Name": "a", "Ip": "10.0.1.9"}),
        ),
        form("/skep/detach", json!({"Id": "", "Network": "backend", "Netns": "/nowhere"})),
        form(
            "/swarm/init",
            json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": ADDR, "DataPathAddr": "",
            "DataPathPort": 4789, "Availability": "active", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24,
            "Spec": {"Name": "default", "Labels": {}}}),
        ),
        form(
            "/swarm/join",
            json!({"ListenAddr": "", "AdvertiseAddr": ADDR, "RemoteAddrs": ["192.0.2.9:2377"],
            "JoinToken": "SWMTKN-1-x-y", "Availability": "active", "DataPathAddr": ""}),
        ),
        form(
            "/swarm/update?version=0",
            json!({"Name": "default", "Labels": {"a": "b"},
            "Orchestration": {"TaskHistoryRetentionLimit": 5}}),
        ),
        form(
            "/nodes/nobody/update?version=1",
            json!({"Name": "", "Labels": {"a": "b"}, "Role": "worker",
            "Availability": "active"}),
        ),
    ]
}

/// What the cluster has, without what time changes.
fn objects(host: &Host) -> Result<Vec<Value>> {
    ["/services", "/networks", "/nodes", "/tasks", "/containers/json?all=1", "/swarm"]
        .iter()
        .map(|target| host.done("GET", target, None).map(timeless))
        .collect()
}

fn timeless(mut object: Value) -> Value {
    match &mut object {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "Version" | "UpdatedAt"));
            fields.values_mut().for_each(|field| *field = timeless(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = timeless(item.take())),
        _ => {}
    }
    object
}

/// Docker answers 500 to an update of an old version, and its tools expect that.
fn is_docker_500(answer: &Answer) -> bool {
    answer.body["message"].as_str().is_some_and(|said| said.ends_with("update out of sequence"))
}

/// The answer to hostile input: a refusal in words that is nobody's fault but the sender's, or a success, which is
/// taken back.
fn judge(host: &Host, answer: &Answer, target: &str) -> Result<()> {
    if answer.is_refusal() {
        answer.message()?;
        ensure!(answer.status != 500 || is_docker_500(answer), "{answer:?}");
        return Ok(());
    }
    let made = match target.split('?').next() {
        Some("/services/create") => ("/services", &answer.body["ID"]),
        Some("/networks/create") => ("/networks", &answer.body["Id"]),
        Some("/containers/create") => ("/containers", &answer.body["Id"]),
        _ => return Ok(()),
    };
    let id = made.1.as_str().with_context(|| format!("no id: {answer:?}"))?;
    host.done("DELETE", &format!("{}/{id}", made.0), None).map(drop)
}

/// How many of the strings the daemon is asked with; the crates' own tests take all of them to every field.
const EACH: usize = 9;

#[test]
fn no_body_query_or_path_harms_a_daemon() -> Result<()> {
    let host = Host::new()?;
    let mut daemon = host.start()?;
    host.init()?;
    let network = json!({"Name": "backend", "Driver": "overlay", "Attachable": true});
    host.done("POST", "/networks/create", Some(&network))?;
    let before = objects(&host)?;
    let mut asked = 0;

    let strings = skep_hostile::strings();
    for form in forms() {
        let places = skep_hostile::places(&form.body);
        let kinds = skep_hostile::values().into_iter().cycle().take(places.len() * 4);
        let longest = skep_hostile::megabytes().map(Value::from);
        let texts = strings.iter().step_by(EACH).map(|text| json!(text));
        for (i, value) in texts.chain(kinds).chain(longest).enumerate() {
            let body = skep_hostile::with(&form.body, &places[i % places.len()], value);
            let answer = host.ask(form.method, form.target, Some(&body))?;
            judge(&host, &answer, form.target).with_context(|| format!("{} {body:.300}", form.target))?;
            asked += 1;
        }
    }
    for (target, method) in [
        ("/services/{}", "GET"),
        ("/services/{}", "DELETE"),
        ("/services/{}/update?version=1", "POST"),
        ("/services/{}/logs?stdout=1", "GET"),
        ("/networks/{}", "GET"),
        ("/networks/{}", "DELETE"),
        ("/nodes/{}", "GET"),
        ("/nodes/{}", "DELETE"),
        ("/tasks/{}", "GET"),
        ("/tasks/{}/logs", "GET"),
        ("/containers/{}/json", "GET"),
        ("/containers/{}", "DELETE"),
        ("/containers/{}/kill?signal=9", "POST"),
        ("/containers/nobody/resize?h={}&w={}", "POST"),
        ("/containers/nobody/stop?t={}", "POST"),
        ("/containers/nobody/kill?signal={}", "POST"),
        ("/services?filters={}", "GET"),
        ("/tasks?filters={}", "GET"),
        ("/nodes?filters={}", "GET"),
        ("/networks?filters={}", "GET"),
        ("/networks?filters={\"name\":[{}]}", "GET"),
        ("/services/nobody?insertDefaults={}", "GET"),
        ("/services/nobody/logs?tail={}&since={}", "GET"),
        ("/swarm/update?version={}", "POST"),
        ("/v1.{}/info", "GET"),
        ("/{}", "PUT"),
        ("/secrets/{}", "GET"),
    ] {
        for text in strings.iter().step_by(EACH * 5) {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let asked_for = target.replace("{}", &encoded);
            let answer = ask_raw(&host.socket(), method, asked_for.replace('"', "%22").as_bytes(), b"{}");
            // A head that is too long is refused before it is anything of the API's.
            if asked_for.len() < 8_000 {
                let answer = answer.with_context(|| format!("{method} {asked_for:.300}"))?;
                if answer.is_refusal() && answer.status != 431 && answer.status != 414 {
                    answer.message()?;
                }
                ensure!(
                    answer.status != 500 || is_docker_500(&answer),
                    "{method} {asked_for:.300}: {answer:?}"
                );
            }
            asked += 1;
        }
    }
    for target in
        [&b"/services/%ff"[..], b"/services/%00", b"/services/%", b"/services?filters=%ff", b"/nodes/%c3%28"]
    {
        let answer = ask_raw(&host.socket(), "GET", target, b"")?;
        ensure!(matches!(answer.status, 400 | 404), "{answer:?}");
        answer.message()?;
    }
    for body in [
        &b"\xff\xfe"[..],
        b"{",
        b"{\"Name\":\"\xff\"}",
        b"nul",
        b"[[[[[",
        b"{}{}",
        b"{\"Name\":\"a\",\"Name\":\"b\"}",
    ] {
        let answer = ask_raw(&host.socket(), "POST", b"/services/create", body)?;
        ensure!(answer.status == 400, "{answer:?}");
        answer.message()?;
    }
    let deep = "[".repeat(1 << 20);
    ensure!(ask_raw(&host.socket(), "POST", b"/services/create", deep.as_bytes())?.status == 400);
    println!("{asked} requests");

    // The tasks of removed services go a moment later.
    let nothing_left = eventually(READY, "nothing is left behind", || Ok(objects(&host)? == before));
    nothing_left.with_context(|| {
        let after = objects(&host).unwrap_or_default();
        let differing = before.iter().zip(&after).filter(|(before, after)| before != after);
        differing.map(|(before, after)| format!("{before} became {after}\n")).collect::<String>()
    })?;
    let service = &forms()[0];
    let right = host.ask(service.method, service.target, Some(&service.body))?;
    ensure!(right.status == 201, "{right:?}");
    judge(&host, &right, service.target)?;
    let log = daemon.output();
    ensure!(!log.contains(" ERROR ") && !log.contains("panicked"), "{log}");
    Ok(())
}

/// Seconds of processor time the process has used.
fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().context("no stat")?.split(' ').collect();
    // proc(5): utime and stime, in hundredths.
    let ticks =
        |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).context("no time");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

#[test]
fn a_daemon_with_few_files_outlives_a_flood_of_connections() -> Result<()> {
    const FLOOD: usize = 2_000;
    let host = Host::new()?;
    let mut few_files = Command::new("prlimit");
    let skepd = host.skepd()?;
    few_files.arg("--nofile=256:256").arg(skepd.get_program()).args(skepd.get_args());
    let mut daemon = Running::start(&mut few_files)?;
    daemon.wait_for_line("ready", READY)?;
    let pid = daemon.pid();
    host.init()?;

    let mut held = Vec::new();
    for i in 0..FLOOD {
        let Ok(stream) = connect_at_once(&host.socket()) else { continue };
        // Some say nothing, some begin and never end.
        let _ = match i % 3 {
            0 => Ok(()),
            1 => (&stream).write_all(b"GET /info HT"),
            _ => (&stream)
                .write_all(b"POST /services/create HTTP/1.1\r\nHost: s\r\nContent-Length: 99\r\n\r\n{"),
        };
        held.push(stream);
    }
    let before = processor_time(daemon.pid())?;
    std::thread::sleep(Duration::from_secs(3));
    let spent = processor_time(daemon.pid())? - before;
    ensure!(spent < 1.5, "it spins: {spent} s of processor time in 3 s");
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    ensure!(files < 256, "{files} files are open: none is left for the data path");
    drop(held);
    ensure!(host.done("GET", "/_ping", None)? == "OK", "it does not recover");
    let log = daemon.output();
    ensure!(!log.contains(" ERROR ") && !log.contains("panicked"), "{log}");
    Ok(())
}

/// Fails instead of waiting when the queue of the socket is full.
fn connect_at_once(path: &Path) -> Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(fd))
}

/// Runs a daemon that has to refuse; its last words, one line.
fn last_words(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "{command:?} did not fail");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_daemon_that_cannot_start_says_what_to_do() -> Result<()> {
    let host = Host::new()?;
    let dir = host.dir.path();
    fs::write(dir.join("file"), "x")?;
    let skepd = |socket: PathBuf, state: PathBuf| {
        let mut skepd = host.netns.command(&built("skepd")?.display().to_string());
        skepd.arg("--socket").arg(socket).arg("--state-dir").arg(state);
        anyhow::Ok(skepd)
    };
    let says = |mut command: Command, words: &[&str]| {
        let said = last_words(&mut command)?;
        ensure!(words.iter().all(|word| said.contains(word)), "{command:?}: {said}");
        anyhow::Ok(())
    };
    let (socket, state) = (host.socket(), dir.join("state"));
    says(skepd(socket.clone(), dir.join("file"))?, &["state directory", "file", "--state-dir"])?;
    says(skepd(dir.join("file"), state.clone())?, &["file is there and is no socket", "--socket"])?;
    says(skepd(dir.join("file/s"), state.clone())?, &["file", "--socket"])?;
    says(skepd(dir.join("x".repeat(200)), state.clone())?, &["--socket"])?;
    says(skepd("/proc/nosuch/s".into(), state.clone())?, &["/proc/nosuch", "--socket"])?;
    says(skepd(socket.clone(), "/proc/nosuch".into())?, &["/proc/nosuch", "--state-dir"])?;
    let mut unheard = skepd(socket.clone(), state.clone())?;
    says(
        {
            unheard.arg("--unheard");
            unheard
        },
        &["--help"],
    )?;
    let mut executor = skepd(socket, state.clone())?;
    says(
        {
            executor.args(["--executor", "docker"]);
            executor
        },
        &["--executor docker", "process"],
    )?;
    let mut other_user = host.netns.command("setpriv");
    other_user.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        &built("skepd")?.display().to_string(),
    ]);
    says(other_user, &["start it as root"])?;

    fs::create_dir_all(&state)?;
    fs::write(state.join("member.json"), "{\"half\":")?;
    says(host.skepd()?, &["member.json is damaged", "join again"])?;
    fs::remove_file(state.join("member.json"))?;

    let daemon = host.start()?;
    says(skepd(dir.join("s2"), dir.join("state2"))?, &["another skepd runs on this host"])?;
    daemon.interrupt()?;
    host.start()?.interrupt()?;
    Ok(())
}

#[test]
fn what_keeps_a_node_from_becoming_one_is_said_and_leaves_nothing() -> Result<()> {
    let host = Host::new()?;
    let mut daemon = host.start()?;
    let init = json!({"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": ADDR});
    let is_free = || {
        let info = host.done("GET", "/info", None)?;
        ensure!(info["Swarm"]["LocalNodeState"] == "inactive", "{}", info["Swarm"]);
        anyhow::Ok(())
    };

    let tcp = host.netns.enter(|| TcpListener::bind((ADDR, 2377)))??;
    let said = host.refused("POST", "/swarm/init", Some(&init))?;
    ensure!(said.contains("2377") && said.contains("--listen-addr"), "{said}");
    is_free()?;
    drop(tcp);
    let udp = host.netns.enter(|| UdpSocket::bind((ADDR, 4789)))??;
    let said = host.refused("POST", "/swarm/init", Some(&init))?;
    ensure!(said.contains("UDP port 4789 is held by") && said.contains("stop it"), "{said}");
    is_free()?;
    drop(udp);

    let strange = host.netns.enter(|| TcpListener::bind((ADDR, 2999)))??;
    let token = format!("SWMTKN-1-{}-{}", "a".repeat(50), "b".repeat(25));
    let join = |addr: &str, token: &str| json!({"RemoteAddrs": [addr], "JoinToken": token});
    for (addr, token, words) in [
        ("192.0.2.1:2998", token.as_str(), "cannot reach a manager at 192.0.2.1:2998"),
        ("192.0.2.1:2377", "", "invalid join token"),
        ("192.0.2.1:2377", "SWMTKN-1-short-secret", "invalid join token"),
        ("192.0.2.1:0", &token, "192.0.2.1:0"),
        ("nowhere.invalid:2377", &token, "nowhere.invalid"),
        ("192.0.2.1:99999", &token, "99999"),
        ("", &token, "give ADDR:2377"),
    ] {
        let said = host.refused("POST", "/swarm/join", Some(&join(addr, token)))?;
        ensure!(said.contains(words), "{addr} {token}: {said}");
        is_free()?;
    }
    // Something that is no manager: it closes, or speaks another language.
    let answering = std::thread::spawn(move || -> Result<()> {
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-x\r\n"] {
            let (mut stream, _) = strange.accept()?;
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(answer);
        }
        Ok(())
    });
    for _ in 0..3 {
        let said = host.refused("POST", "/swarm/join", Some(&join("192.0.2.1:2999", &token)))?;
        ensure!(said.contains("cannot reach a manager at 192.0.2.1:2999"), "{said}");
        is_free()?;
    }
    answering.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;

    host.init()?;
    let said = host.refused("POST", "/swarm/init", Some(&init))?;
    ensure!(said.contains("already part of a swarm") && said.contains("swarm leave"), "{said}");
    let overlap =
        |subnet: &str| json!({"Name": "n", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": subnet}]}});
    let said = host.refused("POST", "/networks/create", Some(&overlap("192.0.2.0/25")))?;
    ensure!(said.contains("overlaps 192.0.2.0/24"), "{said}");
    host.done("POST", "/networks/create", Some(&overlap("10.77.0.0/24")))?;
    let log = daemon.output();
    ensure!(!log.contains(" ERROR ") && !log.contains("panicked"), "{log}");
    Ok(())
}
