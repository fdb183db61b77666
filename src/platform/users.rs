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
}
