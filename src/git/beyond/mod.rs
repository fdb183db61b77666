//! What git has and the contract has not: diff, show, stash, tags; named as git names them.

mod diff;
pub(super) mod routes;
mod show;
mod stash;
mod tags;
mod wire;
