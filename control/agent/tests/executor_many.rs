//! Many tasks at once, in a process of their own so that its descriptors can be counted. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod executor_host;

use executor_host::{Host, ended};
use std::fs;

const TASKS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn tasks_started_together_all_run_and_leave_nothing_behind() {
    let host = Host::new();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (before, descriptors_before) = (mounts(), descriptors());
    let names: Vec<String> = (0..TASKS).map(|number| format!("t{number}")).collect();
    let starts = names.iter().map(|name| async {
        let task = host.start(name, &["sh", "-c", "echo $HOSTNAME; exit 9"]).await.unwrap();
        ended(&task).await.code
    });
    let codes = futures_util::future::join_all(starts).await;
    assert_eq!(codes, [9; TASKS]);
    for name in &names {
        let lines = host.log(name).await;
        assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), [format!("host-{name}")]);
        host.executor.remove(&host.id(name)).unwrap();
    }
    host.assert_no_process_left().await;
    executor_host::until("the descriptors are closed", || descriptors() == descriptors_before).await;
    assert_eq!(mounts(), before);
    assert_eq!(host.kept_directories(), 0);
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
