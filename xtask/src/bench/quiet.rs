//! Whether the machine does anything else: then that is measured too.

use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

/// Of one processor; a quiet machine's other programs use a few hundredths.
const QUIET: f64 = 0.1;
const WATCHED: Duration = Duration::from_secs(2);
/// USER_HZ is 100 on every platform there is a Rust for.
const TICKS_A_SECOND: f64 = 100.0;

/// Says which programs run, if any do, and goes on: whoever reads the figures should know.
pub(super) fn tell() -> Result<()> {
    let before = ticks()?;
    thread::sleep(WATCHED);
    let mut busy: Vec<(f64, String)> = ticks()?
        .into_iter()
        .filter_map(|(process, (name, ticks))| {
            let used = ticks - before.get(&process).map_or(0, |(_, ticks)| *ticks);
            let share = used as f64 / TICKS_A_SECOND / WATCHED.as_secs_f64();
            (share >= QUIET).then_some((share, format!("{name} (pid {process})")))
        })
        .collect();
    busy.sort_by(|a, b| b.0.total_cmp(&a.0));
    if busy.is_empty() {
        println!("the machine is quiet");
        return Ok(());
    }
    println!("the machine is not quiet, and what else runs is measured too:");
    for (share, name) in busy {
        println!("  {name} uses {:.0} % of a processor", share * 100.0);
    }
    Ok(())
}

/// Processor time that every process has used, by pid, with its name.
fn ticks() -> Result<BTreeMap<u32, (String, u64)>> {
    let processes = crate::lab::processes()?.filter(|process| *process != std::process::id());
    Ok(processes.filter_map(|process| Some((process, used(process)?))).collect())
}

/// None: it has ended.
fn used(process: u32) -> Option<(String, u64)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc(5): the name in parentheses, which may contain others; user time is the 12th field after it, system time the
    // 13th.
    let (head, fields) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((name, field(11)? + field(12)?))
}

/// Seconds of processor that this machine was busy since its start, in all.
pub(super) fn machine_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    // proc(5): of all processors, user, nice, system, idle, iowait, irq, softirq, steal.
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
    Ok(busy as f64 / TICKS_A_SECOND)
}

/// Seconds of processor that a process has used.
pub(super) fn seconds(process: u32) -> Option<f64> {
    Some(used(process)?.1 as f64 / TICKS_A_SECOND)
}

/// What a process has in memory (VmRSS of proc_pid_status(5)).
pub(super) fn mebibytes(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))?;
    Some(resident.trim().parse::<f64>().ok()? / 1024.0)
}
