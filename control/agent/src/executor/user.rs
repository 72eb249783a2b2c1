//! Whom a task runs as: `USER[:GROUP]`, looked up as runc does in the files the task itself would look into.

use super::protocol::Failure;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, chown, fchown, setgid, setgroups, setuid};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Larger ids are no users: the largest 32-bit one means "unchanged" to the kernel, and runc stops here.
const MAX_ID: u32 = i32::MAX as u32;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: u32,
    gid: u32,
    /// Besides `gid`.
    groups: Vec<u32>,
}

/// None: the task stays root.
pub(super) fn look_up(user: &str) -> Result<Option<User>, Failure> {
    if user.is_empty() {
        return Ok(None);
    }
    // A host without these files knows numbers only.
    let [passwd, group] =
        ["/etc/passwd", "/etc/group"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let unknown = |doing: String| Failure { command: false, doing, errno: libc::ENOENT };
    resolve(user, &passwd, &group).map(Some).map_err(unknown)
}

/// The error is what could not be done.
fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    // name:password:uid:gid:…
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entry.filter_map(|fields| match fields.as_slice() {
        [name, _, uid, gid, ..] => Some((*name, id(uid)?, id(gid)?)),
        _ => None,
    });
    let entry = entry.clone().find(|(known, ..)| *known == name).or_else(|| {
        let wanted = id(name)?;
        entry.clone().find(|(_, uid, _)| *uid == wanted)
    });
    let (name, uid, gid) = match (entry, id(name)) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => (name, uid, 0),
        (None, None) => return Err(format!("find user {name} in /etc/passwd")),
    };
    match group_name {
        Some(wanted) => Ok(User { uid, gid: group_id(wanted, group)?, groups: Vec::new() }),
        None => Ok(User { uid, gid, groups: groups_of(name, group) }),
    }
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// name:password:gid:member,member
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
        [name, _, gid, members] => Some((*name, id(gid)?, *members)),
        _ => None,
    })
}

fn group_id(wanted: &str, group: &str) -> Result<u32, String> {
    let known = groups(group).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
    known.or_else(|| id(wanted)).ok_or_else(|| format!("find group {wanted} in /etc/group"))
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    let has = |members: &str| members.split(',').any(|member| member == user);
    groups(group).filter(|(_, _, members)| has(members)).map(|(_, gid, _)| gid).collect()
}

impl User {
    /// Makes what the task has for itself the user's: its directory, and its streams, which it may open anew by
    /// name (/dev/stderr).
    pub(super) fn own(&self, directory: &Path) -> io::Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        chown(directory, uid, gid)?;
        for stream in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
            let kind = SFlag::from_bits_truncate(fstat(stream)?.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFIFO {
                fchown(stream, uid, gid)?;
            } else if nix::unistd::isatty(stream).unwrap_or(false) {
                // A terminal's group stays tty.
                fchown(stream, uid, None)?;
            }
        }
        Ok(())
    }

    /// For good: with the user go the capabilities (capabilities(7)).
    pub(super) fn assume(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(self.gid))?;
        Ok(setuid(Uid::from_raw(self.uid))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34:www:/var/www:/bin/sh\n1000:x:7:8::/:\n";
    const GROUP: &str = "root:x:0:\nmail:x:8:www,bin\nbroken:x\nlog:x:9:bin,www\n";

    fn user(wanted: &str) -> Result<(u32, u32, Vec<u32>), String> {
        resolve(wanted, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups))
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        assert_eq!(user("www").unwrap(), (33, 34, vec![8, 9]));
        assert_eq!(user("33").unwrap(), (33, 34, vec![8, 9]));
        assert_eq!(user("www:log").unwrap(), (33, 9, vec![]));
        assert_eq!(user("www:77").unwrap(), (33, 77, vec![]));
        assert_eq!(user("4000").unwrap(), (4000, 0, vec![]));
        assert_eq!(user("1000").unwrap(), (7, 8, vec![]), "a name that looks like a number is a name first");
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert_eq!(user("nobody").unwrap_err(), "find user nobody in /etc/passwd");
        assert_eq!(user("www:nogroup").unwrap_err(), "find group nogroup in /etc/group");
        assert_eq!(user("4294967295").unwrap_err(), "find user 4294967295 in /etc/passwd");
        assert!(resolve("www", "", "").is_err());
    }
}
