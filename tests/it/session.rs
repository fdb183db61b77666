//! Sessions: a warm shell, commands one by one, exact output, ends that are always known.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Call, Client, Daemon, SHELLS, gone, make_fifo, pid_in, within};

/// As the newest SDK calls.
const VERSION: (&str, &str) = ("x-daytona-sdk-version", "0.226.1");

struct Session {
    client: Client,
    id: String,
}

impl Session {
    async fn create(daemon: &Daemon, id: &str) -> Self {
        let session = Self { client: daemon.client(), id: id.to_owned() };
        let reply = session.client.post("/process/session").json(json!({"sessionId": id})).ok().await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (201, 0));
        session
    }

    fn path(&self, rest: &str) -> String {
        format!("/process/session/{}{rest}", self.id)
    }

    fn exec(&self, body: Value) -> Call {
        self.client.post(&self.path("/exec")).header(VERSION.0, VERSION.1).json(body)
    }

    /// Exit code, standard output, standard error.
    async fn run(&self, command: &str) -> (i64, String, String) {
        let reply = self.exec(json!({"command": command})).ok().await.json();
        let text = |name: &str| reply[name].as_str().unwrap().to_owned();
        (reply["exitCode"].as_i64().unwrap(), text("stdout"), text("stderr"))
    }

    async fn start(&self, command: &str) -> String {
        let reply = self.exec(json!({"command": command, "runAsync": true})).ok().await;
        assert_eq!(reply.status.as_u16(), 202);
        let id = reply.json()["cmdId"].as_str().unwrap().to_owned();
        let nothing = json!({"cmdId": id, "output": null, "stdout": null, "stderr": null, "exitCode": null});
        assert_eq!(reply.json(), nothing);
        id
    }

    async fn info(&self) -> Value {
        self.client.get(&self.path("")).ok().await.json()
    }

    async fn logs(&self, command: &str) -> Value {
        let call = self.client.get(&self.path(&format!("/command/{command}/logs")));
        call.header(VERSION.0, VERSION.1).ok().await.json()
    }

    /// The whole stream of a command, which ends with it.
    async fn follow(&self, command: &str) -> String {
        let call = self.client.get(&self.path(&format!("/command/{command}/logs?follow=true")));
        let reply = call.ok().await;
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        reply.text()
    }

    async fn exit_code(&self, command: &str) -> Option<i64> {
        self.client.get(&self.path(&format!("/command/{command}"))).ok().await.json()["exitCode"].as_i64()
    }

    async fn delete(&self) {
        let reply = self.client.delete(&self.path("")).ok().await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (204, 0));
    }
}

fn out(code: i64, stdout: &str) -> (i64, String, String) {
    (code, stdout.to_owned(), String::new())
}

#[tokio::test]
async fn state_belongs_to_the_user_in_every_shell() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let session = Session::create(&daemon, "s").await;
        assert_eq!(session.run("pwd").await, out(0, &format!("{}\n", daemon.work().display())), "{shell}");
        session
            .run("mkdir sub; cd sub; export X='a b'; y=\"it's\"; f() { echo in f; return 4; }; umask 027")
            .await;
        let text = "pwd; echo \"$X $y\"; f; echo $?; umask; sh -c 'echo $X'";
        let expected = format!("{}\na b it's\nin f\n4\n", daemon.work().join("sub").display());
        let (code, stdout, stderr) = session.run(text).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(stdout.starts_with(&expected) && stdout.ends_with("27\na b\n"), "{shell}: {stdout}");
        // The status of the command before is the user's too.
        assert_eq!(session.run("(exit 9)").await.0, 9, "{shell}");
        assert_eq!(session.run("echo $?").await, out(0, "9\n"), "{shell}");
    }
}

#[tokio::test]
async fn nothing_of_ours_is_in_the_shells_namespace() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let session = Session::create(&daemon, "s").await;
        // The same shell by hand, fed with the same text on its input.
        let fresh = format!("printf 'set; trap; alias\n' | {shell}");
        session.run("true").await;
        session.run("(exit 3)").await;
        let (_, stdout, _) = session.run("set; trap; alias").await;
        let (_, by_hand, _) = session.run(&fresh).await;
        let names = |text: &str| {
            let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        // What shells set themselves when they run anything: `_`, and in bash what is known of the pipeline.
        let own =
            ["_", "PIPESTATUS", "BASH_LINENO", "SHLVL", "OLDPWD", "argv", "pipestatus", "status", "?", "!"];
        let added: Vec<_> = names(&stdout).difference(&names(&by_hand)).cloned().collect();
        assert!(added.iter().all(|name| own.contains(&name.as_str())), "{shell}: {added:?}");
        // Only the three standard descriptors, and the one by which ls reads the directory.
        let (_, descriptors, _) = session.run("ls /proc/self/fd | wc -l").await;
        assert_eq!(descriptors.trim(), "4", "{shell}");
    }
}

#[tokio::test]
async fn traps_are_the_users_and_run_when_the_shell_ends() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let session = Session::create(&daemon, "s").await;
        session.run("trap 'echo bye > trapped' EXIT; trap 'echo usr' USR1").await;
        assert_eq!(session.run("kill -USR1 $$; echo after").await, out(0, "usr\nafter\n"), "{shell}");
        assert_eq!(session.run("exit 5").await.0, 5, "{shell}");
        assert_eq!(std::fs::read_to_string(daemon.work().join("trapped")).unwrap(), "bye\n", "{shell}");
    }
}

#[tokio::test]
async fn a_shell_that_ends_ends_its_command_with_its_status_and_the_session() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        for (index, (command, code)) in
            [("exit 3", 3), ("exec false", 1), ("set -e\nfalse\necho not here", 1), ("kill -9 $$", 137)]
                .into_iter()
                .enumerate()
        {
            let session = Session::create(&daemon, &format!("s{index}")).await;
            let command = format!("echo before; {command}");
            assert_eq!(session.run(&command).await, out(code, "before\n"), "{shell}: {command}");
            let message = session.exec(json!({"command": "true"})).fails(410, "SESSION_ENDED").await;
            assert_eq!(message, format!("gone: session s{index} has ended with exit code {code}"));
            let command = &session.info().await["commands"][0];
            assert_eq!(command["exitCode"], code);
            session.delete().await;
        }
    }
}

#[tokio::test]
async fn syntax_errors_end_their_command_only() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let session = Session::create(&daemon, "s").await;
        session.run("x=kept").await;
        for command in ["if then", "echo 'open", "}", "cat <<", "$(", ". /no/such/file"] {
            let (code, _, stderr) = session.run(command).await;
            assert!(code != 0 && !stderr.is_empty(), "{shell}: {command}");
        }
        assert_eq!(session.run("echo $x").await, out(0, "kept\n"), "{shell}");
    }
}

#[tokio::test]
async fn commands_of_every_form_are_run_whole() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let session = Session::create(&daemon, "s").await;
        assert_eq!(session.run("cat <<'END'\n$x 'y'\nEND\n").await, out(0, "$x 'y'\n"), "{shell}");
        assert_eq!(
            session.run("for i in 1 2\ndo\n  echo $i\ndone # comment").await,
            out(0, "1\n2\n"),
            "{shell}"
        );
        assert_eq!(
            session.run("echo \"it's\" 'say \"x\"' \\'").await,
            out(0, "it's say \"x\" '\n"),
            "{shell}"
        );
        // A synchronous command has no input, and cannot eat the commands after it.
        assert_eq!(session.run("cat; read line; echo $?").await, out(0, "1\n"), "{shell}");
        let long = format!("x='{}'\necho ${{#x}}; echo $0 >&2", "y".repeat(2 << 20));
        let (code, stdout, stderr) = session.run(&long).await;
        assert_eq!((code, stdout), (0, format!("{}\n", 2 << 20)), "{shell}");
        assert_eq!(session.run("echo $0 >&2").await.2, stderr, "{shell}");
    }
}

#[tokio::test]
async fn every_byte_arrives_as_it_was_written() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let reply = session
        .exec(json!({"command": r"printf 'a\000b'; printf '\377' >&2; printf 'no newline'"}))
        .ok()
        .await;
    let reply = reply.json();
    assert_eq!((&reply["stdout"], &reply["stderr"]), (&json!("a\0bno newline"), &json!("\u{FFFD}")));
    let random = "head -c 3000000 /dev/urandom > random; cat random; tail -c 1000 random >&2";
    let id = session.start(random).await;
    let call = session.client.get(&session.path(&format!("/command/{id}/logs?follow=true")));
    let streamed = call.ok().await.body;
    let mut random = std::fs::read(daemon.work().join("random")).unwrap();
    random.extend_from_within(random.len() - 1000..);
    assert_eq!(streamed.len(), random.len());
    // Two pipes: the last bytes of one may overtake those of the other.
    let sorted = |mut bytes: Vec<u8>| {
        bytes.sort_unstable();
        bytes
    };
    assert!(streamed[..2_900_000] == random[..2_900_000] && sorted(streamed) == sorted(random));
}

#[tokio::test]
async fn partial_lines_are_there_at_once() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    make_fifo(&daemon.work().join("go"));
    let id = session.start("printf 'name? '; cat go; printf '.'").await;
    let path = session.path(&format!("/command/{id}/logs?follow=true"));
    let mut reply = session.client.get(&path).open().await;
    assert_eq!(within(reply.chunk()).await.unwrap().unwrap(), "name? ");
    let go = daemon.work().join("go");
    tokio::task::spawn_blocking(move || std::fs::write(go, "x")).await.unwrap().unwrap();
    assert_eq!(within(reply.bytes()).await.unwrap(), "x.");
}

#[tokio::test]
async fn commands_run_one_after_another() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    make_fifo(&daemon.work().join("go"));
    let first = session.start("cat go").await;
    let second = session.start("echo second").await;
    assert_eq!((session.exit_code(&first).await, session.exit_code(&second).await), (None, None));
    let go = daemon.work().join("go");
    tokio::task::spawn_blocking(move || std::fs::write(go, "x")).await.unwrap().unwrap();
    assert_eq!(session.follow(&second).await, "second\n");
    let commands = session.info().await["commands"].clone();
    let expected = json!([{"id": first, "command": "cat go", "exitCode": 0},
        {"id": second, "command": "echo second", "exitCode": 0}]);
    assert_eq!(commands, expected);
}

#[tokio::test]
async fn background_jobs_hold_nothing_up_and_their_output_is_kept() {
    for shell in SHELLS {
        let daemon = Daemon::with_shell(shell).await;
        let session = Session::create(&daemon, "s").await;
        make_fifo(&daemon.work().join("go"));
        let reply = session.exec(json!({"command": "(cat go; echo late) & echo now"})).ok().await.json();
        assert_eq!((&reply["stdout"], &reply["exitCode"]), (&json!("now\n"), &json!(0)), "{shell}");
        let id = reply["cmdId"].as_str().unwrap();
        assert_eq!(session.follow(id).await, "now\n", "{shell}");
        let go = daemon.work().join("go");
        tokio::task::spawn_blocking(move || std::fs::write(go, "x\n")).await.unwrap().unwrap();
        session.run("wait").await;
        // The job has ended; what it wrote is on its way into the log.
        within(async {
            while session.logs(id).await["stdout"] != "now\nx\nlate\n" {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn input_reaches_asynchronous_commands_and_shows_unless_hidden() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let input = async |id: &str, body: Value| {
        session
            .client
            .post(&session.path(&format!("/command/{id}/input")))
            .json(body)
            .ok()
            .await
            .status
            .as_u16()
    };
    let id = session.start("read a; read b; echo \"$a-$b\"").await;
    assert_eq!(input(&id, json!({"data": "x"})).await, 204);
    assert_eq!(input(&id, json!({"data": "y\n"})).await, 204);
    assert_eq!(session.follow(&id).await, "x\ny\nx-y\n");
    let path = session.path(&format!("/command/{id}/input"));
    let message =
        session.client.post(&path).json(json!({"data": "z"})).fails(410, "COMMAND_ALREADY_COMPLETED").await;
    assert_eq!(message, "gone: command has already completed with exit code 0");

    // Ends at the end of its input.
    let body = json!({"command": "cat", "runAsync": true, "suppressInputEcho": true});
    let reply = session.exec(body).ok().await.json();
    let id = reply["cmdId"].as_str().unwrap();
    let path = session.path(&format!("/command/{id}/input"));
    assert_eq!(input(id, json!({"data": "only once"})).await, 204);
    assert_eq!(input(id, json!({"close": true})).await, 204);
    assert_eq!(session.follow(id).await, "only once\n");
    session.client.post(&path).json(json!({})).fails(400, "INVALID_REQUEST_BODY").await;
}

#[tokio::test]
async fn input_waits_for_its_commands_turn() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let first = session.start("read line; echo first").await;
    let second = session.start("cat").await;
    let third = session.start("cat; exit 3").await;
    let never = session.start("cat").await;
    let input = async |id: &str, body: Value| {
        session.client.post(&session.path(&format!("/command/{id}/input"))).json(body).ok().await;
    };
    input(&never, json!({"data": "never read"})).await;
    input(&third, json!({"close": true})).await;
    input(&second, json!({"data": "one"})).await;
    input(&second, json!({"data": "two", "close": true})).await;
    let path = session.path(&format!("/command/{second}/input"));
    let message = session
        .client
        .post(&path)
        .json(json!({"data": "late"}))
        .fails(410, "COMMAND_ALREADY_COMPLETED")
        .await;
    assert!(message.contains("closed"), "{message}");
    assert_eq!(session.exit_code(&first).await, None, "nothing has begun but the first");
    input(&first, json!({"data": "go"})).await;
    assert_eq!(session.follow(&first).await, "go\nfirst\n");
    assert_eq!(session.follow(&second).await, "one\ntwo\none\ntwo\n");
    assert_eq!(session.follow(&third).await, "");
    assert!(session.follow(&never).await.starts_with("never read\n[toolboxd: the session ended"));
    session.delete().await;
}

#[tokio::test]
async fn input_that_is_not_read_is_bounded_and_blocks_nobody() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let id = session.start("echo ready; sleep 1000").await;
    let stream = session.path(&format!("/command/{id}/logs?follow=true"));
    let mut reply = session.client.get(&stream).open().await;
    assert_eq!(within(reply.chunk()).await.unwrap().unwrap(), "ready\n");
    let path = session.path(&format!("/command/{id}/input"));
    let data = "x".repeat(4 << 20);
    let first = session.client.post(&path).json(json!({"data": data})).send().await;
    assert_eq!(first.status.as_u16(), 204);
    let message = session.client.post(&path).json(json!({"data": data})).fails(409, "CONFLICT").await;
    assert!(message.contains("has not read"), "{message}");
    session.delete().await;
}

#[tokio::test]
async fn a_signal_reaches_the_commands_processes_and_not_the_shell() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let old = pid_in(&session.run("sleep 1000 & echo $!").await.1);
    let id = session.start("echo ready; sleep 1001; echo \"status $?\"").await;
    let stream = session.path(&format!("/command/{id}/logs?follow=true"));
    let mut reply = session.client.get(&stream).open().await;
    assert_eq!(within(reply.chunk()).await.unwrap().unwrap(), "ready\n");
    // The shell has printed, and may not have started `sleep` yet.
    session.run_elsewhere(&daemon, "until pgrep -f '^sleep 1001$'; do :; done").await;
    let path = session.path(&format!("/command/{id}/signal"));
    session.client.post(&path).json(json!({"signal": "NOPE"})).fails(400, "BAD_REQUEST").await;
    session.client.post(&path).json(json!({"signal": "INT"})).ok().await;
    assert_eq!(within(reply.chunk()).await.unwrap().unwrap(), "status 130\n");
    assert!(!gone(old), "an earlier command's job is left alone");
    assert_eq!(session.run("echo fine").await.1, "fine\n");
    session.client.post(&path).json(json!({"signal": "INT"})).fails(410, "COMMAND_ALREADY_COMPLETED").await;
    session.delete().await;
    assert!(gone(old));
}

impl Session {
    /// In a process of its own.
    async fn run_elsewhere(&self, daemon: &Daemon, command: &str) {
        daemon.client().post("/process/execute").json(json!({"command": command})).ok().await;
    }
}

#[tokio::test]
async fn delete_ends_everything_that_the_session_started() {
    let daemon = Daemon::start_with(|command| {
        command.args(["--termination-grace-period", "1s"]);
    })
    .await;
    let session = Session::create(&daemon, "s").await;
    let started = "sleep 1000 & echo $!
        setsid sleep 1000 & echo $!
        (setsid sh -c 'sleep 1000 & echo $!' &)
        sh -c 'trap \"\" TERM HUP; echo $$; exec sleep 1000' &
        echo $$";
    let id = session.start(&format!("{started}\nsleep 1000")).await;
    let path = session.path(&format!("/command/{id}/logs?follow=true"));
    let mut reply = session.client.get(&path).open().await;
    let mut text = String::new();
    while text.lines().count() < 5 {
        text.push_str(std::str::from_utf8(&within(reply.chunk()).await.unwrap().unwrap()).unwrap());
    }
    let pids: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    let waiting = {
        let call = session.exec(json!({"command": "echo never"}));
        tokio::spawn(call.fails(410, "SESSION_ENDED"))
    };
    session.run_elsewhere(&daemon, "true").await;
    session.delete().await;
    for pid in pids {
        assert!(gone(pid), "{pid} is still there");
    }
    waiting.await.unwrap();
    assert_eq!(within(reply.chunk()).await.unwrap(), None, "the stream has ended");
    session.client.get(&session.path("")).fails(404, "NOT_FOUND").await;
    session.client.delete(&session.path("")).fails(404, "NOT_FOUND").await;
    Session::create(&daemon, "s").await; // the id is free
}

#[tokio::test]
async fn a_synchronous_command_in_flight_is_told_that_its_session_was_deleted() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    make_fifo(&daemon.work().join("started"));
    let waiting = tokio::spawn(
        session.exec(json!({"command": "echo > started; sleep 1000"})).fails(410, "SESSION_ENDED"),
    );
    let started = daemon.work().join("started");
    tokio::task::spawn_blocking(move || std::fs::read(started)).await.unwrap().unwrap();
    session.delete().await;
    assert_eq!(waiting.await.unwrap(), "gone: session s was deleted");
}

#[tokio::test]
async fn names_are_checked_and_taken_once() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let create = |id: &str| client.post("/process/session").json(json!({"sessionId": id}));
    create("").fails(400, "INVALID_REQUEST_BODY").await;
    create("a\u{0}b").fails(400, "INVALID_REQUEST_BODY").await;
    create(&"x".repeat(257)).fails(400, "INVALID_REQUEST_BODY").await;
    client.post("/process/session").body("{").fails(400, "INVALID_REQUEST_BODY").await;
    let message = create("entrypoint").fails(400, "BAD_REQUEST").await;
    assert_eq!(message, "bad request: provided session ID is reserved and cannot be created/overridden");
    let odd = "../../x y/ü";
    create(odd).ok().await;
    create(odd).fails(409, "CONFLICT").await;
    assert_eq!(client.get("/process/session").ok().await.json(), json!([{"sessionId": odd, "commands": []}]));
    let path = format!(
        "/process/session/{}",
        percent_encoding::utf8_percent_encode(odd, percent_encoding::NON_ALPHANUMERIC)
    );
    client.get(&path).ok().await;
    client.delete(&path).ok().await;
    let racing = (0..20).map(|_| tokio::spawn(create("one").send()));
    let mut statuses = Vec::new();
    for call in racing.collect::<Vec<_>>() {
        statuses.push(call.await.unwrap().status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1], statuses[19]), (201, 409, 409));
}

#[tokio::test]
async fn unknown_things_and_bad_commands_are_told() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let client = &session.client;
    client.post("/process/session/nope/exec").json(json!({"command": "x"})).fails(404, "NOT_FOUND").await;
    client.get("/process/session/nope").fails(404, "NOT_FOUND").await;
    let message = client.get("/process/session/s/command/nope").fails(404, "NOT_FOUND").await;
    assert_eq!(message, "not found: command not found");
    client.get("/process/session/s/command/nope/logs").fails(404, "NOT_FOUND").await;
    client
        .get("/process/session/s/command/nope/logs")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .fails(404, "NOT_FOUND")
        .await;
    session.exec(json!({"command": " \n "})).fails(400, "BAD_REQUEST").await;
    session.exec(json!({})).fails(400, "BAD_REQUEST").await;
    client.post(&session.path("/exec")).body("nonsense").fails(400, "INVALID_REQUEST_BODY").await;
}

#[tokio::test]
async fn old_sdks_begin_at_home() {
    let daemon = Daemon::start().await;
    for (version, directory) in
        [("0.102.9", daemon.home()), ("0.103.0", daemon.work()), ("0.0.0-dev", daemon.work())]
    {
        let create = daemon.client().post("/process/session").header("x-daytona-sdk-version", version);
        create.json(json!({"sessionId": version})).ok().await;
        let session = Session { client: daemon.client(), id: version.to_owned() };
        assert_eq!(session.run("pwd").await.1, format!("{}\n", directory.display()));
    }
}

#[tokio::test]
async fn replies_have_the_shape_of_the_clients_generation() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let marked = "\u{1}\u{1}\u{1}out\n\u{2}\u{2}\u{2}err\n";
    for (version, output, stdout) in [
        (Some("0.226.1"), marked, json!("out\n")),
        (Some("unknown"), marked, json!("out\n")),
        (Some("0.150.0"), marked, Value::Null),
        (Some("0.26.0"), "out\nerr\n", Value::Null),
        (None, "out\nerr\n", Value::Null),
    ] {
        let mut exec = session.client.post(&session.path("/exec"));
        if let Some(version) = version {
            exec = exec.header("x-daytona-sdk-version", version);
        }
        let reply = exec.json(json!({"command": "echo out; sleep 0.05; echo err >&2"})).ok().await.json();
        assert_eq!((&reply["output"], &reply["stdout"]), (&json!(output), &stdout), "{version:?}");
        let id = reply["cmdId"].as_str().unwrap();
        let mut logs = session.client.get(&session.path(&format!("/command/{id}/logs")));
        if let Some(version) = version {
            logs = logs.header("x-daytona-sdk-version", version);
        }
        let logs = logs.ok().await;
        if stdout.is_null() {
            assert_eq!(
                (logs.text().as_str(), logs.header("content-type")),
                (output, "text/plain; charset=utf-8")
            );
        } else {
            assert_eq!(logs.json(), json!({"output": output, "stdout": "out\n", "stderr": "err\n"}));
        }
        assert_eq!(logs.header("x-log-offset"), "8");
    }
}

#[tokio::test]
async fn a_retried_call_runs_its_command_once() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let create =
        || client.post("/process/session").header("idempotency-key", "c").json(json!({"sessionId": "s"}));
    create().ok().await;
    create().ok().await;
    let session = Session { client: client.clone(), id: "s".into() };
    let exec = |text: &str| session.exec(json!({"command": text})).header("idempotency-key", "e");
    let first = exec("echo run >> runs; echo $RANDOM").ok().await.json();
    assert_eq!(exec("echo run >> runs; echo $RANDOM").ok().await.json(), first);
    assert_eq!(std::fs::read_to_string(daemon.work().join("runs")).unwrap(), "run\n");
    exec("echo other").fails(409, "CONFLICT").await;
}

#[tokio::test]
async fn detail_is_told_when_asked_for() {
    let daemon = Daemon::start().await;
    let session = Session::create(&daemon, "s").await;
    let reply = session.exec(json!({"command": "echo 12345"})).ok().await.json();
    let path = session.path(&format!("/command/{}", reply["cmdId"].as_str().unwrap()));
    let detail = session.client.get(&path).query("detail", "true").ok().await.json()["detail"].clone();
    assert_eq!(
        (&detail["state"], &detail["outputBytes"], &detail["droppedBytes"]),
        (&json!("exited"), &json!(6), &json!(0))
    );
    assert!(session.client.get(&path).ok().await.json()["detail"].is_null());
}

#[tokio::test]
async fn many_sessions_at_a_time_each_get_their_own_answers_and_leave_nothing() {
    let daemon = Daemon::start_as_pid_1(|_| {}).await;
    let descriptors = async || {
        let body = json!({"command": "ls /proc/$PPID/fd | wc -l"});
        let reply = daemon.client().post("/process/execute").json(body).ok().await.json();
        reply["result"].as_str().unwrap().trim().parse::<u32>().unwrap()
    };
    let client = daemon.client(); // its connections stay open, and are counted before and after
    let round = async |sessions: usize, commands: usize| {
        let sessions = (0..sessions).map(|index| {
            let session = Session { client: client.clone(), id: format!("s{index}") };
            tokio::spawn(async move {
                let body = json!({"sessionId": session.id});
                session.client.post("/process/session").json(body).ok().await;
                for command in 0..commands as i64 {
                    let text = format!("n=$((n + 1)); echo {index}-$n; (exit {})", command % 256);
                    assert_eq!(
                        session.run(&text).await,
                        out(command % 256, &format!("{index}-{}\n", command + 1))
                    );
                }
                session.delete().await;
            })
        });
        for session in sessions.collect::<Vec<_>>() {
            session.await.unwrap();
        }
    };
    round(200, 1).await;
    let before = descriptors().await;
    round(200, 50).await;
    let after = descriptors().await;
    assert!(after <= before + 16, "{before} descriptors, then {after}");
    assert_eq!(client.get("/process/session").ok().await.json(), json!([]));
}

#[tokio::test]
async fn a_flood_of_output_leaves_memory_alone_and_other_sessions_quick() {
    let daemon = Daemon::start().await;
    let (flooded, quick) =
        (Session::create(&daemon, "flooded").await, Session::create(&daemon, "quick").await);
    quick.run("true").await;
    let before = daemon.peak_memory();
    let id = flooded.start("head -c 300000000 /dev/zero").await;
    let mut slowest = Duration::ZERO;
    while flooded.exit_code(&id).await.is_none() {
        let began = std::time::Instant::now();
        assert_eq!(quick.run("echo quick").await, out(0, "quick\n"));
        slowest = slowest.max(began.elapsed());
    }
    let grown = daemon.peak_memory() - before;
    assert!(grown < 32 << 20, "{grown} bytes more at the peak");
    let detail = flooded.client.get(&flooded.path(&format!("/command/{id}?detail=true"))).ok().await.json();
    assert_eq!(detail["detail"]["outputBytes"], 300_000_000);
    assert!(detail["detail"]["droppedBytes"].as_u64().unwrap() > 200_000_000);
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[tokio::test]
async fn without_proc_commands_run_and_sessions_say_what_they_need() {
    let script = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    let daemon = Daemon::start_under(&["unshare", "--mount", "sh", "-c", script], |command| {
        // With a platform around it: stand-alone, /proc tells whose connections are served.
        command.env("DAYTONA_SANDBOX_ID", "box");
    })
    .await;
    let client = daemon.client();
    let create = client.post("/process/session").json(json!({"sessionId": "s"}));
    let message = create.fails(503, "SERVICE_UNAVAILABLE").await;
    assert_eq!(message, "sessions need /proc, which cannot be used here: no such file or directory");
    client.get("/process/session/s").fails(404, "NOT_FOUND").await;
    let execute = client.post("/process/execute").json(json!({"command": "echo fine; exit 3"}));
    assert_eq!(execute.ok().await.json(), json!({"exitCode": 3, "result": "fine\n"}));
    let body = json!({"command": "sleep 1000", "timeout": 1});
    client.post("/process/execute").json(body).fails(408, "PROCESS_EXECUTION_TIMEOUT").await;
}

/// Stands before a daemon and cuts the connection instead of passing a request's reply on, the first time that it is
/// made; later ones pass.
async fn lossy_proxy(daemon: &Daemon) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, upstream) = (listener.local_addr().unwrap(), daemon.address);
    tokio::spawn(async move {
        let mut lost = std::collections::HashSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            // A request ends with its JSON body here.
            while !request.ends_with(b"}") {
                let count = client.read(&mut buffer).await.unwrap();
                assert!(count > 0);
                request.extend(&buffer[..count]);
            }
            let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
            server.write_all(&request).await.unwrap();
            let count = server.read(&mut buffer).await.unwrap(); // the work is done
            if lost.insert(request) {
                continue;
            }
            client.write_all(&buffer[..count]).await.unwrap();
            client.shutdown().await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn behind_a_proxy_that_loses_every_reply_once_each_command_runs_once() {
    let daemon = Daemon::start().await;
    let client = Client::new(lossy_proxy(&daemon).await);
    let retried = async |path: &str, key: &str, body: Value| {
        loop {
            let call = client.post(path).header("idempotency-key", key).json(body.clone());
            if let Ok(reply) = call.try_send().await {
                assert!(reply.status().is_success(), "{}", reply.status());
                return within(reply.text()).await.unwrap();
            }
        }
    };
    for round in 0..5 {
        let (id, run) = (format!("s{round}"), "echo $((n = n + 1)) >> runs; echo $n");
        retried("/process/session", &format!("create {round}"), json!({"sessionId": id})).await;
        for command in 1..4 {
            let path = format!("/process/session/{id}/exec");
            let reply = retried(&path, &format!("exec {round} {command}"), json!({"command": run})).await;
            assert!(reply.contains(&format!("\"{command}\\n\"")), "{reply}");
        }
        let reply =
            retried("/process/execute", &format!("run {round}"), json!({"command": "echo 1 >> runs"})).await;
        assert_eq!(reply, "{\"exitCode\":0,\"result\":\"\"}");
    }
    assert_eq!(std::fs::read_to_string(daemon.work().join("runs")).unwrap().lines().count(), 5 * 4);
}
