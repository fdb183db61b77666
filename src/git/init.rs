//! New repositories.

use git2::{Repository, RepositoryInitOptions};

use super::branches::check_name;
use super::failure::failed;
use super::service::Git;
use crate::error::{Error, Result};

impl Git {
    /// Makes a repository; one that exists loses nothing. Without a name for the first branch it is the configured one
    /// (`init.defaultBranch`), else `master`, as git has it.
    ///
    /// # Errors
    /// When the branch's name makes no sense, or the operating system refuses.
    pub(super) async fn init(&self, path: &str, bare: bool, branch: Option<String>) -> Result<()> {
        branch.as_deref().map_or(Ok(()), check_name)?;
        let (git, path) = (self.clone(), self.resolve(path));
        self.to_its_end(async move {
            let _turn = git.writers.turn(path.clone()).await;
            git.lane
                .run(move || {
                    let mut options = RepositoryInitOptions::new();
                    options.bare(bare).mkpath(true);
                    if let Some(branch) = &branch {
                        options.initial_head(branch);
                    }
                    std::fs::create_dir_all(&path).map_err(|error| Error::io("create", &path, error))?;
                    let made = Repository::init_opts(&path, &options);
                    made.map(drop).map_err(|error| failed(&format!("initialize {}", path.display()), error))
                })
                .await?
        })
        .await
    }
}
