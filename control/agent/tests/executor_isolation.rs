//! What a task of the process executor can see and do, against the kernel. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod executor_host;

use executor_host::{Host, PATIENCE, ended};
use skep_agent::executor::ProcessIo;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn the_host_is_read_only_and_the_tasks_own_places_are_not() {
    let host = Host::new();
    let name = host.id("file");
    // Values are written back as they are, files taken away again: a failure must not change the machine.
    let script = format!(
        "for d in / /etc /usr /root /var/tmp /dev /sys /proc/sys/kernel; do
             touch $d/{name} 2>/dev/null && echo wrote $d && rm $d/{name}
         done
         for d in . /run/task /tmp /run /dev/shm /run/lock; do touch $d/{name} || echo not $d; done
         s=/proc/sys/kernel/printk; v=$(cat $s); echo $v 2>/dev/null > $s && echo wrote sysctl
         echo h 2>/dev/null > /proc/sysrq-trigger && echo wrote sysrq
         mount -o remount,rw / 2>/dev/null && echo remounted
         echo x > /dev/null && pwd"
    );
    assert_eq!(host.run(&script).await, "/run/task\n");
    for directory in ["/tmp", "/run", "/dev/shm", "/run/lock"] {
        assert!(!Path::new(directory).join(&name).exists(), "{directory}");
    }
}

#[tokio::test]
async fn privileges_are_dockers_defaults() {
    let host = Host::new();
    let status = host.run("cat /proc/self/status").await;
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        value.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb", "SigBlk", "SigIgn"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(host.run("umask").await, "0022\n");
}

#[tokio::test]
async fn a_task_holds_its_three_streams_and_no_other_descriptor() {
    let host = Host::new();
    // The fourth is the directory that ls reads.
    assert_eq!(host.run("ls /proc/self/fd").await, "0\n1\n2\n3\n");
    let mut spec = host.spec("attached", &["ls", "/proc/self/fd"]);
    spec.io = ProcessIo::Attached;
    let mut task = host.executor.start(spec).await.unwrap();
    let mut streams = task.take_streams().unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, streams.stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "0\n1\n2\n3\n");
}

#[test]
fn a_descriptor_that_the_daemon_inherited_and_leaks_does_not_reach_the_task() {
    let host = Host::new();
    let daemon = format!("exec 7</etc/hosts; exec {} {}", env!("CARGO_BIN_EXE_skep-task"), host.state());
    let output = Command::new("sh").args(["-c", &format!("{daemon} ls /proc/self/fd")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), ["0", "1", "2", "3"], "{text}");
}

#[tokio::test]
async fn proc_shows_only_the_tasks_own_processes() {
    let host = Host::new();
    let text = host.run("sleep 1000 & ps -e -o pid=,comm=").await;
    // The second is the shell's copy until it has become sleep.
    let expected = ["1 sh", "2 sleep", "3 ps"];
    let shown: Vec<String> = text.lines().map(|line| line.trim().replace("2 sh", "2 sleep")).collect();
    assert_eq!(shown, expected, "{text}");
    assert_eq!(host.run("test -z \"$(cat /proc/keys /proc/timer_list)\" && ls /sys/firmware").await, "");
}

#[tokio::test]
async fn tasks_do_not_see_each_other() {
    let host = Host::new();
    let script = "touch /tmp/mine /run/mine /dev/shm/mine ./mine; ipcmk -M 100 >/dev/null
        readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/net
        echo ready; sleep 1000";
    let other = host.start("other", &["sh", "-c", script]).await.unwrap();
    host.wait_for_line("other", "ready").await;
    let script = "find /tmp /run /dev/shm . -name mine; ipcs -m | grep 0x; ps -e -o comm= | grep sleep
        readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/uts /proc/self/ns/ipc /proc/self/ns/net";
    let text = host.run(script).await;
    let namespaces: Vec<&str> = text.lines().collect();
    assert_eq!(namespaces.len(), 5, "{text}");
    let others = host.log("other").await;
    for (mine, theirs) in namespaces.iter().zip(&others) {
        let kind = mine.split(':').next().unwrap();
        assert!(theirs.text.starts_with(kind) && *mine != theirs.text, "{mine} {}", theirs.text);
        assert_ne!(fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(), Path::new(mine));
    }
    other.kill();
    ended(&other).await;
}

#[tokio::test]
async fn hidden_paths_and_the_executors_own_are_out_of_sight() {
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let below_tmp = tempfile::tempdir().unwrap();
    let (dir, file) = (outside.path().join("dir"), outside.path().join("file"));
    let (real, link) = (outside.path().join("real"), outside.path().join("link"));
    for secret in [&dir, &real] {
        fs::create_dir(secret).unwrap();
        fs::write(secret.join("secret"), "secret").unwrap();
    }
    fs::write(&file, "secret").unwrap();
    fs::write(below_tmp.path().join("secret"), "secret").unwrap();
    symlink(&real, &link).unwrap();
    let host = Host::hiding(&[&dir, &file, &link, below_tmp.path(), Path::new("/no/such/path")]);
    let script = format!(
        "find {outside} {below_tmp} {state} ! -type d -size +0 -exec grep -H . {{}} + 2>/dev/null
         test -e {dir}/secret && echo sees; test -r {file} && cat {file}
         touch {dir}/x 2>/dev/null && echo writes; exit 0",
        outside = outside.path().display(),
        below_tmp = below_tmp.path().display(),
        state = host.dir.path().display(),
        dir = dir.display(),
        file = file.display(),
    );
    assert_eq!(host.run(&script).await, "");
}

#[tokio::test]
async fn devices_are_the_harmless_ones_and_none_can_be_made() {
    let host = Host::new();
    let names = host.run("find /dev -type c -o -type b | sort").await;
    let expected = ["full", "null", "pts/ptmx", "random", "tty", "urandom", "zero"];
    assert_eq!(names, expected.map(|name| format!("/dev/{name}\n")).concat());
    // The numbers of /dev/zero, so that reading it would succeed on any machine.
    let script = "
        for d in / /dev /tmp /run /run/task /dev/shm /dev/mqueue /sys; do
            mknod $d/made c 1 5 2>/dev/null && head -c 1 $d/made >/dev/null 2>&1 && echo read $d
            rm -f $d/made
        done
        test -e /dev/net/tun && echo tun; exit 0";
    assert_eq!(host.run(script).await, "");
}

/// Root of a user namespace has every capability in it, and is the host's uid 0 to files.
#[tokio::test]
async fn a_user_namespace_gives_no_way_around() {
    let secret = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(secret.path().join("secret"), "secret").unwrap();
    let host = Host::hiding(&[secret.path()]);
    let script = format!(
        "unshare --user --map-root-user --mount --pid --fork sh -c '
             mount -t proc proc /tmp && echo fresh proc; mount -t sysfs sysfs /tmp && echo fresh sysfs
             umount /proc/sys && echo bare proc; umount -l {secret} && echo bare secret
             mount -o remount,bind,rw /proc/sys && echo writable sysctl; mount -o remount,bind,rw / && echo writable
             mount --bind / /tmp && echo bind; mount --rbind / /tmp; cat /tmp{secret}/secret {secret}/secret
             s=/proc/sys/kernel/printk; v=$(cat $s); echo $v > $s && echo wrote sysctl
         ' 2>/dev/null; exit 0",
        secret = secret.path().display()
    );
    assert_eq!(host.run(&script).await, "");
}

/// CVE-2019-5736: the executable of a task's first stage, which is the host's skepd.
#[tokio::test]
async fn the_daemons_executable_cannot_be_written_through_proc() {
    let host = Host::new();
    let task = host.start("t", &["/proc/self/exe", "--write-to-own-executable"]).await.unwrap();
    assert_ne!(ended(&task).await.code, 0);
    let log = host.log("t").await;
    assert_eq!(log[0].text, "skep-task: Read-only file system (os error 30)");
}

/// The usual layout with systemd-resolved: /etc/resolv.conf leads into /run, which the task has for itself.
#[test]
fn a_resolv_conf_that_is_a_link_into_run_is_replaced_too() {
    let text =
        in_a_host_with("ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; touch /etc/hosts");
    assert!(text.ends_with("nameserver 127.0.0.11\n"), "{text}");
}

#[test]
fn a_host_without_resolv_conf_is_told_what_to_do() {
    let text = in_a_host_with("touch /etc/hosts");
    assert!(
        text.contains("mount /etc/resolv.conf (make an empty file there if the host has none)"),
        "{text}"
    );
}

#[test]
fn the_files_of_etc_can_be_read_by_every_user_of_the_task() {
    let text = in_a_host_with("cd /etc; ln -s ../run/r resolv.conf; touch hosts hostname; umask 077");
    assert!(text.ends_with("nameserver 127.0.0.11\n"), "{text}");
}

/// What a reader without privileges finds in /etc/resolv.conf as a task says where `script` has filled an empty /etc.
fn in_a_host_with(script: &str) -> String {
    let host = Host::new();
    let script = format!(
        "mount -t tmpfs tmpfs /etc; {script}
         exec {} {} setpriv --reuid 65534 --clear-groups cat /etc/resolv.conf 2>&1",
        env!("CARGO_BIN_EXE_skep-task"),
        host.state()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the daemon writes for a task, the task can't turn into something of the host's: neither by links in place
/// of its files, nor by unmounting what is put over the host's.
#[tokio::test]
async fn a_task_that_swaps_its_files_for_links_reaches_none_of_the_host_s() {
    const STARTS: usize = 60;
    let files = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/etc/shadow", "/etc/passwd"];
    let state = || {
        let of = |path: &&str| {
            let metadata = fs::symlink_metadata(path).ok()?;
            Some((metadata.ino(), metadata.mode(), metadata.nlink(), fs::read(path).ok()))
        };
        files.iter().map(of).collect::<Vec<_>>()
    };
    let before = state();
    let host = Host::new();
    let script = "echo swapping
        while :; do
            for f in resolv.conf hosts hostname; do
                ln -sfn /etc/shadow /etc/$f; rm -f /etc/$f; echo mine > /etc/$f; chmod 777 /etc/$f
                umount -l /etc/$f; mount --bind /etc/shadow /etc/$f
                ln -sfn /etc/shadow /run/$f; ln -sfn /etc/shadow /run/systemd/resolve/stub-$f
            done
        done 2>/dev/null";
    let hostile = host.start("hostile", &["sh", "-c", script]).await.unwrap();
    host.wait_for_line("hostile", "swapping").await;
    for n in 0..STARTS {
        let name = format!("n{n}");
        let mut spec = host.spec(&name, &["cat", "/etc/resolv.conf", "/etc/hostname"]);
        spec.resolv_conf = format!("nameserver 127.0.0.11\n# {n}\n");
        let task = host.executor.start(spec).await.unwrap();
        assert_eq!(ended(&task).await.code, 0);
        let lines: Vec<_> = host.log(&name).await.into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["nameserver 127.0.0.11", &format!("# {n}"), &format!("host-{name}")]);
        assert_eq!(state(), before, "after {n} starts");
    }
    hostile.kill();
    ended(&hostile).await;
    assert_eq!(state(), before);
}
