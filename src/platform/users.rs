//! Users and groups from `/etc/passwd` and `/etc/group`.
//!
//! A static binary has no NSS, and an image may have neither file: then names are unknown and numbers still work.

use std::path::{Path, PathBuf};

/// A line of `/etc/passwd` (passwd(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; empty means `/bin/sh`.
    pub shell: PathBuf,
}

/// Who a process is (credentials(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl User {
    /// Those of a process that belongs to this user: the primary group and the groups that list the name.
    pub fn credentials(&self) -> Credentials {
        let groups = groups_of(&read("/etc/group"), &self.name);
        let groups = std::iter::once(self.gid).chain(groups.into_iter().filter(|group| *group != self.gid));
        Credentials { uid: self.uid, gid: self.gid, groups: groups.collect() }
    }
}

/// The user called `name`, if the image has one.
pub fn user_by_name(name: &str) -> Option<User> {
    users().into_iter().find(|user| user.name == name)
}

/// The user with `uid`, if the image has one.
pub fn user_by_id(uid: u32) -> Option<User> {
    users().into_iter().find(|user| user.uid == uid)
}

/// The id of the group called `name`, if the image has one.
pub fn group_by_name(name: &str) -> Option<u32> {
    read("/etc/group").lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Ids of the groups that list `name` as a member (group(5)).
fn groups_of(text: &str, name: &str) -> Vec<u32> {
    let member_of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_group, _password, gid, members] = fields[..] else { return None };
        members.split(',').any(|member| member == name).then(|| gid.parse().ok())?
    };
    text.lines().filter_map(member_of).collect()
}

fn users() -> Vec<User> {
    read("/etc/passwd").lines().filter_map(parse_user).collect()
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _password, uid, gid, _gecos, home, shell] = fields[..] else { return None };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
        shell: shell.into(),
    })
}

fn read(path: &str) -> String {
    let bytes = std::fs::read(Path::new(path)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_are_parsed_and_broken_ones_skipped() {
        let user = parse_user("daytona:x:1000:1001:A User,,,:/home/daytona:/bin/zsh").expect("well-formed");
        assert_eq!((user.uid, user.gid), (1000, 1001));
        assert_eq!(user.home, Path::new("/home/daytona"));
        assert_eq!(parse_user("# comment"), None);
        assert_eq!(parse_user("daytona:x:notanumber:1:::"), None);
    }

    #[test]
    fn a_user_is_in_the_groups_that_list_the_name() {
        let text = "sudo:x:27:a,daytona\nbroken\ndocker:x:998:daytonas\nvideo:x:44:daytona\n";
        assert_eq!(groups_of(text, "daytona"), [27, 44]);
    }
}
