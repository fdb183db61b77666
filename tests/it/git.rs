//! Repositories, beside what the `git` program makes of them.

mod beyond;
mod branches;
mod checkout;
mod commit;
mod history;
mod reset;
mod safety;
mod settings;
mod status;
