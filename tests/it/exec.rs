//! One command, bounded time, collected output.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Call, Client, Daemon, SHELLS, gone, held_pipe, make_fifo, pid_in, within};

fn execute(client: &Client, body: Value) -> Call {
    client.post("/process/execute").json(body)
}

async fn run(client: &Client, command: &str) -> (i64, String) {
    let reply = execute(client, json!({"command": command})).ok().await.json();
    (reply["exitCode"].as_i64().unwrap(), reply["result"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn output_is_in_the_order_it_was_written_and_the_code_is_the_shells() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let reply =
        execute(&client, json!({"command": "echo one; echo two >&2; echo three; exit 42"})).ok().await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(reply.json(), json!({"exitCode": 42, "result": "one\ntwo\nthree\n"}));
    assert_eq!(run(&client, "printf 'no newline'").await, (0, "no newline".into()));
    assert_eq!(run(&client, "true").await, (0, String::new()));
}

#[tokio::test]
async fn the_script_is_whole_and_its_input_is_empty() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    // Neither `cat` nor `read` may eat the rest of the script.
    assert_eq!(run(&client, "cat\nread line || echo end\necho rest").await, (0, "end\nrest\n".into()));
    assert_eq!(run(&client, "cat <<'EOF'\n$HOME `x`\nEOF").await, (0, "$HOME `x`\n".into()));
    assert_eq!(run(&client, "# a comment\necho $#").await, (0, "0\n".into()));
    let (_, shell) = run(&client, "echo $0").await;
    assert!(Path::new(shell.trim()).is_absolute(), "{shell}");
}

#[tokio::test]
async fn a_command_may_be_longer_than_an_argument() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let (_, short) = run(&client, "echo $0 $#").await;
    let line = format!(": '{}'\n", "x".repeat(1000));
    let command = format!("{}echo $0 $#\ncat <<'END'\nhere\nEND\nexit 5", line.repeat(3000));
    assert_eq!(run(&client, &command).await, (5, format!("{short}here\n")));
    assert_eq!(std::fs::read_dir(daemon.work()).unwrap().count(), 0);
}

#[tokio::test]
async fn every_shell_runs_commands_the_same_way() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let client = daemon.client();
        assert_eq!(run(&client, "echo $0 $#").await, (0, format!("{shell} 0\n")), "{shell}");
        assert_eq!(run(&client, "python3 -c 'import os; os.kill(os.getpid(), 9)'").await.0, 137, "{shell}");
        assert_eq!(run(&client, "false\nexit 7").await, (7, String::new()), "{shell}");
        assert_eq!(run(&client, "kill -9 $$").await.0, -1, "{shell}");
        let long = format!(": '{}'\necho $0 $#; exit 3", "x".repeat(200_000));
        assert_eq!(run(&client, &long).await, (3, format!("{shell} 0\n")), "{shell}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_text_become_replacement_characters() {
    let daemon = Daemon::start().await;
    let (_, output) = run(&daemon.client(), r#"printf 'a\377\000\001"\\é'"#).await;
    assert_eq!(output, "a\u{FFFD}\0\u{1}\"\\é");
}

#[tokio::test]
async fn directory_and_environment_are_the_requests() {
    let daemon = Daemon::start_with(|command| {
        command.env("INHERITED", "yes").env("TOOLBOXD_TOKEN", "").env("SHARED", "old");
    })
    .await;
    let client = daemon.client();
    std::fs::create_dir(daemon.work().join("sub")).unwrap();
    let body = json!({"command": "pwd; echo $INHERITED $SHARED $NEW", "cwd": "sub",
        "envs": {"SHARED": "new", "NEW": "a b"}});
    let reply = execute(&client, body).ok().await.json();
    let sub = daemon.work().join("sub");
    assert_eq!(reply["result"], format!("{}\nyes new a b\n", sub.display()));
    // What /env changes reaches later commands, and no other.
    client.post("/env").json(json!({"set": {"LATER": "1"}, "unset": ["INHERITED"]})).ok().await;
    assert_eq!(run(&client, "echo $INHERITED $LATER").await.1, "1\n");
}

#[tokio::test]
async fn the_token_is_in_no_childs_environment() {
    let daemon = Daemon::start_with(|command| {
        command.env("TOOLBOXD_TOKEN", "s3cret-token");
    })
    .await;
    let call = execute(
        &daemon.client(),
        json!({"command": "env; cat /proc/$PPID/environ | tr '\\0' '\\n'; ps axeww"}),
    );
    let output = call.header("authorization", "Bearer s3cret-token").ok().await.text();
    assert!(output.contains("PATH=") && !output.contains("s3cret-token"), "{output}");
}

#[tokio::test]
async fn a_command_inherits_nothing_that_the_daemon_needs_for_itself() {
    // As a shell starts a program with `&`, and with a descriptor left open.
    let script = "trap '' INT QUIT; exec 9</dev/null; ulimit -S -n 700; exec \"$0\" \"$@\"";
    let daemon = Daemon::start_under(&["sh", "-c", script], |_| {}).await;
    let command = "grep THP_enabled /proc/self/status; ulimit -n; ls /proc/self/fd";
    assert_eq!(run(&daemon.client(), command).await, (0, "THP_enabled:\t1\n700\n0\n1\n2\n3\n".into()));
    let (_, ignored) = run(&daemon.client(), "awk '/SigIgn/ {print $2}' /proc/self/status").await;
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0, "no signal of signal(7) is ignored: {ignored:x}");
}

#[tokio::test]
async fn what_cannot_be_started_is_a_result() {
    let daemon = Daemon::start().await;
    let body = json!({"command": "true", "cwd": "/no/such/directory"});
    let reply = execute(&daemon.client(), body).ok().await.json();
    assert_eq!(
        reply,
        json!({"exitCode": -1, "result": "chdir /no/such/directory: no such file or directory"})
    );
    let reply = execute(&daemon.client(), json!({"command": "true", "cwd": "/etc/passwd"})).ok().await.json();
    assert_eq!(reply, json!({"exitCode": -1, "result": "chdir /etc/passwd: not a directory"}));
}

#[tokio::test]
async fn bad_requests_are_told_and_run_nothing() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for body in [
        json!({}),
        json!({"command": ""}),
        json!({"command": " \n\t"}),
        json!({"command": 3}),
        json!({"command": "touch x", "timeout": -1}),
        json!({"command": "touch x", "timeout": 1.5}),
        json!({"command": "touch x", "envs": {"X-Y": "1"}}),
        json!({"command": "touch x", "envs": {"": "1"}}),
        json!({"command": "touch x", "envs": {"X": 1}}),
        json!({"command": "touch x", "envs": {"X": "a\u{0}b"}}),
        json!({"command": "touch x\u{0}"}),
    ] {
        execute(&client, body).fails(400, "BAD_REQUEST").await;
    }
    client.post("/process/execute").body("{\"command\":").fails(400, "BAD_REQUEST").await;
    assert_eq!(std::fs::read_dir(daemon.work()).unwrap().count(), 0);
    let message =
        execute(&client, json!({"command": "x", "envs": {"X-Y": "1"}})).fails(400, "BAD_REQUEST").await;
    assert_eq!(message, "bad request: invalid environment variable name: 'X-Y'");
}

#[tokio::test]
async fn a_time_limit_kills_the_whole_tree() {
    let daemon = Daemon::start().await;
    let pids = daemon.work().join("pids");
    let command = "sh -c 'echo $$ >> pids; exec sleep 1000' &
        setsid sh -c 'echo $$ >> pids; exec sleep 1000' &
        (setsid sh -c 'echo $$ >> pids; exec env -i sleep 1000' &)
        echo before; while [ $(wc -l < pids) -lt 3 ]; do :; done; echo ready; sleep 1000";
    let body = json!({"command": command, "timeout": 2});
    let message = execute(&daemon.client(), body).fails(408, "PROCESS_EXECUTION_TIMEOUT").await;
    assert_eq!(message, "request timeout: command execution timeout");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 3);
    for pid in pids.lines() {
        assert!(gone(pid.parse().unwrap()), "{pid} is still there");
    }
}

#[tokio::test]
async fn a_timeouts_last_output_is_told_when_asked_for() {
    let daemon = Daemon::start().await;
    let call = daemon.client().post("/process/execute").query("detail", "true");
    let reply = call.json(json!({"command": "echo partial; sleep 1000", "timeout": 1.0})).send().await;
    assert_eq!((reply.status.as_u16(), &reply.json()["partialOutput"]), (408, &json!("partial\n")));
}

#[tokio::test]
async fn a_fork_bomb_ends_at_its_time_limit() {
    let daemon = Daemon::start().await;
    let command = "import os, time\nfor _ in range(200):\n    if os.fork() == 0:\n        os.setsid()\nwhile True:\n    \
                   if os.fork() == 0:\n        os._exit(0)\n    os.waitpid(-1, os.WNOHANG)";
    let body = json!({"command": format!("exec python3 -c '{}'", command.replace("range(200)", "range(5)")), "timeout": 1});
    execute(&daemon.client(), body).fails(408, "PROCESS_EXECUTION_TIMEOUT").await;
    assert_eq!(run(&daemon.client(), "echo fine").await.1, "fine\n");
}

#[tokio::test]
async fn a_process_that_is_another_one_every_moment_ends_at_its_time_limit() {
    let daemon = Daemon::start().await;
    for again in ["", "setsid"] {
        let held = daemon.work().join("held");
        let closed = held_pipe(&held);
        let hop = format!("printf . >&3; {again} sh hop &");
        std::fs::write(daemon.work().join("hop"), hop).unwrap();
        let body = json!({"command": "exec 3> held; sh hop; sleep 1000", "timeout": 1});
        execute(&daemon.client(), body).fails(408, "PROCESS_EXECUTION_TIMEOUT").await;
        let hops = within(closed).await.unwrap(); // nobody has the pipe open
        assert!(hops > 10, "{hops}");
        std::fs::remove_file(held).unwrap();
    }
}

#[tokio::test]
async fn background_processes_do_not_hold_the_answer() {
    let daemon = Daemon::start().await;
    let (code, output) = run(&daemon.client(), "sleep 1000 & echo $!; (echo late) &").await;
    assert_eq!(code, 0);
    assert!(output.contains("late\n"), "{output}");
    let pid = pid_in(&output);
    assert!(!gone(pid), "a background process lives on");
    run(&daemon.client(), &format!("kill {pid}")).await;
}

#[tokio::test]
async fn the_exit_record_is_told_when_asked_for() {
    let daemon = Daemon::start().await;
    let detail = |command: &str| {
        let call = daemon
            .client()
            .post("/process/execute")
            .query("detail", "true")
            .json(json!({"command": command}));
        async move { call.ok().await.json()["exit"].clone() }
    };
    let record = detail("echo hello; exit 3").await;
    assert_eq!((&record["cause"], &record["outputBytes"]), (&json!("exited"), &json!(6)));
    assert!(record["peakMemoryBytes"].as_u64().unwrap() > 100_000, "{record}");
    let record = detail("kill -TERM $$").await;
    assert_eq!((&record["cause"], &record["signal"]), (&json!("signalled"), &json!("SIGTERM")));
    let record = detail("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").await;
    assert!(record["cpuTimeMs"].as_u64().unwrap() > 10, "{record}");
}

#[tokio::test]
async fn of_too_much_output_head_and_tail_are_kept_and_the_notice_counts_the_rest() {
    let daemon = Daemon::start_with(|command| {
        command.args(["--max-output", "1MiB"]);
    })
    .await;
    let (code, output) = run(&daemon.client(), "seq 1 1000000; exit 9").await;
    assert_eq!(code, 9);
    assert!(output.starts_with("1\n2\n3\n") && output.ends_with("\n999999\n1000000\n"));
    let (head, rest) = output.split_once("\n[toolboxd: ").unwrap();
    let (dropped, tail) = rest.split_once(" bytes of output were dropped here]\n").unwrap();
    assert_eq!(head.len() + dropped.parse::<usize>().unwrap() + tail.len(), 6_888_896);
}

#[tokio::test]
async fn large_output_is_exact_and_is_not_held_in_memory() {
    let daemon = Daemon::start().await;
    run(&daemon.client(), "true").await;
    let before = daemon.peak_memory();
    let (_, output) = run(&daemon.client(), "head -c 50000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(output.len(), 50_000_000);
    assert!(output.bytes().all(|byte| byte == b'x'));
    let grown = daemon.peak_memory() - before;
    assert!(grown < 16 << 20, "{grown} bytes more at the peak");
}

#[tokio::test]
async fn the_same_key_runs_a_command_once() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let call =
        |command: &str| execute(&client, json!({"command": command})).header("Idempotency-Key", "key-1");
    let first = call("echo run >> runs; date +%N").ok().await.json();
    let (second, third) =
        tokio::join!(call("echo run >> runs; date +%N").ok(), call("echo run >> runs; date +%N").ok());
    assert_eq!((second.json(), third.json()), (first.clone(), first));
    assert_eq!(std::fs::read_to_string(daemon.work().join("runs")).unwrap(), "run\n");
    call("echo other").fails(409, "CONFLICT").await;
}

/// Starts a command over a connection that is closed before the answer.
async fn abandon(daemon: &Daemon, body: &Value) {
    let fifo = daemon.work().join("started");
    make_fifo(&fifo);
    let body = body.to_string();
    let head = format!(
        "POST /process/execute HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::task::spawn_blocking(move || std::fs::read(fifo)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_command_goes_on_when_its_client_leaves() {
    let daemon = Daemon::start().await;
    abandon(&daemon, &json!({"command": "echo > started; echo done > result; echo > ended"})).await;
    let ended = daemon.work().join("ended");
    run(&daemon.client(), "while [ ! -e ended ]; do :; done").await;
    assert!(ended.exists());
    assert_eq!(std::fs::read_to_string(daemon.work().join("result")).unwrap(), "done\n");
}

#[tokio::test]
async fn a_command_is_killed_with_its_client_when_that_was_asked_for() {
    let daemon = Daemon::start().await;
    let body = json!({"command": "setsid sleep 1000 & echo $! $$ > pids; echo > started; sleep 1000",
        "killOnDisconnect": true});
    abandon(&daemon, &body).await;
    let pids = std::fs::read_to_string(daemon.work().join("pids")).unwrap();
    for pid in pids.split_whitespace() {
        run(&daemon.client(), &format!("while kill -0 {pid}; do :; done")).await;
    }
}

#[tokio::test]
async fn a_thousand_commands_at_a_time_each_get_their_own_answer() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let calls = (0..1000).map(|index| {
        let client = client.clone();
        tokio::spawn(async move {
            let command = format!("echo out-{index}; echo err-{index} >&2; exit {}", index % 256);
            assert_eq!(run(&client, &command).await, (index % 256, format!("out-{index}\nerr-{index}\n")));
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn stopping_the_daemon_stops_what_it_runs() {
    let mut daemon = Daemon::start_with(|command| {
        command.args(["--termination-grace-period", "1s"]);
    })
    .await;
    let (_, output) = run(&daemon.client(), "setsid sleep 1000 & echo $!").await;
    let left_behind = pid_in(&output);
    abandon(
        &daemon,
        &json!({"command": "trap '' TERM; setsid sleep 1001 & echo $! > pid; echo > started; sleep 1002"}),
    )
    .await;
    let pid = pid_in(&std::fs::read_to_string(daemon.work().join("pid")).unwrap());
    daemon.signal("TERM").await;
    assert_eq!(daemon.exited().await.code(), Some(0));
    assert!(gone(pid) && gone(left_behind));
}
