//! What the daemon opens reaches no program it runs, and none of its threads strays into a container.

use crate::mesh_path::Mesh;
use skep_agent::host::netns::Netns;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;

/// Number and target of each descriptor that a program run by this process would get.
fn inheritable() -> BTreeSet<(String, String)> {
    const CLOSE_ON_EXEC: u64 = libc::O_CLOEXEC as u64;
    let names = fs::read_dir("/proc/self/fd").unwrap();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_inheritable = |name: &String| {
        // One that was closed meanwhile, by another test of this process, is none.
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        Some(u64::from_str_radix(flags, 8).ok()? & CLOSE_ON_EXEC == 0)
    };
    let target = |name: String| {
        let target = fs::read_link(format!("/proc/self/fd/{name}")).ok()?;
        Some((name, target.to_string_lossy().into_owned()))
    };
    names.filter(|name| is_inheritable(name) == Some(true)).filter_map(target).collect()
}

#[tokio::test]
async fn every_descriptor_of_the_host_layer_is_closed_on_exec() {
    let before = inheritable();
    let mesh = Mesh::new().await;
    mesh.host.recheck().await.unwrap();
    mesh.host.facts().await.unwrap();
    let leaked: Vec<_> = inheritable().difference(&before).cloned().collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    // One that isn't closed would have been seen: dup(2) makes such.
    let _leak = nix::unistd::dup(io::stdin()).unwrap();
    assert_ne!(inheritable(), before);
}

fn namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/thread-self/ns/net")?.to_string_lossy().into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_thread_comes_back_in_another_namespace() {
    const TASKS: usize = 8;
    const ROUNDS: usize = 1250;
    let home = namespace().unwrap();
    let netns = Arc::new(Netns::anonymous().unwrap());
    let inside = netns.run(namespace).await.unwrap();
    assert_ne!(inside, home);
    let work = |_| {
        let (netns, home, inside) = (netns.clone(), home.clone(), inside.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                assert_eq!(netns.run(namespace).await.unwrap(), inside);
                if round % 100 == 0 {
                    netns.run(|| Err::<(), _>(io::Error::other("fails"))).await.unwrap_err();
                }
                if round == 0 {
                    netns.run(|| -> io::Result<()> { panic!("on purpose") }).await.unwrap_err();
                }
                assert_eq!(namespace().unwrap(), home);
                let blocking = tokio::task::spawn_blocking(namespace).await.unwrap();
                assert_eq!(blocking.unwrap(), home);
            }
        })
    };
    for task in (0..TASKS).map(work).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(netns.run_blocking(namespace).unwrap(), inside);
    assert_eq!(namespace().unwrap(), home);
}
