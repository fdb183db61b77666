//! Language servers, played by a scripted one that writes down what it is told; real ones are driven by the SDK tests.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Call, Client, Daemon, Socket, gone, within};

const SCRIPT: &str = include_str!("support/language_server.py");

/// A daemon that knows the language `fake`.
struct Lab {
    daemon: Daemon,
    client: Client,
    directory: TempDir,
}

impl Lab {
    async fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, |_| {}).await
    }

    async fn start_with(flags: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let directory = TempDir::new().unwrap();
        let [script, book, servers] =
            ["server.py", "book", "servers.json"].map(|name| directory.path().join(name));
        std::fs::write(&script, SCRIPT).unwrap();
        std::fs::write(&book, "").unwrap();
        let words = [&["python3", script.to_str().unwrap(), book.to_str().unwrap()], flags].concat();
        let fake = json!({"command": words, "extensions": ["fake"], "settings": {"fake": {"level": 5}}});
        std::fs::write(&servers, json!({"fake": fake, "none": ["no-such-server"]}).to_string()).unwrap();
        let daemon = Daemon::start_with(|command| {
            command.env("TOOLBOXD_LANGUAGE_SERVERS", servers);
            change(command);
        })
        .await;
        let client = daemon.client();
        std::fs::create_dir(daemon.work().join("p")).unwrap();
        Self { daemon, client, directory }
    }

    /// Writes a file of project `p`; gives its path.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.daemon.work().join("p").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A call about a file of project `p`, as SDKs make it: with a relative path behind the scheme.
    fn post(&self, operation: &str, file: &str, more: Value) -> Call {
        let mut body = json!({"languageId": "fake", "pathToProject": "p", "uri": format!("file://p/{file}")});
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.client.post(&format!("/lsp/{operation}")).json(body)
    }

    fn get(&self, operation: &str) -> Call {
        let call = self.client.get(&format!("/lsp/{operation}"));
        call.query("languageId", "fake").query("pathToProject", "p")
    }

    async fn up(&self) {
        let reply = self.post("start", "", json!({})).ok().await;
        assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, ""));
    }

    async fn open(&self, file: &str) {
        self.post("did-open", file, json!({})).ok().await;
    }

    async fn names(&self, file: &str) -> Vec<String> {
        names(&self.get("document-symbols").query("uri", format!("file://p/{file}")).ok().await.json())
    }

    fn complete(&self, file: &str) -> Call {
        self.post("completions", file, json!({"position": {"line": 0, "character": 0}}))
    }

    /// Everything that servers have written down.
    fn book(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.path().join("book")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a note.
    async fn noted(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        until(|| self.book().into_iter().find(|note| is_it(note))).await
    }

    /// What was told of documents: method, version, text.
    fn told(&self) -> Vec<(String, Value, Value)> {
        let notes = self.book().into_iter().filter_map(|note| {
            let method = note["method"].as_str()?.strip_prefix("textDocument/did")?.to_owned();
            let document = &note["params"]["textDocument"];
            let text = match method.as_str() {
                "Open" => &document["text"],
                "Change" => &note["params"]["contentChanges"][0]["text"],
                _ => &note["params"]["text"],
            };
            Some((method, document["version"].clone(), text.clone()))
        });
        notes.collect()
    }

    /// Processes of servers so far, oldest first.
    fn pids(&self) -> Vec<u32> {
        let of = |method: &str| {
            let notes = self.book().into_iter().filter(|note| note["method"] == method);
            notes.map(|note| note["pid"].as_u64().unwrap() as u32).collect()
        };
        of("initialize")
    }
}

/// Asks until there is an answer.
async fn until<T>(mut check: impl FnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(answer) = check() {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

async fn until_gone(pid: u32) {
    until(|| gone(pid).then_some(())).await;
}

fn names(symbols: &Value) -> Vec<String> {
    symbols.as_array().unwrap().iter().map(|symbol| symbol["name"].as_str().unwrap().to_owned()).collect()
}

fn range(line: u32, start: u32, end: u32) -> Value {
    json!({"start": {"line": line, "character": start}, "end": {"line": line, "character": end}})
}

#[tokio::test]
async fn nothing_works_before_start_and_after_stop() {
    let lab = Lab::start(&[]).await;
    lab.write("a.fake", "def x");
    for started in [false, true] {
        if started {
            lab.up().await;
            lab.post("stop", "", json!({})).ok().await;
        }
        let code = "LSP_SERVER_NOT_INITIALIZED";
        for operation in ["did-open", "did-close"] {
            assert_eq!(
                lab.post(operation, "a.fake", json!({})).fails(400, code).await,
                "server not initialized"
            );
        }
        lab.complete("a.fake").fails(400, code).await;
        lab.get("document-symbols").query("uri", "file://p/a.fake").fails(400, code).await;
        for spelling in ["workspacesymbols", "workspace-symbols"] {
            lab.get(spelling).query("query", "x").fails(400, code).await;
        }
        let told = lab.post("stop", "", json!({})).fails(500, "INTERNAL_SERVER_ERROR").await;
        assert!(told.contains("error stopping LSP server: none was started for fake"), "{told}");
    }
}

#[tokio::test]
async fn bad_requests_name_what_is_wrong() {
    let lab = Lab::start(&[]).await;
    lab.up().await;
    lab.write("a.fake", "def x");
    let told = lab.post("start", "", json!({"languageId": "cobol"})).fails(400, "BAD_REQUEST").await;
    assert!(
        told.starts_with("bad request: unsupported language: cobol (supported: c, cpp, fake, go, "),
        "{told}"
    );
    lab.complete("a.fake").ok().await;
    let told = lab.post(
        "completions",
        "a.fake",
        json!({"languageId": "cobol", "position": {"line": 0, "character": 0}}),
    );
    assert!(told.fails(400, "BAD_REQUEST").await.contains("unsupported language: cobol"));
    for (member, value) in [("languageId", json!("")), ("pathToProject", json!("")), ("uri", json!(""))] {
        let told =
            lab.post("did-open", "a.fake", json!({member: value})).fails(400, "INVALID_REQUEST_BODY").await;
        assert_eq!(told, format!("invalid body request: {member} is required"));
    }
    for position in
        [json!({"line": -1, "character": 0}), json!({"line": 0, "character": 0.5}), json!({"line": 0})]
    {
        lab.post("completions", "a.fake", json!({"position": position}))
            .fails(400, "INVALID_REQUEST_BODY")
            .await;
    }
    lab.client.post("/lsp/start").body("{").fails(400, "INVALID_REQUEST_BODY").await;
    let told = lab.get("workspacesymbols").query("query", "").fails(400, "BAD_REQUEST").await;
    assert_eq!(told, "bad request: query is required");
    let told = lab.get("document-symbols").fails(400, "BAD_REQUEST").await;
    assert_eq!(told, "bad request: uri is required");
    let told = lab.post("did-open", "none.fake", json!({})).fails(400, "BAD_REQUEST").await;
    assert!(told.starts_with("bad request: failed to read file: no such file or directory: /"), "{told}");
    std::fs::File::create(lab.write("large.fake", "")).unwrap().set_len(10 * 1024 * 1024 + 1).unwrap();
    let told = lab.post("did-open", "large.fake", json!({})).fails(400, "BAD_REQUEST").await;
    assert!(told.contains("larger than 10485760 bytes"), "{told}");
    crate::support::make_fifo(&lab.write("x", "").with_file_name("pipe.fake"));
    let told = lab.post("did-open", "pipe.fake", json!({})).fails(400, "BAD_REQUEST").await;
    assert!(told.contains("not a regular file"), "{told}");
    let told = lab.get("diagnostics").query("timeoutMs", "60001").fails(400, "BAD_REQUEST").await;
    assert!(told.contains("timeoutMs"), "{told}");
}

#[tokio::test]
async fn a_server_that_cannot_be_started_says_why_and_can_be_stopped() {
    let lab = Lab::start(&["refuses"]).await;
    let told = lab.post("start", "", json!({})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert_eq!(
        told,
        "internal server error: error starting LSP server: python3 ended with exit code 1: no licence for this machine"
    );
    assert!(gone(lab.pids()[0]));
    lab.complete("a.fake").fails(400, "LSP_SERVER_NOT_INITIALIZED").await;
    lab.post("stop", "", json!({})).ok().await;
    let told = lab.post("start", "", json!({"languageId": "none"})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert!(told.ends_with("no server for none is installed; looked for no-such-server in PATH"), "{told}");
    std::fs::write(lab.directory.path().join("servers.json"), "{").unwrap();
    let told = lab.post("start", "", json!({})).fails(500, "INTERNAL_SERVER_ERROR").await;
    assert!(told.contains("servers.json: EOF while parsing"), "{told}");
}

#[tokio::test]
async fn the_whole_conversation_has_the_shapes_that_clients_accept() {
    let lab = Lab::start(&["greets"]).await;
    let path = lab.write("sub/a.fake", "def Outer\n  def inner\nlast bad");
    lab.write("b.fake", "def OuterToo");
    lab.write("node_modules/c.fake", "def OuterThree");
    lab.up().await;
    lab.open("sub/a.fake").await;
    let uri = format!("file://{}", path.display());
    let outer = json!({"name": "Outer", "kind": 12, "location": {"uri": uri, "range": range(0, 0, 9)}});
    let inner = json!({"name": "inner", "kind": 12, "location": {"uri": uri, "range": range(1, 0, 11)}});
    for given in ["file://p/sub/a.fake", "p/sub/a.fake", &uri, "file://p/../p/sub/a%2Efake"] {
        let symbols = lab.get("document-symbols").query("uri", given).ok().await.json();
        assert_eq!(symbols, json!([outer, inner]), "{given}");
    }
    let list = lab.complete("sub/a.fake").ok().await.json();
    let bad =
        json!({"label": "bad", "kind": 6, "documentation": {"kind": "plaintext", "value": "about bad"}});
    assert_eq!((&list["isIncomplete"], &list["items"][1]), (&json!(false), &bad));
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    for spelling in ["workspacesymbols", "workspace-symbols"] {
        let symbols = lab.get(spelling).query("query", "OUTER").ok().await.json();
        assert_eq!(
            names(&symbols),
            ["OuterToo", "Outer"],
            "only what matches, in files that are the project's"
        );
    }
    lab.post("did-close", "sub/a.fake", json!({})).ok().await;
    lab.post("did-close", "sub/a.fake", json!({})).ok().await;
    let pid = lab.pids()[0];
    lab.post("stop", "", json!({})).ok().await;
    assert!(gone(pid));
    let methods: Vec<_> =
        lab.book().iter().filter_map(|note| Some(note["method"].as_str()?.to_owned())).collect();
    assert_eq!(methods[..3], ["initialize", "initialized", "workspace/didChangeConfiguration"]);
    assert_eq!(methods[methods.len() - 2..], ["shutdown", "exit"]);
    let opened = lab.book().into_iter().find(|note| note["method"] == "textDocument/didOpen").unwrap();
    assert_eq!(opened["params"]["textDocument"]["languageId"], "fake");
    assert_eq!(lab.noted(|note| note["id"] == "configuration-1").await["result"], json!([5, null]));
    assert_eq!(lab.noted(|note| note["id"] == "odd-1").await["error"]["code"], -32601);
}

#[tokio::test]
async fn what_is_on_disk_counts() {
    let lab = Lab::start(&[]).await;
    lab.write("a.fake", "def one");
    lab.up().await;
    lab.open("a.fake").await;
    assert_eq!(lab.names("a.fake").await, ["one"]);
    lab.write("a.fake", "def two two");
    assert_eq!(lab.names("a.fake").await, ["two"]);
    lab.open("a.fake").await; // again: no second didOpen
    until(|| (lab.told().len() == 5).then_some(())).await;
    let text = |text: &str| json!(text);
    assert_eq!(
        lab.told(),
        [
            ("Open".to_owned(), json!(1), text("def one")),
            ("Change".to_owned(), json!(2), text("def two two")),
            ("Save".to_owned(), Value::Null, text("def two two")),
            ("Change".to_owned(), json!(3), text("def two two")),
            ("Save".to_owned(), Value::Null, text("def two two")),
        ]
    );
    // Another question tells of all that changed; a file that is gone is closed.
    std::fs::remove_file(lab.write("a.fake", "")).unwrap();
    lab.write("b.fake", "def three");
    assert_eq!(lab.names("b.fake").await, ["three"]);
    let told: Vec<_> = lab.told().into_iter().skip(5).map(|(method, _, _)| method).collect();
    assert_eq!(told, ["Close", "Open"]);
}

#[tokio::test]
async fn odd_paths_are_proper_uris_and_found_again() {
    let lab = Lab::start(&[]).await;
    let project = "p/ä b#1%41?";
    lab.write("ä b#1%41?/x%20y z.fake", "def odd");
    let body = json!({"languageId": "fake", "pathToProject": project});
    lab.client.post("/lsp/start").json(body.clone()).ok().await;
    let initialize = lab.noted(|note| note["method"] == "initialize").await;
    let root = initialize["params"]["rootUri"].as_str().unwrap();
    assert!(root.starts_with("file:///") && root.ends_with("/p/%C3%A4%20b%231%2541%3F"), "{root}");
    let symbols = async |uri: &str| {
        let call = lab.client.get("/lsp/document-symbols").query("languageId", "fake");
        call.query("pathToProject", project).query("uri", uri).ok().await.json()
    };
    let literal = symbols(&format!("file://{project}/x%20y z.fake")).await;
    let uri = literal[0]["location"]["uri"].as_str().unwrap();
    assert_eq!(uri, format!("{root}/x%2520y%20z.fake"));
    assert_eq!(symbols(uri).await, literal, "what is answered may be sent back");
    assert_eq!(lab.told().len(), 1, "and is the same document");
}

#[tokio::test]
async fn one_server_serves_all_ways_to_write_a_path_and_all_who_start_it_at_once() {
    let lab = Lab::start(&[]).await;
    let absolute = lab.daemon.work().join("p");
    let absolute = absolute.to_str().unwrap();
    let slashed = format!("{absolute}//./");
    let starts = ["p", "p/", "./p", "p/../p", absolute, &slashed].into_iter().cycle().take(24).map(|path| {
        let call = lab.client.post("/lsp/start").json(json!({"languageId": "fake", "pathToProject": path}));
        async { call.ok().await }
    });
    futures_util::future::join_all(starts).await;
    assert_eq!(lab.pids().len(), 1);
}

#[tokio::test]
async fn a_crash_is_told_and_the_next_question_has_the_documents_open_again() {
    let lab = Lab::start(&[]).await;
    lab.write("good.fake", "def fine");
    lab.write("crash.fake", "CRASH");
    lab.up().await;
    lab.open("good.fake").await;
    for attempt in 1..=3 {
        let told = lab.complete("crash.fake").fails(500, "INTERNAL_SERVER_ERROR").await;
        assert_eq!(told, "internal server error: python3 ended with exit code 3: fatal: out of cheese");
        if attempt < 3 {
            assert_eq!(lab.names("good.fake").await, ["fine"]);
            assert_eq!(lab.pids().len(), attempt + 1);
            let again: Vec<_> = lab.told().into_iter().filter(|(_, _, text)| text == "def fine").collect();
            assert_eq!(again.len(), attempt + 1);
        }
    }
    // One that keeps crashing is left alone until it is started.
    let told = lab.complete("good.fake").fails(400, "LSP_SERVER_NOT_INITIALIZED").await;
    assert_eq!(told, "server not initialized: python3 ended with exit code 3: fatal: out of cheese");
    lab.up().await;
    assert_eq!(lab.names("good.fake").await, ["fine"]);
    lab.pids().into_iter().take(3).for_each(|pid| assert!(gone(pid)));
}

#[tokio::test]
async fn a_killed_server_is_replaced() {
    let lab = Lab::start(&[]).await;
    lab.write("a.fake", "def x");
    lab.up().await;
    lab.open("a.fake").await;
    let pid = lab.pids()[0];
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().await.unwrap();
    until_gone(pid).await;
    // Noticed at once or by the question itself.
    let reply = lab.get("document-symbols").query("uri", "file://p/a.fake").send().await;
    if !reply.status.is_success() {
        assert!(reply.text().contains("python3 was ended by SIGKILL"), "{}", reply.text());
    }
    assert_eq!(lab.names("a.fake").await, ["x"]);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_question() {
    let lab = Lab::start(&[]).await;
    lab.write("a.fake", "HANG");
    lab.up().await;
    {
        let asked = lab.complete("a.fake").open();
        tokio::select! {
            reply = asked => panic!("{reply:?}"),
            _ = lab.noted(|note| note["method"] == "textDocument/completion") => {}
        }
    }
    let asked = lab.noted(|note| note["method"] == "textDocument/completion").await;
    let cancelled = lab.noted(|note| note["method"] == "$/cancelRequest").await;
    assert_eq!(cancelled["params"]["id"], asked["id"]);
    lab.write("a.fake", "def fine");
    assert_eq!(lab.names("a.fake").await, ["fine"]);
}

#[tokio::test]
async fn stop_ends_the_whole_tree_of_a_server_that_will_not() {
    let lab = Lab::start_with(&["stubborn"], |command| {
        command.env("TOOLBOXD_TERMINATION_GRACE_PERIOD", "1s");
    })
    .await;
    lab.up().await;
    let child = lab.noted(|note| note["child"].is_u64()).await["child"].as_u64().unwrap() as u32;
    let pid = lab.pids()[0];
    lab.post("stop", "", json!({})).ok().await;
    assert!(gone(pid) && gone(child));
}

#[tokio::test]
async fn no_server_outlives_the_daemon() {
    let mut lab = Lab::start_with(&["stubborn"], |command| {
        command.env("TOOLBOXD_TERMINATION_GRACE_PERIOD", "1s");
    })
    .await;
    lab.up().await;
    let child = lab.noted(|note| note["child"].is_u64()).await["child"].as_u64().unwrap() as u32;
    let pid = lab.pids()[0];
    lab.daemon.signal("TERM").await;
    lab.daemon.exited().await;
    assert!(gone(pid) && gone(child));
}

#[tokio::test]
async fn the_server_that_was_used_least_recently_makes_room_and_comes_back() {
    let lab = Lab::start_with(&[], |command| {
        command.env("TOOLBOXD_MAX_LANGUAGE_SERVERS", "1");
    })
    .await;
    lab.write("a.fake", "def x");
    lab.up().await;
    lab.open("a.fake").await;
    let other = json!({"languageId": "fake", "pathToProject": "other"});
    lab.client.post("/lsp/start").json(other).ok().await;
    assert!(gone(lab.pids()[0]));
    assert_eq!(lab.names("a.fake").await, ["x"]);
    assert!(gone(lab.pids()[1]));
    assert_eq!(lab.pids().len(), 3);
    // An editor keeps its server: then there is no room.
    let _editor = lab.client.socket("/lsp/connect?languageId=fake&pathToProject=p").await;
    let other = json!({"languageId": "fake", "pathToProject": "third"});
    let told = lab.client.post("/lsp/start").json(other).fails(503, "SERVICE_UNAVAILABLE").await;
    assert!(told.starts_with("1 language servers are busy"), "{told}");
}

#[tokio::test]
async fn a_server_that_is_not_used_is_stopped_until_it_is() {
    let lab = Lab::start_with(&[], |command| {
        command.env("TOOLBOXD_LANGUAGE_SERVER_IDLE", "1ms");
    })
    .await;
    lab.write("a.fake", "def x");
    lab.up().await;
    until(|| lab.pids().first().copied().filter(|pid| gone(*pid))).await;
    assert_eq!(lab.names("a.fake").await, ["x"]);
    assert!(lab.pids().len() >= 2);
}

#[tokio::test]
async fn faults_are_told_when_the_server_has_come_to_rest() {
    let lab = Lab::start(&[]).await;
    let path = lab.write("a.fake", "fine\nvery bad");
    lab.up().await;
    let uri = format!("file://{}", path.display());
    let ask = || lab.get("diagnostics").query("uri", "file://p/a.fake");
    let fault =
        json!({"uri": uri, "range": range(1, 5, 8), "severity": 1, "code": "7", "message": "this is bad"});
    assert_eq!(ask().ok().await.json(), json!({"settled": true, "items": [fault]}));
    lab.write("a.fake", "all is well");
    assert_eq!(ask().ok().await.json(), json!({"settled": true, "items": []}));
    lab.write("b.fake", "bad");
    lab.open("b.fake").await;
    let all = lab.get("diagnostics").ok().await.json();
    assert_eq!((&all["settled"], all["items"].as_array().unwrap().len()), (&json!(true), 1));
    lab.write("a.fake", "bad again");
    assert_eq!(ask().query("timeoutMs", "1").ok().await.json()["settled"], false);
}

#[tokio::test]
async fn what_agents_ask_for_is_answered_and_no_file_is_changed() {
    for flag in ["utf-8", "utf-16"] {
        let lab = Lab::start(&[flag]).await;
        let text = "é🙂 def greet  \ngreet greet";
        let path = lab.write("a.fake", text);
        lab.up().await;
        let uri = format!("file://{}", path.display());
        let ask = async |operation: &str, more: Value| {
            let mut body = json!({"position": {"line": 0, "character": 9}}); // in greet, counted in UTF-16
            body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
            lab.post(operation, "a.fake", body).ok().await.json()
        };
        let hover = ask("hover", json!({})).await;
        assert_eq!(
            hover,
            json!({"contents": {"kind": "markdown", "value": "known\n\n```fake\ngreet\n```"}}),
            "{flag}"
        );
        let at = |line, start, end| json!({"uri": uri, "range": range(line, start, end)});
        assert_eq!(ask("definition", json!({})).await, json!([at(0, 4, 13)]), "{flag}");
        let all = [at(0, 8, 13), at(1, 0, 5), at(1, 6, 11)];
        assert_eq!(ask("references", json!({})).await, json!(all), "{flag}");
        let edits: Vec<_> = all.iter().map(|at| json!({"range": at["range"], "newText": "hello"})).collect();
        let renamed = ask("rename", json!({"newName": "hello"})).await;
        assert_eq!(renamed, json!({"changes": [{"uri": uri, "edits": edits}]}), "{flag}");
        let formatted = ask("formatting", json!({})).await;
        assert_eq!(formatted, json!([{"range": range(0, 13, 15), "newText": ""}]), "{flag}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        let asked = lab.book().into_iter().find(|note| note["method"] == "textDocument/formatting").unwrap();
        assert_eq!(asked["params"]["options"], json!({"tabSize": 4, "insertSpaces": true}));
        lab.post("rename", "a.fake", json!({"position": {"line": 0, "character": 9}}))
            .fails(400, "INVALID_REQUEST_BODY")
            .await;
    }
}

#[tokio::test]
async fn a_server_that_is_loading_or_was_disturbed_is_asked_again() {
    let lab = Lab::start(&["loads", "modified"]).await;
    lab.write("a.fake", "def x");
    lab.up().await;
    assert_eq!(lab.names("a.fake").await, ["x"]);
    let hover =
        lab.post("hover", "a.fake", json!({"position": {"line": 0, "character": 4}})).ok().await.json();
    assert!(hover["contents"]["value"].as_str().unwrap().contains('x'), "{hover}");
}

#[tokio::test]
async fn a_null_answer_is_an_empty_list() {
    let lab = Lab::start(&["symbols"]).await;
    lab.write("a.fake", "def x");
    lab.up().await;
    assert_eq!(lab.get("workspacesymbols").query("query", "x").ok().await.json(), json!([]));
    let nothing =
        lab.post("definition", "a.fake", json!({"position": {"line": 0, "character": 0}})).ok().await;
    assert_eq!(nothing.json(), json!([]));
}

/// An editor, by its socket.
struct Editor {
    socket: Socket,
}

impl Editor {
    async fn connect(lab: &Lab) -> Self {
        Self { socket: lab.client.socket("/lsp/connect?languageId=fake&pathToProject=p").await }
    }

    async fn say(&mut self, mut message: Value) {
        message["jsonrpc"] = json!("2.0");
        self.socket.send(Message::text(message.to_string())).await;
    }

    async fn open(&mut self, uri: &str, text: &str) {
        let document = json!({"uri": uri, "languageId": "fake", "version": 40, "text": text});
        self.say(json!({"method": "textDocument/didOpen", "params": {"textDocument": document}})).await;
    }

    /// The next message that is wanted; others are skipped.
    async fn next(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.socket.json().await;
            if is_it(&message) {
                return message;
            }
        }
    }

    async fn ask(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.say(json!({"id": id, "method": method, "params": params})).await;
        self.next(|message| message["id"] == id && message.get("method").is_none()).await
    }
}

#[tokio::test]
async fn an_editor_talks_to_the_same_server() {
    let lab = Lab::start(&[]).await;
    let path = lab.write("a.fake", "def on_disk");
    let uri = format!("file://{}", path.display());
    let mut editor = Editor::connect(&lab).await; // starts it
    let hello = editor.ask(json!("first"), "initialize", json!({"capabilities": {}})).await;
    assert_eq!(hello["result"]["serverInfo"]["name"], "fake");
    editor.say(json!({"method": "initialized", "params": {}})).await;
    lab.open("a.fake").await;
    assert_eq!(lab.names("a.fake").await, ["on_disk"]);
    editor.open(&uri, "def typed\nbad").await;
    let published = editor.next(|message| message["params"]["diagnostics"][0].is_object()).await;
    assert_eq!(published["params"]["uri"], uri.as_str());
    let symbols =
        editor.ask(json!(1), "textDocument/documentSymbol", json!({"textDocument": {"uri": uri}})).await;
    assert_eq!(symbols["result"][0]["name"], "typed");
    assert_eq!(lab.names("a.fake").await, ["typed"], "what the editor has counts");
    lab.write("a.fake", "def changed");
    assert_eq!(lab.names("a.fake").await, ["typed"]);
    let refused =
        editor.ask(json!(2), "textDocument/hover", json!({"textDocument": {"uri": "file:///x"}})).await;
    assert_eq!(refused["error"]["code"], -32602);
    // What the server wants of a person goes to the editor, and its answer back.
    let done = editor.ask(json!(3), "workspace/executeCommand", json!({"command": "x"})).await;
    assert_eq!(done["result"], "done");
    editor.say(json!({"id": "edit-1", "result": {"applied": true}})).await;
    assert_eq!(lab.noted(|note| note["id"] == "edit-1").await["result"]["applied"], true);
    assert_eq!(editor.ask(json!(4), "shutdown", json!(null)).await["result"], Value::Null);
    editor.say(json!({"method": "exit"})).await;
    assert_eq!(editor.socket.closed().await, 1000);
    // The client's document is the file again, and the server the same.
    until(|| {
        lab.told().last().filter(|(method, _, text)| method == "Open" && text == "def changed").map(drop)
    })
    .await;
    assert_eq!(lab.names("a.fake").await, ["changed"]);
    assert_eq!(lab.pids().len(), 1);
}

#[tokio::test]
async fn an_editors_questions_can_be_cancelled_and_end_with_it() {
    let lab = Lab::start(&[]).await;
    let mut editor = Editor::connect(&lab).await;
    editor.open("file:///made/up.fake", "HANG").await;
    let hover =
        json!({"textDocument": {"uri": "file:///made/up.fake"}, "position": {"line": 0, "character": 0}});
    editor.say(json!({"id": 9, "method": "textDocument/hover", "params": hover})).await;
    lab.noted(|note| note["method"] == "textDocument/hover").await;
    editor.say(json!({"method": "$/cancelRequest", "params": {"id": 9}})).await;
    let cancelled = editor.next(|message| message["id"] == 9).await;
    assert_eq!(cancelled["error"]["code"], -32800);
    editor.say(json!({"id": 10, "method": "textDocument/hover", "params": hover})).await; // written before the next
    editor.ask(json!(11), "workspace/executeCommand", json!({"command": "x"})).await;
    drop(editor);
    // Both sides' open questions are settled, and its documents closed.
    let left = lab.noted(|note| note["id"] == "edit-1").await;
    assert!(left["error"].is_object() || left["result"]["applied"] == false, "{left}");
    until(|| (lab.told().last()?.0 == "Close").then_some(())).await;
    until(|| {
        (lab.book().iter().filter(|note| note["method"] == "$/cancelRequest").count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_editor_learns_that_its_server_ended() {
    let lab = Lab::start(&[]).await;
    lab.write("crash.fake", "CRASH");
    let mut editor = Editor::connect(&lab).await;
    lab.complete("crash.fake").fails(500, "INTERNAL_SERVER_ERROR").await;
    let code = loop {
        match editor.socket.next().await {
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert_eq!(code, 1011);
    let mut editor = Editor::connect(&lab).await;
    editor.socket.send(Message::text("no JSON")).await;
    assert_eq!(editor.socket.closed().await, 1008);
    let refused = lab.client.upgrade("/lsp/connect?languageId=none&pathToProject=p", &[]).await.unwrap_err();
    assert_eq!(refused.0, 500);
}

#[tokio::test]
async fn many_at_once_on_few_projects_neither_crash_nor_hang() {
    let lab = Arc::new(Lab::start(&[]).await);
    for project in 0..5 {
        let directory = lab.daemon.work().join(format!("p{project}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("a.fake"), "def x").unwrap();
    }
    let calls = (0..50).map(|number| {
        let lab = Arc::clone(&lab);
        async move {
            let project = format!("p{}", number % 5);
            let call = |operation: &str| {
                let uri = format!("file://{project}/a.fake");
                let position = json!({"line": 0, "character": 0});
                let body =
                    json!({"languageId": "fake", "pathToProject": project, "uri": uri, "position": position});
                lab.client.post(&format!("/lsp/{operation}")).json(body).send()
            };
            for operation in ["start", "did-open", "completions", "stop"] {
                let reply = call(operation).await;
                // Others stop it meanwhile.
                let told = reply.text();
                let is_stopped =
                    told.contains("LSP_SERVER_NOT_INITIALIZED") || told.contains("none was started");
                assert!(reply.status.is_success() || is_stopped, "{operation}: {told}");
            }
        }
    });
    within(futures_util::future::join_all(calls)).await;
    for pid in lab.pids() {
        until_gone(pid).await;
    }
    lab.write("a.fake", "def x");
    lab.up().await;
    assert_eq!(lab.names("a.fake").await, ["x"]);
}
