//! As pid 1 of a process namespace: reaping, signals, restarts.

use serde_json::json;

use crate::support::{Client, Daemon};

async fn output(client: &Client, command: &str) -> String {
    let reply = client.post("/process/execute").json(json!({"command": command})).ok().await.json();
    reply["result"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn orphans_are_reaped_and_exit_codes_are_never_stolen() {
    let daemon = Daemon::start_as_pid_1(|_| {}).await;
    let client = daemon.client();
    // Each leaves an orphan that ends at about the same time as the command itself.
    let calls = (0..300_i64).map(|index| {
        let client = client.clone();
        tokio::spawn(async move {
            let command = format!("(sh -c 'exit 1' &) ; (setsid true &); exit {}", index % 200 + 1);
            let reply = client.post("/process/execute").json(json!({"command": command})).ok().await.json();
            assert_eq!(reply["exitCode"], index % 200 + 1);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    // Waits for the last orphans to end, looks at every process, and finds no zombie.
    let zombies = "for i in 1 2 3 4 5 6 7 8; do ls /proc > /dev/null; done
        while grep -l '^State:.*zombie' /proc/[0-9]*/status 2>/dev/null; do sleep 0.01; done; echo none";
    assert!(output(&client, zombies).await.ends_with("none\n"));
    assert_eq!(output(&client, "cat /proc/1/comm").await, "toolboxd\n");
}

#[tokio::test]
async fn init_is_tiny_and_passes_signals_and_the_exit_code_on() {
    let mut daemon = Daemon::start_as_pid_1(|_| {}).await;
    let status = output(&daemon.client(), "grep -E 'VmRSS|Threads' /proc/1/status").await;
    assert!(status.contains("Threads:\t1\n"), "{status}");
    // unshare(1) stands before pid 1 and does not pass signals on: the kernel asks pid 1 itself.
    output(&daemon.client(), "kill -TERM 1").await;
    assert_eq!(daemon.exited().await.code(), Some(0));
    assert!(daemon.log().contains("stopped"));
}

#[tokio::test]
async fn a_crashed_daemon_is_started_again() {
    let mut daemon = Daemon::start_as_pid_1(|command| {
        command.env("TOOLBOXD_LISTEN", "127.0.0.1:0");
    })
    .await;
    // Long enough after its start to count as a crash in service.
    output(&daemon.client(), "sleep 1.1").await;
    let command = json!({"command": "kill -6 $PPID; exec sleep 1000"});
    let killed = daemon.client().post("/process/execute").json(command).try_send().await;
    assert!(killed.is_err(), "the daemon was killed in the middle of this");
    daemon.ready().await;
    assert_eq!(output(&daemon.client(), "echo back").await, "back\n");
}

#[tokio::test]
async fn ten_thousand_commands_leave_nothing_behind() {
    let daemon = Daemon::start_as_pid_1(|_| {}).await;
    let client = daemon.client();
    let run = async |count: usize| {
        let workers = (0..16).map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..count / 16 {
                    let body = json!({"command": "(true &); echo x; exit 3"});
                    let reply = client.post("/process/execute").json(body).ok().await.json();
                    assert_eq!(reply, json!({"exitCode": 3, "result": "x\n"}));
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        // Read by the daemon's own child: counts of the daemon, which is the parent.
        let counts = output(
            &client,
            "while grep -l '^State:.*zombie' /proc/[0-9]*/status > /dev/null 2>&1; do sleep 0.01; done
            ls /proc/$PPID/fd | wc -l; ls /proc/$PPID/task | wc -l; awk '/VmRSS/ {print $2}' /proc/$PPID/status",
        );
        let counts: Vec<i64> = counts.await.lines().map(|line| line.trim().parse().unwrap()).collect();
        (counts[0], counts[1], counts[2])
    };
    // A leak would show thousandfold; a few more are threads and connections that the second run happened to need.
    let (descriptors, threads, memory_kib) = run(160).await;
    let (descriptors_after, threads_after, memory_kib_after) = run(10_000).await;
    assert!(descriptors_after <= descriptors + 16, "{descriptors} descriptors, then {descriptors_after}");
    assert!(threads_after <= threads + 16, "{threads} threads, then {threads_after}");
    assert!(memory_kib_after <= memory_kib + 4096, "{memory_kib} KiB, then {memory_kib_after}");
}
