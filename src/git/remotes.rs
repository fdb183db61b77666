//! Remotes as the repository's settings have them; nothing here goes out.

use git2::{Config, Remote, Repository};

use super::failure::failing;
use super::service::{Git, open};
use crate::error::{Error, ErrorKind, Result};

/// Where a remote is.
#[derive(Debug)]
pub(super) struct RemoteInfo {
    pub(super) name: String,
    /// The first that is fetched from.
    pub(super) url: String,
}

impl Git {
    /// All remotes, sorted by name.
    ///
    /// # Errors
    /// When there is no repository.
    pub(super) async fn remotes(&self, path: &str) -> Result<Vec<RemoteInfo>> {
        self.read(path, |repository| {
            let mut remotes = Vec::new();
            for name in names(repository)? {
                let remote =
                    repository.find_remote(&name).map_err(failing(&format!("read remote {name}")))?;
                let url = String::from_utf8_lossy(remote.url_bytes()).into_owned();
                remotes.push(RemoteInfo { name, url });
            }
            remotes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(remotes)
        })
        .await
    }

    /// Adds a remote; with `overwrite` it replaces one of the same name. What was fetched from that one stays.
    ///
    /// # Errors
    /// When name or URL make no sense, or the name is taken.
    pub(super) async fn add_remote(
        &self,
        path: &str,
        name: String,
        url: String,
        overwrite: bool,
    ) -> Result<()> {
        if name.starts_with('-') || !Remote::is_valid_name(&name) {
            return Err(Error::invalid(format!("invalid remote name: {name:?}")));
        }
        check_url(&url)?;
        let (path, section) = (self.resolve(path), format!("remote.{name}"));
        let file = self.lane.run(move || open(&path).map(|repository| repository.commondir().join("config")));
        self.edit(file.await??, move |config| {
            let old = keys_of(config, &section)?;
            if !old.is_empty() && !overwrite {
                return Err(Error::new(ErrorKind::Conflict, format!("remote {name} already exists")));
            }
            let failing = failing("change the remote");
            for key in old {
                config.remove_multivar(&key, ".*").map_err(&failing)?;
            }
            config.set_str(&format!("{section}.url"), &url).map_err(&failing)?;
            let refspec = format!("+refs/heads/*:refs/remotes/{name}/*");
            config.set_str(&format!("{section}.fetch"), &refspec).map_err(&failing)
        })
        .await
    }
}

fn names(repository: &Repository) -> Result<Vec<String>> {
    let names = repository.remotes().map_err(failing("list remotes"))?;
    Ok(names.iter().filter_map(|name| name.ok().flatten()).map(str::to_owned).collect())
}

/// The settings that a section has, each once.
fn keys_of(config: &Config, section: &str) -> Result<Vec<String>> {
    let failing = failing("read settings");
    let prefix = format!("{section}.");
    let mut keys = Vec::new();
    let mut entries = config.entries(None).map_err(&failing)?;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(&failing)?;
        let Ok(name) = entry.name() else { continue };
        // `remote.a.b.url` is of a remote `a.b`.
        if name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.'))
            && !keys.iter().any(|key| key == name)
        {
            keys.push(name.to_owned());
        }
    }
    Ok(keys)
}

/// Refuses what would be taken for an option, or names a program that would be run.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]; the URL is not told, it may have a password in it.
pub(super) fn check_url(url: &str) -> Result<()> {
    let is_helper = url.split_once("::").is_some_and(|(helper, _)| {
        !helper.is_empty() && helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    });
    let has_control = url.bytes().any(|byte| byte.is_ascii_control());
    if url.is_empty() || url.starts_with('-') || is_helper || has_control {
        return Err(Error::invalid(
            "invalid URL: only http, https, ssh, git and file URLs and paths are known",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_run_nothing() {
        for url in ["https://a/b", "git@a:b.git", "/srv/a", "../b", "file:///a", "ssh://[::1]/a"] {
            check_url(url).unwrap();
        }
        for url in ["", "-oProxyCommand=x", "ext::sh -c x", "fd::7", "https://a\n/b"] {
            assert!(check_url(url).is_err(), "{url:?}");
        }
    }
}
