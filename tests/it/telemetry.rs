//! The log file and the export to an OTLP endpoint.

use tokio::process::Command;

use crate::support::{Daemon, within};

#[tokio::test]
async fn the_log_also_goes_to_a_file_which_is_put_aside_when_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/daemon.log");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let old = "x".repeat(1 << 20);
    std::fs::write(&path, &old).unwrap();
    let mut daemon = Daemon::start_with(|command| {
        command
            .env("DAYTONA_DAEMON_LOG_FILE_PATH", &path)
            .env("DAYTONA_DAEMON_LOG_MAX_SIZE_MB", "1")
            .env("DAYTONA_DAEMON_LOG_COMPRESS", "false");
    })
    .await;
    daemon.client().get("/work-dir").ok().await;
    daemon.signal("TERM").await;
    assert!(daemon.exited().await.success());
    let log = std::fs::read_to_string(&path).unwrap();
    // The two are written one after the other: their times differ.
    let lines =
        |log: &str| log.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&log), lines(&daemon.log()));
    assert!(log.contains("/work-dir") && log.contains("stopped"), "{log}");
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|name| *name != path).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read_to_string(&aside[0]).unwrap(), old);
}

#[tokio::test]
async fn a_log_file_that_cannot_be_opened_ends_the_program_and_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolboxd"));
    command.env_clear().env("TOOLBOXD_LISTEN", "127.0.0.1:0");
    let output =
        within(command.args(["--daemon-log-file-path", "/proc/no/daemon.log"]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--daemon-log-file-path /proc/no/daemon.log: "), "{text}");
}
