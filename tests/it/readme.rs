//! README's tables say what the program does.

use std::collections::BTreeSet;

use crate::support::{Daemon, program};

const README: &str = include_str!("../../README.md");

/// The first column of the table under a heading, with backquotes taken off.
fn column(heading: &str, column: usize) -> BTreeSet<String> {
    let section = README.split_once(&format!("\n## {heading}\n")).expect("the section is there").1;
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.split('|').nth(column + 1).unwrap().trim().replace('`', "")).collect()
}

#[tokio::test]
async fn the_endpoints_are_those_of_the_router() {
    let daemon = Daemon::start().await;
    let document = daemon.client().get("/openapi.json").ok().await.json();
    let paths = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter().filter(|(_, operation)| operation.is_object());
        methods.map(move |(method, _)| format!("{} {path}", method.to_uppercase()))
    });
    let undocumented = ["GET /docs", "GET /openapi.json"].map(str::to_owned);
    let expected: BTreeSet<String> = paths.chain(undocumented).collect();
    let listed = column("Endpoints", 0);
    assert_eq!(
        listed.difference(&expected).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "listed, and not there"
    );
    assert_eq!(
        expected.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "there, and not listed"
    );
}

#[tokio::test]
async fn the_settings_are_those_of_the_help() {
    let output = tokio::process::Command::new(program()).arg("--help").env_clear().output().await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let words = help.split(|c: char| c.is_whitespace() || ",[]=<>()".contains(c));
    let flags: BTreeSet<String> = words
        .clone()
        .filter(|word| word.starts_with("--") && !["--help", "--version", "--no-follow"].contains(word))
        .map(|word| word.trim_end_matches(['.', ':']).to_owned())
        .collect();
    assert_eq!(column("Settings", 0), flags);
    for variable in words.filter(|word| word.starts_with("TOOLBOXD_") || word.starts_with("DAYTONA_")) {
        let variable = variable.trim_end_matches(['.', ':']);
        assert!(README.contains(variable), "{variable}");
    }
}
