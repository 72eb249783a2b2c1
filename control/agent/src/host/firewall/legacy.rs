//! Firewalls in the kernel's older tables, which nft doesn't see and `iptables-legacy` alone speaks for.
//! For the calling thread's namespace.

use super::{CHAIN, Direction, MARK, Outcome, PASSES, PLACES, jump_in, obstacle};
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};

const PROGRAM: &str = "iptables-legacy";
const RESTORE: &str = "iptables-legacy-restore";
/// Another program may hold the tables' lock meanwhile; that long, in seconds, is waited for it.
const LOCK_LIMIT: &str = "--wait=3";

/// Whether a table `filter` of this kind is there. Asking the program would make one.
pub(super) fn is_in_use() -> bool {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    tables.lines().any(|table| table == "filter")
}

pub(super) fn pass() -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    if !is_in_use() {
        return Ok(outcome);
    }
    let listed = match listing() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            outcome.obstacles.push(format!(
                "this host has iptables rules of the older kind, and whether they let Skep pass can't be seen \
                 without the program {PROGRAM}: install it (`apt-get install iptables`)"
            ));
            return Ok(outcome);
        }
        other => other?,
    };
    let lines: Vec<&str> = listed.lines().collect();
    match PLACES.into_iter().find(|place| lines.contains(&format!("-N {place}").as_str())) {
        Some(place) if !is_made(&lines, place) => {
            restore(&making(&lines, place))?;
            outcome.made.push(jump_in(place));
        }
        Some(_) => {}
        None if is_in_the_way(&lines) => {
            let rules = PASSES.map(|pass| format!("{PROGRAM} -I FORWARD {} -j ACCEPT", interface(pass)));
            outcome.obstacles.push(obstacle("the iptables chain FORWARD", &rules.join("; ")));
        }
        None => {}
    }
    Ok(outcome)
}

pub(super) fn leave() -> io::Result<()> {
    if !is_in_use() {
        return Ok(());
    }
    let listed = match listing() {
        // Without the program no jump was made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let lines: Vec<&str> = listed.lines().collect();
    if !lines.contains(&format!("-N {CHAIN}").as_str()) {
        return Ok(());
    }
    let mut rules = deletions(&lines);
    rules.push(format!("-F {CHAIN}"));
    rules.push(format!("-X {CHAIN}"));
    restore(&rules)
}

fn is_made(lines: &[&str], place: &str) -> bool {
    let own = format!("-A {CHAIN} ");
    let ours: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with(&own)).collect();
    ours == passes() && lines.contains(&jump(place).as_str())
}

/// One transaction. The jump comes last, but before a final RETURN, so that the operator's rules come first.
fn making(lines: &[&str], place: &str) -> Vec<String> {
    let mut rules = vec![format!(":{CHAIN} - [0:0]")];
    rules.extend(passes());
    rules.extend(deletions(lines));
    let of_place = format!("-A {place} ");
    let others = lines.iter().filter(|line| line.starts_with(&of_place) && !is_our_jump(line));
    let others: Vec<_> = others.collect();
    let jump = jump(place);
    let jump = jump.strip_prefix(&of_place).unwrap_or_default();
    rules.push(match others.last() {
        Some(last) if **last == format!("-A {place} -j RETURN") => {
            format!("-I {place} {} {jump}", others.len())
        }
        _ => format!("-A {place} {jump}"),
    });
    rules
}

fn passes() -> Vec<String> {
    PASSES.map(|pass| format!("-A {CHAIN} {} -j ACCEPT", interface(pass))).into()
}

fn jump(place: &str) -> String {
    format!("-A {place} -m comment --comment \"{MARK}\" -j {CHAIN}")
}

fn is_our_jump(line: &str) -> bool {
    PLACES.iter().any(|place| line == jump(place))
}

fn deletions(lines: &[&str]) -> Vec<String> {
    lines.iter().filter(|line| is_our_jump(line)).map(|line| line.replacen("-A", "-D", 1)).collect()
}

fn interface((direction, name): (Direction, &str)) -> String {
    match direction {
        Direction::In => format!("-i {name}"),
        Direction::Out => format!("-o {name}"),
    }
}

/// The chain drops, or refuses, what none of its rules is about, and they let not all of ours pass.
fn is_in_the_way(lines: &[&str]) -> bool {
    let last = lines.iter().rfind(|line| line.starts_with("-A FORWARD "));
    let refuses = last.is_some_and(|last| {
        ["-A FORWARD -j DROP", "-A FORWARD -j REJECT"].iter().any(|end| last.starts_with(end))
    });
    let lets_pass = |pass| lines.contains(&format!("-A FORWARD {} -j ACCEPT", interface(pass)).as_str());
    (lines.contains(&"-P FORWARD DROP") || refuses) && !PASSES.into_iter().all(lets_pass)
}

/// Policies, chains and rules, as commands.
fn listing() -> io::Result<String> {
    let output = Command::new(PROGRAM).args([LOCK_LIMIT, "-S"]).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// All of `rules` or none.
fn restore(rules: &[String]) -> io::Result<()> {
    let text = format!("*filter\n{}\nCOMMIT\n", rules.join("\n"));
    let mut program = Command::new(RESTORE)
        .args([LOCK_LIMIT, "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    program.stdin.take().expect("stdin is piped").write_all(text.as_bytes())?;
    let output = program.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str) -> Vec<&'static str> {
        text.lines().collect()
    }

    #[test]
    fn the_jump_goes_before_a_final_return_and_behind_the_operators_rules() {
        let with_return = lines(
            "-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -s 192.0.2.9/32 -j DROP\n-A DOCKER-USER -j RETURN",
        );
        let made = making(&with_return, "DOCKER-USER");
        assert!(made.last().unwrap().starts_with("-I DOCKER-USER 2 -m comment"), "{made:?}");
        let without = lines("-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -s 192.0.2.9/32 -j DROP");
        let made = making(&without, "DOCKER-USER");
        assert!(made.last().unwrap().starts_with("-A DOCKER-USER -m comment"), "{made:?}");
    }

    #[test]
    fn what_lets_skep_pass_is_not_in_the_way() {
        let mut rules = lines("-P FORWARD DROP");
        assert!(is_in_the_way(&rules));
        rules.extend([
            "-A FORWARD -i skep0 -j ACCEPT",
            "-A FORWARD -o skep0 -j ACCEPT",
            "-A FORWARD -i skep_gwbridge -j ACCEPT",
            "-A FORWARD -o skep_gwbridge -j ACCEPT",
        ]);
        assert!(!is_in_the_way(&rules));
        assert!(is_in_the_way(&lines(
            "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
        )));
        assert!(!is_in_the_way(&lines("-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP")));
    }
}
