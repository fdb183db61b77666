//! Git: every operation on a repository, with libgit2 as the engine (contract `git.md`).
//!
//! The image needs no `git` program. libgit2 starts no programs either, so a repository that somebody else made runs
//! nothing here: no hooks, no fsmonitor, no filters but the built-in line endings and `ident`, no `core.sshCommand`.
//! A user's uncommitted work is never lost: what an operation would change is compared with what is there first, and
//! what fails midway is put back.
//!
//! Not done: SHA-256 repositories, the reftable format, split and sparse indexes; libgit2 refuses to open those.

mod attributes;
mod beyond;
mod branches;
mod checkout;
mod commit;
mod config;
mod failure;
mod history;
mod index_file;
mod init;
mod locks;
mod pathspec;
mod racy;
pub(crate) mod remote;
mod remotes;
mod reset;
pub(crate) mod routes;
mod service;
mod status;
mod survey;
mod wire;
mod worktree;

pub use remote::Remotes;
pub use service::Git;
