//! Python that keeps its state between runs.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, Socket, gone, held_pipe, make_fifo, pid_in, python_path, within};

async fn start() -> Daemon {
    Daemon::start_with(|command| {
        command.env("PATH", python_path());
    })
    .await
}

/// What came of a run.
#[derive(Debug, Default)]
struct Ran {
    out: String,
    err: String,
    error: Option<Value>,
    data: Option<Value>,
    /// Whether the code has ended by itself.
    completed: bool,
    code: u16,
    reason: String,
}

impl Ran {
    /// Wants a run without an error.
    fn ok(self) -> String {
        assert!(self.completed && self.code == 1000 && self.error.is_none(), "{self:?}");
        self.out
    }

    fn error(&self, member: &str) -> &str {
        let error = self.error.as_ref().unwrap_or_else(|| panic!("no error: {self:?}"));
        error[member].as_str().unwrap()
    }
}

async fn begin(client: &Client, request: Value) -> Socket {
    let mut socket = client.socket("/process/interpreter/execute").await;
    socket.send_json(&request).await;
    socket
}

/// Everything up to the close.
async fn finish(mut socket: Socket) -> Ran {
    let mut ran = Ran::default();
    loop {
        let frame: Value = match socket.next().await {
            Ok(message) => serde_json::from_str(message.to_text().unwrap()).unwrap(),
            Err(code) => {
                (ran.code, ran.reason) = (code, socket.reason.clone());
                return ran;
            }
        };
        assert!(!ran.completed, "nothing follows the completion: {frame}");
        match frame["type"].as_str().unwrap() {
            "stdout" => ran.out += frame["text"].as_str().unwrap(),
            "stderr" => ran.err += frame["text"].as_str().unwrap(),
            "error" => assert_eq!(ran.error.replace(frame), None),
            "result" => ran.data = Some(frame["data"].clone()),
            "control" => {
                assert_eq!(frame["text"], "completed");
                ran.completed = true;
            }
            other => panic!("{other}"),
        }
    }
}

async fn run(client: &Client, request: Value) -> Ran {
    finish(begin(client, request).await).await
}

async fn code(client: &Client, code: &str) -> Ran {
    run(client, json!({"code": code})).await
}

/// Waits for the text of a frame of this type.
async fn wait_for(socket: &mut Socket, kind: &str) -> String {
    loop {
        let frame = socket.json().await;
        if frame["type"] == kind {
            return frame["text"].as_str().unwrap().to_owned();
        }
    }
}

async fn create(client: &Client, body: Value) -> Value {
    client.post("/process/interpreter/context").json(body).ok().await.json()
}

async fn id_of_new(client: &Client) -> String {
    create(client, json!({})).await["id"].as_str().unwrap().to_owned()
}

async fn list(client: &Client) -> Vec<Value> {
    let contexts = client.get("/process/interpreter/context").ok().await.json();
    contexts["contexts"].as_array().unwrap().clone()
}

#[tokio::test]
async fn frames_have_all_members_and_come_in_order() {
    let daemon = start().await;
    let mut socket = begin(&daemon.client(), json!({"code": "print('a')\n1/0", "timeout": 10})).await;
    let text = json!({"type": "stdout", "text": "a\n", "name": "", "value": "", "traceback": ""});
    assert_eq!(socket.json().await, text);
    let error = socket.json().await;
    assert_eq!((&error["type"], &error["text"]), (&json!("error"), &json!("")));
    assert_eq!((&error["name"], &error["value"]), (&json!("ZeroDivisionError"), &json!("division by zero")));
    let traceback = error["traceback"].as_str().unwrap();
    assert!(
        traceback
            .starts_with("Traceback (most recent call last):\n  File \"<stdin>\", line 2, in <module>\n")
    );
    assert!(traceback.ends_with("\nZeroDivisionError: division by zero\n"), "{traceback}");
    let control = json!({"type": "control", "text": "completed", "name": "", "value": "", "traceback": ""});
    assert_eq!(socket.json().await, control);
    assert_eq!(socket.closed().await, 1000);
    assert_eq!(socket.reason, "");
}

#[tokio::test]
async fn state_is_shared_by_the_runs_of_a_context_and_by_no_others() {
    let daemon = start().await;
    let client = daemon.client();
    assert_eq!(code(&client, "x = 5\nimport os").await.ok(), "");
    assert_eq!(
        run(&client, json!({"code": "print(x, __name__)", "contextId": "default"})).await.ok(),
        "5 __main__\n"
    );
    std::fs::create_dir(daemon.work().join("sub")).unwrap();
    let context = create(&client, json!({"cwd": "sub", "language": null})).await;
    assert_eq!(context["cwd"], "sub");
    assert_eq!((&context["language"], &context["active"]), (&json!("python"), &json!(true)));
    assert!(context["createdAt"].as_str().unwrap().ends_with('Z'));
    let id = &context["id"];
    let other = run(&client, json!({"code": "import os; print(os.getcwd()); x", "contextId": id})).await;
    assert_eq!(other.out, format!("{}\n", daemon.work().join("sub").display()));
    assert_eq!(other.error("name"), "NameError");
    let names = code(&client, "print(sorted(name for name in globals() if name[:2] != '__'))").await.ok();
    assert_eq!(names, "['os', 'x']\n");
}

#[tokio::test]
async fn contexts_are_listed_and_deleted() {
    let daemon = start().await;
    let client = daemon.client();
    assert_eq!(list(&client).await, Vec::<Value>::new());
    let (first, second) = (create(&client, json!({})).await, create(&client, json!({"cwd": ""})).await);
    assert_eq!(first["cwd"], daemon.work().to_str().unwrap());
    assert_eq!(list(&client).await, [first.clone(), second.clone()]);
    let id = first["id"].as_str().unwrap();
    let path = format!("/process/interpreter/context/{id}");
    assert_eq!(client.delete(&path).ok().await.json(), json!({"message": "Context deleted successfully"}));
    assert_eq!(list(&client).await, [second]);
    let message = client.delete(&path).fails(404, "NOT_FOUND").await;
    assert!(message.contains(&format!("context with ID '{id}' not found")), "{message}");
    let message = client.delete("/process/interpreter/context/default").fails(400, "BAD_REQUEST").await;
    assert!(message.contains("cannot delete default context"));
    let ran = run(&client, json!({"code": "1", "contextId": id})).await;
    assert_eq!((ran.code, ran.reason), (1008, format!("context not found: {id}")));
}

#[tokio::test]
async fn contexts_that_cannot_be_made_say_why() {
    let daemon = start().await;
    let client = daemon.client();
    let post = || client.post("/process/interpreter/context");
    post().fails(400, "INVALID_REQUEST_BODY").await;
    post().body("{").fails(400, "INVALID_REQUEST_BODY").await;
    for language in ["ruby", ""] {
        let message = post().json(json!({"language": language})).fails(400, "BAD_REQUEST").await;
        assert!(message.contains("python") && message.contains(language), "{message}");
    }
    let message = post().json(json!({"cwd": "/no/such"})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert!(message.contains("chdir /no/such: no such file or directory"), "{message}");
    assert_eq!(list(&client).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_repeated_create_makes_one_context() {
    let daemon = start().await;
    let client = daemon.client();
    let post = || client.post("/process/interpreter/context").header("idempotency-key", "k").json(json!({}));
    assert_eq!(post().ok().await.json(), post().ok().await.json());
    assert_eq!(list(&client).await.len(), 1);
}

#[tokio::test]
async fn an_image_without_python_is_told() {
    let daemon = Daemon::start_with(|command| {
        command.env("PATH", "/no/such");
    })
    .await;
    let client = daemon.client();
    let message =
        client.post("/process/interpreter/context").json(json!({})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert!(message.ends_with("fork/exec python3: no such file or directory"), "{message}");
    let ran = code(&client, "1").await;
    assert_eq!(ran.code, 1011);
    assert_eq!(ran.reason, "failed to get default context: fork/exec python3: no such file or directory");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_closed() {
    let daemon = start().await;
    let client = daemon.client();
    for (request, code, reason) in [
        (json!({"code": "1", "timeout": 1.5}), 1002, "invalid JSON payload"),
        (json!({"code": "1", "envs": {"A": null}}), 1002, "invalid JSON payload"),
        (json!("text"), 1002, "invalid JSON payload"),
        (json!({"code": ""}), 1008, "code is required"),
        (json!({"code": "1", "timeout": -1}), 1008, "timeout must be greater than or equal to 0"),
        (json!({"code": "1", "contextId": "none"}), 1008, "context not found: none"),
        (json!({"code": "1", "envs": {"A-B": "1"}}), 1008, "invalid environment variable name: 'A-B'"),
    ] {
        let ran = run(&client, request).await;
        assert_eq!((ran.code, ran.reason.as_str()), (code, reason));
    }
    let reply = client.get("/process/interpreter/execute").send().await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn whoever_prints_is_heard() {
    let daemon = start().await;
    let client = daemon.client();
    let ran = code(&client, "import os, sys, subprocess\nos.system('echo sub; echo err >&2')\nsubprocess.run(['echo', 'popen'])\nos.write(1, b'raw\\n'); sys.stdout.buffer.write(b'buffer\\n'); print('bad \\ud800\\udcff', b'\\xff')\nos.write(1, b'\\xff\\n')").await;
    assert_eq!(ran.out, "sub\npopen\nraw\nbuffer\nbad \u{FFFD}\u{FFFD} b'\\xff'\n\u{FFFD}\n");
    assert_eq!(ran.err, "err\n");
    let forked = code(&client, "pid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('both')").await.ok();
    assert_eq!(forked, "both\nboth\n");
    let child = "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print, args=('child',)).start()\nfor c in multiprocessing.active_children(): c.join()";
    assert_eq!(code(&client, child).await.ok(), "child\n");
}

#[tokio::test]
async fn the_beginning_of_a_line_is_told_before_its_end() {
    let daemon = start().await;
    make_fifo(&daemon.work().join("go"));
    let request = json!({"code": "print('name: ', end='')\nopen('go').read()\nprint('x')"});
    let mut socket = begin(&daemon.client(), request).await;
    assert_eq!(wait_for(&mut socket, "stdout").await, "name: ");
    std::fs::write(daemon.work().join("go"), "").unwrap();
    assert_eq!(finish(socket).await.ok(), "x\n");
}

#[tokio::test]
async fn nothing_can_be_read_and_no_run_spoils_the_next() {
    let daemon = start().await;
    let client = daemon.client();
    assert_eq!(code(&client, "try: input()\nexcept EOFError: print('end')").await.ok(), "end\n");
    let spoil = "import os, sys, signal\nsys.stdout = None\nsys.stderr.close()\nos.close(1)\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nexit()";
    assert_eq!(code(&client, spoil).await.ok(), "");
    let ran = code(
        &client,
        "print('out'); print('err', file=sys.stderr)\ntry: input()\nexcept EOFError: print('end')",
    )
    .await;
    assert_eq!((ran.err.as_str(), ran.out.as_str()), ("err\n", "out\nend\n"));
    // Also after that run an interrupt arrives.
    assert_eq!(run(&client, json!({"code": "while True: pass", "timeout": 1})).await.code, 4008);
    assert_eq!(code(&client, "print(os.getpid() > 0)").await.ok(), "True\n");
}

#[tokio::test]
async fn errors_are_told_with_the_users_frames() {
    let daemon = start().await;
    let client = daemon.client();
    std::fs::write(daemon.work().join("mine.py"), "import json\ndef load():\n    return json.loads('{')\n")
        .unwrap();
    assert_eq!(code(&client, "def f(n):\n    return n / 0").await.ok(), "");
    let ran = code(
        &client,
        "# a comment\ntry:\n    f(1)\nexcept Exception as cause:\n    raise KeyError('k') from cause",
    )
    .await;
    assert_eq!(
        (ran.code, ran.completed, ran.error("name"), ran.error("value")),
        (1000, true, "KeyError", "'k'")
    );
    let told = ran.error("traceback");
    assert!(told.contains("  File \"<stdin>\", line 2, in f\n    return n / 0\n"), "{told}");
    assert!(told.contains("direct cause of the following exception"), "{told}");
    assert!(
        told.contains("  File \"<stdin>\", line 5, in <module>\n    raise KeyError('k') from cause\n"),
        "{told}"
    );
    let ran = code(&client, "import mine\nmine.load()").await;
    let told = ran.error("traceback");
    assert!(told.contains("mine.py\", line 3, in load") && !told.contains("decoder.py"), "{told}");
    let ran = code(&client, "x = 1\nfoo bar").await;
    assert_eq!((ran.error("name"), ran.error("value")), ("SyntaxError", "invalid syntax (<stdin>, line 2)"));
    assert!(ran.error("traceback").contains("  File \"<stdin>\", line 2\n    foo bar\n"), "{ran:?}");
    for (snippet, name) in [
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Odd(BaseException): pass\nraise Odd('x' * 100000)", "Odd"),
        ("class Bad(Exception):\n    def __str__(self): raise ValueError\nraise Bad", "Bad"),
        ("def r(): r()\nr()", "RecursionError"),
    ] {
        let ran = code(&client, snippet).await;
        assert_eq!((ran.code, ran.completed, ran.error("name")), (1000, true, name));
        assert!(ran.error("value").len() < 10_000);
    }
    for snippet in ["raise SystemExit(3)", "import sys; sys.exit('bye')", "exit()"] {
        assert_eq!(code(&client, snippet).await.ok(), "");
    }
}

#[tokio::test]
async fn the_namespace_is_a_real_main_module() {
    let daemon = start().await;
    let client = daemon.client();
    let code_text = "import pickle, inspect, sys\nclass Point:\n    x = 1\nprint(pickle.loads(pickle.dumps(Point())).x, sys.modules['__main__'].Point is Point)\ndef f():\n    return 1\nprint(inspect.getsource(f).splitlines()[1])";
    assert_eq!(code(&client, code_text).await.ok(), "1 True\n    return 1\n");
    let pool = "import concurrent.futures, multiprocessing\ndef double(n): return 2 * n\nwith concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context('fork')) as pool: print(list(pool.map(double, [1, 2])))";
    assert_eq!(code(&client, pool).await.ok(), "[2, 4]\n");
    assert_eq!(
        code(&client, "import asyncio\nasync def f(): return 3\nprint(asyncio.run(f()))").await.ok(),
        "3\n"
    );
    let descriptors =
        "import os\nprint(os.open('/dev/null', os.O_RDONLY))\nos.closerange(3, 256)\nprint('still here')";
    assert_eq!(code(&client, descriptors).await.ok(), "3\nstill here\n");
}

#[tokio::test]
async fn variables_of_a_run_are_gone_after_it() {
    let daemon = Daemon::start_with(|command| {
        command.env("PATH", python_path()).env("KEPT", "old");
    })
    .await;
    let client = daemon.client();
    let show = "import os; print(os.environ.get('KEPT'), os.environ.get('NEW')); os.system('echo $NEW')\n1/0";
    let ran = run(&client, json!({"code": show, "envs": {"KEPT": "1", "NEW": "2"}})).await;
    assert_eq!(ran.out, "1 2\n2\n");
    assert_eq!(code(&client, "print(os.environ['KEPT'], os.environ.get('NEW'))").await.ok(), "old None\n");
}

#[tokio::test]
async fn an_endless_loop_ends_in_time_and_keeps_its_state() {
    let daemon = start().await;
    let client = daemon.client();
    let ran = run(&client, json!({"code": "x = 7\nprint('on')\nwhile True: pass", "timeout": 1})).await;
    assert_eq!((ran.out.as_str(), ran.completed, ran.code, ran.reason.as_str()), ("on\n", false, 4008, ""));
    assert!(ran.error.is_none());
    assert_eq!(code(&client, "print(x)").await.ok(), "7\n");
    let ran = run(&client, json!({"code": "import os\nos.system('sleep 100')", "timeout": 1})).await;
    assert_eq!(ran.code, 4008);
    assert_eq!(code(&client, "print(x)").await.ok(), "7\n");
}

#[tokio::test]
async fn code_that_does_not_give_up_is_killed_and_the_next_run_is_told() {
    let daemon = start().await;
    let client = daemon.client();
    let id = id_of_new(&client).await;
    let stubborn = "import subprocess, time\nprint(subprocess.Popen(['setsid', 'sleep', '1000']).pid)\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n    except BaseException: pass";
    let ran = run(&client, json!({"code": stubborn, "timeout": 1, "contextId": id})).await;
    assert_eq!((ran.code, ran.completed), (4008, false));
    let pid = pid_in(&ran.out);
    within(async {
        while !gone(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(list(&client).await[0]["active"], false);
    let ran = run(&client, json!({"code": "print('new', 'subprocess' in globals())", "contextId": id})).await;
    assert!(ran.err.contains("the state of this context was lost"), "{ran:?}");
    assert_eq!(ran.ok(), "new False\n");
    assert_eq!(list(&client).await[0]["active"], true);
    assert_eq!(run(&client, json!({"code": "print(1)", "contextId": id})).await.err, "");
}

#[tokio::test]
async fn processes_that_fork_without_end_are_stopped_with_the_run() {
    let daemon = start().await;
    let client = daemon.client();
    for always in ["", "os.setsid()"] {
        let held = daemon.work().join("held");
        let closed = held_pipe(&held);
        // A process that is another one every moment: never two at a time, or the machine would suffer.
        let hop = format!(
            "import os, time, signal\nx = 1\nif os.fork() == 0:\n    os.setsid()\n    \
             signal.signal(signal.SIGINT, signal.SIG_IGN)\n    held = os.open('held', os.O_WRONLY)\n    \
             while True:\n        if os.fork(): os._exit(0)\n        {always}\n        os.write(held, b'.')\n\
             time.sleep(1000)"
        );
        let ran = run(&client, json!({"code": hop, "timeout": 1})).await;
        assert_eq!(ran.code, 4008);
        assert_eq!(code(&client, "print(x)").await.ok(), "1\n");
        let hops = within(closed).await.unwrap(); // nobody has the pipe open
        assert!(hops > 0);
        std::fs::remove_file(held).unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_dies_is_told_honestly_and_others_go_on() {
    let daemon = start().await;
    let client = daemon.client();
    let id = id_of_new(&client).await;
    for (snippet, ending) in [
        ("print('last'); import os; os._exit(3)", "exited with code 3"),
        ("print('last'); import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("print('last'); import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
    ] {
        let ran = run(&client, json!({"code": snippet, "contextId": id})).await;
        assert_eq!((ran.code, ran.reason.as_str()), (1011, "worker process ended"));
        assert_eq!(
            (ran.out.as_str(), ran.completed, ran.error("name")),
            ("last\n", false, "WorkerProcessError")
        );
        assert_eq!(ran.error("value"), format!("the Python worker {ending}"));
        assert_eq!(list(&client).await[0]["active"], false);
        let ran = run(&client, json!({"code": "1", "contextId": id})).await;
        assert!(ran.err.contains(ending), "{ran:?}");
    }
    // What it leaves behind ends too.
    let parent =
        "import os, subprocess\nprint(subprocess.Popen(['setsid', 'sleep', '1000']).pid)\nos._exit(3)";
    let ran = run(&client, json!({"code": parent, "contextId": id})).await;
    assert_eq!(ran.code, 1011);
    within(async {
        while !gone(pid_in(&ran.out)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    run(&client, json!({"code": "1", "contextId": id})).await.ok();
    // One that dies while nothing runs.
    let later =
        "import os, threading\nthreading.Thread(target=lambda: (open('go').read(), os._exit(4))).start()";
    make_fifo(&daemon.work().join("go"));
    assert_eq!(run(&client, json!({"code": later, "contextId": id})).await.ok(), "");
    std::fs::write(daemon.work().join("go"), "").unwrap();
    within(async { while list(&client).await[0]["active"] == true {} }).await;
    let ran = run(&client, json!({"code": "print(1)", "contextId": id})).await;
    assert!(ran.err.contains("exited with code 4"), "{ran:?}");
    assert_eq!(code(&client, "print('fine')").await.ok(), "fine\n");
}

#[tokio::test]
async fn runs_of_a_context_wait_for_each_other_and_those_of_two_do_not() {
    let daemon = start().await;
    let client = daemon.client();
    for name in ["there", "back"] {
        make_fifo(&daemon.work().join(name));
    }
    let id = id_of_new(&client).await;
    let first = begin(
        &client,
        json!({"code": "open('there', 'w').write('x')\nprint(open('back').read())", "contextId": id}),
    )
    .await;
    let second = begin(&client, json!({"code": "print('second')", "contextId": id})).await;
    // Each waits for the other: they have to run at the same time.
    assert_eq!(code(&client, "print(open('there').read())\nopen('back', 'w').write('y')").await.ok(), "x\n");
    assert_eq!(finish(first).await.ok(), "y\n");
    assert_eq!(finish(second).await.ok(), "second\n");
}

#[tokio::test]
async fn whoever_waits_is_answered_and_whoever_leaves_is_not_run() {
    let daemon = start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("go"));
    let mut first = begin(&client, json!({"code": "print('on', flush=True)\nopen('go').read()"})).await;
    assert_eq!(wait_for(&mut first, "stdout").await, "on\n");
    let mut leaves = begin(&client, json!({"code": "open('ran', 'w')"})).await;
    let mut interrupted = begin(&client, json!({"code": "open('ran', 'w')"})).await;
    leaves.ping().await;
    drop(leaves);
    interrupted.send_json(&json!({"type": "interrupt"})).await;
    let ran = finish(interrupted).await;
    assert_eq!((ran.error("name"), ran.completed, ran.code), ("KeyboardInterrupt", true, 1000));
    let mut last = begin(&client, json!({"code": "print('last')"})).await;
    last.ping().await;
    std::fs::write(daemon.work().join("go"), "").unwrap();
    assert_eq!(finish(first).await.ok(), "");
    assert_eq!(finish(last).await.ok(), "last\n");
    assert!(!daemon.work().join("ran").exists());
}

#[tokio::test]
async fn a_context_is_deleted_with_all_its_runs() {
    let daemon = start().await;
    let client = daemon.client();
    let id = id_of_new(&client).await;
    let request = |code: &str| json!({"code": code, "contextId": id});
    let stubborn = "import signal, os, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpid(), flush=True)\nwhile True: pass";
    let mut first = begin(&client, request(stubborn)).await;
    let pid = pid_in(&wait_for(&mut first, "stdout").await);
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut socket = begin(&client, request("open('ran', 'w')")).await;
        // The answer to the first says that the request was read, that to the second that it waits.
        socket.ping().await;
        socket.ping().await;
        waiting.push(socket);
    }
    client.delete(&format!("/process/interpreter/context/{id}")).ok().await;
    assert!(gone(pid));
    for socket in [vec![first], waiting].concat_all() {
        let ran = finish(socket).await;
        assert_eq!((ran.code, ran.reason.as_str(), ran.completed), (1001, "context shutdown", false));
    }
    assert!(!daemon.work().join("ran").exists());
    assert_eq!(code(&client, "print('fine')").await.ok(), "fine\n");
}

/// Puts vectors of what cannot be cloned together.
trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}

impl<T, const N: usize> ConcatAll<T> for [Vec<T>; N] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn code_can_be_interrupted_by_its_client() {
    let daemon = start().await;
    let client = daemon.client();
    let mut socket =
        begin(&client, json!({"code": "x = 2\nprint('on', flush=True)\nimport time\ntime.sleep(1000)"}))
            .await;
    assert_eq!(wait_for(&mut socket, "stdout").await, "on\n");
    socket.send_json(&json!({"type": "something else"})).await;
    socket.send_json(&json!({"type": "interrupt"})).await;
    let ran = finish(socket).await;
    assert_eq!((ran.error("name"), ran.completed, ran.code), ("KeyboardInterrupt", true, 1000));
    assert_eq!(code(&client, "print(x)").await.ok(), "2\n");
}

#[tokio::test]
async fn a_run_goes_on_without_its_client_unless_that_wants_otherwise() {
    let daemon = start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("go"));
    let wait = "try:\n    print('on', flush=True)\n    open('go').read()\n    end = 'read'\nexcept KeyboardInterrupt:\n    end = 'interrupted'";
    let mut socket = begin(&client, json!({"code": wait})).await;
    wait_for(&mut socket, "stdout").await;
    drop(socket);
    std::fs::write(daemon.work().join("go"), "").unwrap();
    assert_eq!(code(&client, "print(end)").await.ok(), "read\n");
    let mut socket = begin(&client, json!({"code": wait, "interruptOnDisconnect": true})).await;
    wait_for(&mut socket, "stdout").await;
    drop(socket);
    assert_eq!(code(&client, "print(end)").await.ok(), "interrupted\n");
    // Also before the code has begun, and without an effect on the next run.
    for _ in 0..20 {
        let mut socket = begin(&client, json!({"code": "import time\ntime.sleep(1000)"})).await;
        socket.send_json(&json!({"type": "interrupt"})).await;
        assert_eq!(finish(socket).await.error("name"), "KeyboardInterrupt");
        assert_eq!(code(&client, "print(sum(range(1000)))").await.ok(), "499500\n");
    }
}

#[tokio::test]
async fn values_are_told_where_it_is_asked_for() {
    let daemon = start().await;
    let client = daemon.client();
    let rich = |code: &str| run(&client, json!({"code": code, "rich": true}));
    let ran = rich("x = [1, 2]\nx").await;
    assert_eq!(ran.data, Some(json!({"text/plain": "[1, 2]", "application/json": [1, 2]})));
    ran.ok();
    for nothing in ["x = 1", "None", "print(5)", "# only a comment", ""] {
        if !nothing.is_empty() {
            assert_eq!(rich(nothing).await.data, None, "{nothing}");
        }
    }
    assert_eq!(run(&client, json!({"code": "x"})).await.data, None);
    let table = rich("import pandas\npandas.DataFrame({'a': [1]})").await.data.unwrap();
    assert!(table["text/html"].as_str().unwrap().contains("<table"), "{table}");
    let figure = rich("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.gcf()").await.data.unwrap();
    assert!(figure["image/png"].as_str().unwrap().starts_with("iVBOR"), "{figure}");
    let large = rich("class Large:\n    def _repr_html_(self): return 'x' * 5000000\n    def __repr__(self): return 'large'\nLarge()").await;
    assert_eq!(large.data, Some(json!({"text/plain": "large"})));
    let ran = rich("1/0").await;
    assert_eq!((ran.error("name"), ran.data.is_none()), ("ZeroDivisionError", true));
}

#[tokio::test]
async fn any_amount_of_output_arrives_and_none_of_it_is_kept() {
    let daemon = start().await;
    let client = daemon.client();
    assert_eq!(code(&client, "print('warm')").await.ok(), "warm\n");
    let before = daemon.peak_memory();
    let request = json!({"code": "line = 'x' * 999\nfor _ in range(200): print('\\n'.join([line] * 1000))"});
    let mut socket = begin(&client, request).await;
    let mut bytes = 0;
    loop {
        let frame = socket.next().await.unwrap();
        let frame: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
        if frame["type"] == "control" {
            break;
        }
        bytes += frame["text"].as_str().unwrap().len();
    }
    assert_eq!(bytes, 200 * 1000 * 1000);
    assert_eq!(socket.closed().await, 1000);
    let grown = daemon.peak_memory() - before;
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes for 200 MB of output");
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_only_its_own_run() {
    let daemon = start().await;
    let client = daemon.client();
    let id = id_of_new(&client).await;
    let much = json!({"code": "for _ in range(30000): print('x' * 999)", "contextId": id});
    let mut slow = begin(&client, much).await;
    wait_for(&mut slow, "stdout").await;
    assert_eq!(code(&client, "print('fast')").await.ok(), "fast\n");
    assert!(finish(slow).await.ok().len() >= 29_000_000);
}

#[tokio::test]
async fn background_output_waits_for_nobody_between_runs() {
    let daemon = start().await;
    let client = daemon.client();
    make_fifo(&daemon.work().join("done"));
    // More than pipes hold.
    let background = "import threading, os\ndef print_much():\n    os.write(1, b'x' * 3000000)\n    open('done', 'w').write('!')\nthreading.Thread(target=print_much).start()";
    code(&client, background).await.ok();
    let path = daemon.work().join("done");
    let done =
        within(tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap())).await.unwrap();
    assert_eq!(done, "!");
    assert_eq!(code(&client, "print('clean')").await.ok(), "clean\n");
}

#[tokio::test]
async fn the_daemon_stops_with_its_workers() {
    let mut daemon = start().await;
    let client = daemon.client();
    let mut socket =
        begin(&client, json!({"code": "import os\nprint(os.getpid(), flush=True)\nwhile True: pass"})).await;
    let pid = pid_in(&wait_for(&mut socket, "stdout").await);
    daemon.signal("TERM").await;
    assert_eq!(finish(socket).await.code, 1001);
    assert!(daemon.exited().await.success());
    assert!(gone(pid));
}
