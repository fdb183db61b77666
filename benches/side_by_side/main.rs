//! Side-by-side measurements: each row is toolboxd and the thing it is compared with, in the same run on the same
//! machine. Ratios count; absolute numbers only show the order.
//!
//! Names of rows as arguments choose rows; without any, all are measured.

#![expect(clippy::unwrap_used, reason = "a measurement that fails panics")]
#![expect(clippy::disallowed_methods, reason = "starts the programs that are compared")]
#![expect(clippy::print_stdout, reason = "prints a table")]

mod code;
mod desktop;
mod desktop_life;
mod files;
mod git;
mod git_remote;
mod ports;
mod process;
mod pty;
mod start;
mod support;

use std::fs;
use std::path::Path;

use support::Row;

/// Measures in a directory of its own.
type Measure = fn(&Path) -> Vec<Row>;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let rows: &[(&str, Measure)] = &[
        ("start", start::start),
        ("execute", process::execute),
        ("session", process::session),
        ("stream", process::stream),
        ("code", code::code_run),
        ("interpreter", code::interpreter),
        ("pty", pty::pty),
        ("upload", files::upload),
        ("download", files::download),
        ("find", files::find),
        ("screenshot", desktop::screenshot),
        ("input", desktop::input),
        ("typing", desktop::typing),
        ("desktop", desktop_life::desktop),
        ("git", git::git),
        ("clone", git_remote::clone),
        ("proxy", ports::proxy),
    ];
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("side_by_side");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    println!("| what | toolboxd | compared with | ratio | target |\n|---|---|---|---|---|");
    for (name, measure) in
        rows.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|row| row == name))
    {
        let directory = directory.join(name);
        fs::create_dir(&directory).unwrap();
        for Row { what, ours, theirs, ratio, target } in measure(&directory) {
            println!("| {what} | {ours} | {theirs} | {ratio} | {target} |");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
