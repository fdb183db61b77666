//! Programs of some language, bounded time, collected output, charts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Call, Client, Daemon, NODE_MODULES, gone, pid_in, python_path, within};

const URL: &str = "/process/code-run";

async fn start() -> Daemon {
    Daemon::start_with(|command| {
        command.env("PATH", python_path());
    })
    .await
}

fn post(client: &Client, body: Value) -> Call {
    client.post(URL).json(body)
}

async fn run(client: &Client, language: &str, code: &str, more: Value) -> Value {
    let mut body = json!({"code": code, "language": language});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(client, body).ok().await.json()
}

async fn python(client: &Client, code: &str) -> Value {
    run(client, "python", code, json!({})).await
}

fn program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Arguments that a shell would change.
const ARGV: [&str; 7] = ["a b", "", "$HOME", "'\"", "*", "-x", "é\n;"];

#[tokio::test]
async fn python_programs_are_main_and_their_arguments_are_exact() {
    let daemon = start().await;
    let client = daemon.client();
    let reply = post(&client, json!({"code": "print(6 * 7)", "language": "python"})).ok().await;
    assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(reply.json(), json!({"exitCode": 0, "result": "42\n"}));
    let argv = "import sys, json\nprint(json.dumps(sys.argv))";
    let reply = run(&client, "python", argv, json!({"argv": ARGV})).await;
    let expected: Vec<&str> = ["-"].into_iter().chain(ARGV).collect();
    assert_eq!(serde_json::from_str::<Value>(reply["result"].as_str().unwrap()).unwrap(), json!(expected));
    let names = "print(__name__, '__file__' in globals(), [name for name in globals() if name[:2] != '__'])";
    assert_eq!(python(&client, names).await["result"], "__main__ False []\n");
    let pickled = "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)";
    assert_eq!(python(&client, pickled).await["result"], "True\n");
    let surroundings = "import os\nprint(os.getcwd(), os.environ['GREETING'], os.open('/dev/null', 0))";
    let reply = run(&client, "python", surroundings, json!({"envs": {"GREETING": "h'i $x"}})).await;
    assert_eq!(reply["result"], format!("{} h'i $x 3\n", daemon.work().display()));
}

#[tokio::test]
async fn python_programs_end_as_they_do_elsewhere() {
    let daemon = start().await;
    let client = daemon.client();
    for (code, exit_code, result) in [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('bye')", 1, "bye\n"),
        ("import os; os._exit(3)", 3, ""),
        ("import os; os.kill(os.getpid(), 9)", -1, ""),
        ("import ctypes; ctypes.string_at(0)", -1, ""),
        ("try: input()\nexcept EOFError: print('end')", 0, "end\n"),
        ("import sys\nprint('1')\nprint('2', file=sys.stderr)\nprint('3')", 0, "1\n2\n3\n"),
        (
            "import atexit\natexit.register(print, 'bye')\nimport sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1/0",
            1,
            "hook ZeroDivisionError\nbye\n",
        ),
        ("import threading\nthreading.Thread(target=print, args=('thread',)).start()", 0, "thread\n"),
    ] {
        assert_eq!(python(&client, code).await, json!({"exitCode": exit_code, "result": result}), "{code}");
    }
    let reply = python(&client, "# a comment\ndef f():\n    return 1 / 0\n\nf()").await;
    assert_eq!(reply["exitCode"], 1);
    let told = reply["result"].as_str().unwrap();
    let expected = "Traceback (most recent call last):\n  File \"<stdin>\", line 5, in <module>\n    f()\n  File \"<stdin>\", line 3, in f\n    return 1 / 0\n";
    assert!(
        told.starts_with(expected) && told.ends_with("\nZeroDivisionError: division by zero\n"),
        "{told}"
    );
    let told = python(&client, "x = 1\nfoo bar\n").await["result"].as_str().unwrap().to_owned();
    assert!(told.starts_with("  File \"<stdin>\", line 2\n    foo bar\n"), "{told}");
    let long = format!("x = '{}'\nprint(len(x))", "x".repeat(3_000_000));
    assert_eq!(python(&client, &long).await["result"], "3000000\n");
}

#[tokio::test]
async fn javascript_programs_are_scripts_and_their_arguments_are_exact() {
    let daemon = start().await;
    let client = daemon.client();
    let node = |code: &'static str| {
        let client = client.clone();
        async move { run(&client, "javascript", code, json!({"argv": ARGV})).await }
    };
    let reply = node("console.log(JSON.stringify(process.argv.slice(1)))").await;
    assert_eq!(serde_json::from_str::<Value>(reply["result"].as_str().unwrap()).unwrap(), json!(ARGV));
    let reply = node("const os = require('os'); console.log(__filename, typeof os.cpus, process.cwd(), process.execArgv.length)").await;
    assert_eq!(reply["result"], format!("[stdin] function {} 0\n", daemon.work().display()));
    assert_eq!(
        node("console.error('err'); process.exit(7)").await,
        json!({"exitCode": 7, "result": "err\n"})
    );
    let reply = node("#!/usr/bin/env node\n'use strict'\n\nthrow new Error('here')").await;
    assert_eq!(reply["exitCode"], 1);
    assert!(reply["result"].as_str().unwrap().contains("[stdin]:4"), "{reply}");
    let reply = node("foo bar").await;
    assert!(reply["result"].as_str().unwrap().starts_with("[stdin]:1\nfoo bar\n"), "{reply}");
    assert_eq!(node("console.log(require('fs').readFileSync(0, 'utf8').length)").await["result"], "0\n");
    let worker = "const { Worker } = require('worker_threads'); new Worker('console.log(process.argv.length > 1)', { eval: true })";
    assert_eq!(node(worker).await["exitCode"], 0);
}

#[tokio::test]
async fn an_old_node_gets_the_same_program() {
    let daemon = start().await;
    // Says that it is older than it is.
    let real = which("node");
    program(
        &daemon.work().join("bin/node"),
        &format!("#!/bin/sh\n[ \"$1\" = --version ] && echo v16.20.0 && exit\nexec {real} \"$@\"\n"),
    );
    let path = format!("{}/bin:{}", daemon.work().display(), python_path());
    let code = "// first\n'use strict'\nconsole.log(JSON.stringify(process.argv.slice(1)), (function () { return this })())";
    let reply =
        run(&daemon.client(), "javascript", code, json!({"argv": ["a b"], "envs": {"PATH": path}})).await;
    assert_eq!(reply["result"], "[\"a b\"] undefined\n");
}

fn which(name: &str) -> String {
    let output =
        std::process::Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn typescript_is_run_with_what_the_image_has() {
    let daemon = Daemon::start_with(|command| {
        command.env("PATH", format!("{NODE_MODULES}/.bin:{}", python_path()));
    })
    .await;
    let client = daemon.client();
    std::fs::create_dir_all(daemon.work().join("node_modules/nearby")).unwrap();
    std::fs::write(daemon.work().join("node_modules/nearby/index.js"), "module.exports = 'found'").unwrap();
    let typescript = |code: &'static str| {
        let client = client.clone();
        async move { run(&client, "typescript", code, json!({"argv": ARGV, "envs": {"TMPDIR": "/tmp"}})).await }
    };
    let reply = typescript("enum Colour { Red = 3 }\nconst argv: string[] = process.argv.slice(1)\nconsole.log(JSON.stringify(argv))").await;
    assert_eq!(
        serde_json::from_str::<Value>(reply["result"].as_str().unwrap()).unwrap(),
        json!(ARGV),
        "{reply}"
    );
    let reply = typescript("import * as os from 'os'\nconst near = require('nearby')\nconsole.log(typeof os.cpus, near, process.cwd())").await;
    assert_eq!(reply["result"], format!("function found {}\n", daemon.work().display()));
    let reply =
        typescript("interface A { x: number }\n\nconst a: A = { x: 1 }\nthrow new Error('line ' + a.x)")
            .await;
    assert_eq!(reply["exitCode"], 1);
    assert!(reply["result"].as_str().unwrap().contains("main.ts:4"), "{reply}");
    assert_eq!(typescript("process.exit(7 as number)").await["exitCode"], 7);
}

#[tokio::test]
async fn the_files_of_programs_do_not_stay() {
    let daemon = Daemon::start_with(|command| {
        command.env("PATH", format!("{NODE_MODULES}/.bin:{}", python_path())).env("TMPDIR", "files");
    })
    .await;
    let files = daemon.work().join("files");
    std::fs::create_dir(&files).unwrap();
    let left = || {
        std::fs::read_dir(&files)
            .unwrap()
            .filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().starts_with("dtn_"))
            .count()
    };
    let reply = run(&daemon.client(), "typescript", "console.log(__filename)", json!({})).await;
    assert!(reply["result"].as_str().unwrap().contains("files/dtn_"), "{reply}");
    post(&daemon.client(), json!({"code": "while (true) {}", "language": "typescript", "timeout": 1}))
        .fails(408, "PROCESS_EXECUTION_TIMEOUT")
        .await;
    within(async {
        while left() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let daemon = start().await;
    let client = daemon.client();
    let bin = daemon.work().join("bin");
    program(&bin.join("node"), "#!/bin/sh\necho v20.11.1\n");
    let path = json!({"envs": {"PATH": bin.to_str().unwrap()}});
    let reply = run(&client, "typescript", "1", path.clone()).await;
    assert_eq!(reply["exitCode"], -1);
    let told = reply["result"].as_str().unwrap();
    for word in ["ts-node", "tsx", "Node.js 20.11", bin.to_str().unwrap(), "npm install"] {
        assert!(told.contains(word), "{told}");
    }
    let reply = run(&client, "python", "1", path).await;
    assert_eq!(reply, json!({"exitCode": -1, "result": "fork/exec python3: no such file or directory"}));
    let reply = run(&client, "javascript", "1", json!({"envs": {"PATH": "/no/such"}})).await;
    assert_eq!(reply, json!({"exitCode": -1, "result": "fork/exec node: no such file or directory"}));
    // ts-node comes first, in the directory or above it.
    program(&daemon.work().join("node_modules/.bin/ts-node"), "#!/bin/sh\necho \"$@\"\n");
    let reply = run(&client, "typescript", "1", json!({"argv": ["x"]})).await;
    let told = reply["result"].as_str().unwrap();
    assert!(
        told.starts_with("-T -O {\"module\":\"CommonJS\"} --ignoreDiagnostics 5107 /")
            && told.ends_with("/main.ts x\n"),
        "{told}"
    );
}

#[tokio::test]
async fn a_slow_program_is_ended_in_time_with_all_that_it_started() {
    let daemon = start().await;
    let client = daemon.client();
    let code = "import subprocess\nprint(subprocess.Popen(['setsid', 'sleep', '1000']).pid, flush=True)\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass";
    let request = client
        .post("/process/code-run")
        .query("detail", "true")
        .json(json!({"code": code, "language": "python", "timeout": 1}));
    let reply = request.send().await;
    let body = reply.json();
    assert_eq!((reply.status.as_u16(), &body["code"]), (408, &json!("PROCESS_EXECUTION_TIMEOUT")));
    assert!(body["message"].as_str().unwrap().contains("timeout"));
    assert!(gone(pid_in(body["partialOutput"].as_str().unwrap())));
    let reply = post(&client, json!({"code": "pass", "language": "python", "timeout": 0}))
        .query("detail", "true")
        .ok()
        .await
        .json();
    assert_eq!((&reply["exit"]["cause"], &reply["exitCode"]), (&json!("exited"), &json!(0)));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let daemon = start().await;
    let client = daemon.client();
    client.post(URL).body("{").fails(400, "INVALID_REQUEST_BODY").await;
    for body in [
        json!({"code": "1"}),
        json!({"language": "python"}),
        json!({"code": "", "language": "python"}),
        json!({"code": 1, "language": "python"}),
    ] {
        post(&client, body).fails(400, "INVALID_REQUEST_BODY").await;
    }
    let message = post(&client, json!({"code": "1", "language": "ruby"})).fails(400, "BAD_REQUEST").await;
    assert_eq!(message, "bad request: unsupported language: ruby");
    for more in [json!({"envs": {"A-B": "1"}}), json!({"envs": {"A": "\0"}}), json!({"argv": ["\0"]})] {
        let mut body = json!({"code": "1", "language": "python"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&client, body).fails(400, "BAD_REQUEST").await;
    }
}

#[tokio::test]
async fn a_repeated_request_runs_once() {
    let daemon = start().await;
    let client = daemon.client();
    let body = json!({"code": "open('log', 'a').write('x'); print(1)", "language": "python"});
    for _ in 0..2 {
        assert_eq!(
            post(&client, body.clone()).header("idempotency-key", "k").ok().await.json()["result"],
            "1\n"
        );
    }
    assert_eq!(std::fs::read_to_string(daemon.work().join("log")).unwrap(), "x");
}

#[tokio::test]
async fn charts_come_beside_the_output_and_nothing_in_it() {
    let daemon = start().await;
    // It says so when a first start takes long, as on a busy machine.
    let code = "import logging\nlogging.getLogger('matplotlib').setLevel(logging.ERROR)\nimport matplotlib.pyplot as plt\nprint('before')\nplt.plot([1, 2], [3, 4], label='l')\nplt.title('t')\nplt.show()\nprint('after')\nplt.bar(['a'], [2.5])";
    let reply = python(&daemon.client(), code).await;
    assert_eq!((&reply["exitCode"], &reply["result"]), (&json!(0), &json!("before\nafter\n")));
    let charts = reply["artifacts"]["charts"].as_array().unwrap();
    assert_eq!(charts.len(), 2, "{reply}");
    assert_eq!((&charts[0]["type"], &charts[0]["title"]), (&json!("line"), &json!("t")));
    assert_eq!(charts[0]["elements"], json!([{"label": "l", "points": [[1, 3], [2, 4]]}]));
    assert_eq!(charts[1]["elements"], json!([{"label": "a", "group": "_container0", "value": "2.5"}]));
    assert!(charts.iter().all(|chart| chart["png"].as_str().unwrap().starts_with("iVBOR")));
}

#[tokio::test]
async fn marked_lines_of_older_wrappers_are_taken_out() {
    let daemon = start().await;
    let code = "print('a')\nprint('dtn_artifact_k39fd2:' + '{\"type\":\"chart\",\"value\":{\"type\":\"bar\",\"elements\":[{\"label\":\"x\",\"value\":4}]}}')\nprint('dtn_artifact_k39fd2:junk')\nprint('b dtn_artifact_k39fd2:')";
    let reply = python(&daemon.client(), code).await;
    assert_eq!(reply["result"], "a\nb dtn_artifact_k39fd2:\n");
    assert_eq!(
        reply["artifacts"]["charts"],
        json!([{"type": "bar", "elements": [{"label": "x", "value": "4"}]}])
    );
    let code = "print('dtn_artifact_k39fd2:{}')\nfor n in range(100000): print(n)";
    let reply = python(&daemon.client(), code).await;
    let expected: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    assert!(reply["result"] == expected && reply["artifacts"] == Value::Null);
}
