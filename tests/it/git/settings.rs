//! New repositories, remotes, settings.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::support::{Call, Daemon, Repo};

fn init(daemon: &Daemon, body: Value) -> Call {
    daemon.client().post("/git/init").json(body)
}

#[tokio::test]
async fn repositories_are_made() {
    let daemon = Daemon::start().await;
    let reply = init(&daemon, json!({"path": "deep/new", "initial_branch": "trunk"})).ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (201, 0));
    let repo = Repo::at(&daemon, daemon.work().join("deep/new"));
    assert_eq!(repo.git(&["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    let head = repo.commit("a", "a\n");
    repo.git(&["config", "my.own", "kept"]);
    let before = repo.snapshot();
    init(&daemon, json!({"path": "deep/new", "initial_branch": "other", "bare": null})).ok().await;
    assert_eq!(
        (repo.snapshot(), repo.head(), repo.git(&["config", "my.own"])),
        (before, head, "kept".into())
    );
    repo.check();
    init(&daemon, json!({"path": "bare.git", "bare": true})).ok().await;
    let bare = Repo::at(&daemon, daemon.work().join("bare.git"));
    assert_eq!(
        (bare.git(&["rev-parse", "--is-bare-repository"]).as_str(), bare.has(".git")),
        ("true", false)
    );
    std::fs::write(daemon.home().join(".gitconfig"), "[init]\n\tdefaultBranch = mine\n").unwrap();
    init(&daemon, json!({"path": "configured"})).ok().await;
    let status = daemon.client().get("/git/status").query("path", "configured").ok().await.json();
    assert_eq!(status["currentBranch"], "mine");
}

#[tokio::test]
async fn what_cannot_be_a_repository_is_refused() {
    let daemon = Daemon::start().await;
    for name in ["-x", "a..b", "a b", "x.lock"] {
        init(&daemon, json!({"path": "new", "initial_branch": name})).fails(400, "BAD_REQUEST").await;
    }
    init(&daemon, json!({"path": ""})).fails(400, "INVALID_REQUEST_BODY").await;
    assert!(!daemon.work().join("new").exists());
    std::fs::write(daemon.work().join("file"), "").unwrap();
    init(&daemon, json!({"path": "file"})).fails(409, "CONFLICT").await;
    init(&daemon, json!({"path": "file/below"})).fails(400, "INVALID_FILE_PATH").await;
}

#[tokio::test]
async fn remotes_are_listed_added_and_replaced() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    assert_eq!(repo.get(&daemon, "/git/remotes").ok().await.json(), json!({"remotes": []}));
    let add = |body: Value| repo.post(&daemon, "/git/remotes", body);
    let reply = add(json!({"name": "upstream", "url": "https://example.com/u.git"})).ok().await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (201, 0));
    add(json!({"name": "origin", "url": "../other"})).ok().await;
    let remotes = repo.get(&daemon, "/git/remotes").ok().await.json();
    let expected = json!({"remotes": [
        {"name": "origin", "url": "../other"}, {"name": "upstream", "url": "https://example.com/u.git"},
    ]});
    assert_eq!(remotes, expected);
    assert_eq!(repo.git(&["config", "remote.origin.fetch"]), "+refs/heads/*:refs/remotes/origin/*");
    repo.git(&["config", "branch.main.remote", "origin"]);
    repo.git(&["config", "remote.origin.pushurl", "elsewhere"]);
    repo.git(&["config", "--add", "remote.origin.url", "second"]);
    repo.git(&["config", "remote.origin.more.url", "of another"]);
    let message = add(json!({"name": "origin", "url": "https://u:secret@h/"})).fails(409, "CONFLICT").await;
    assert!(!message.contains("secret"), "{message}");
    add(json!({"name": "origin", "url": "git@example.com:o.git", "overwrite": true})).ok().await;
    assert_eq!(repo.git(&["config", "--get-all", "remote.origin.url"]), "git@example.com:o.git");
    assert!(!repo.try_git(&["config", "remote.origin.pushurl"]).status.success());
    assert_eq!(repo.git(&["config", "branch.main.remote"]), "origin");
    assert_eq!(repo.git(&["config", "remote.origin.more.url"]), "of another");
    for (name, url) in
        [("-x", "u"), ("a b", "u"), ("a..b", "u"), ("x", "ext::sh -c id"), ("x", "-oProxyCommand=id")]
    {
        add(json!({"name": name, "url": url})).fails(400, "BAD_REQUEST").await;
    }
    for body in [json!({"name": "x"}), json!({"url": "u"}), json!({"name": "", "url": "u"})] {
        add(body).fails(400, "INVALID_REQUEST_BODY").await;
    }
}

fn get(daemon: &Daemon, key: &str, scope: &str) -> Call {
    daemon.client().get("/git/config").query("key", key).query("scope", scope)
}

fn set(daemon: &Daemon, body: Value) -> Call {
    daemon.client().post("/git/config").json(body)
}

#[tokio::test]
async fn settings_are_those_that_git_sees() {
    let daemon = Daemon::start().await;
    let repo = Repo::new(&daemon);
    assert_eq!(get(&daemon, "user.name", "global").ok().await.json(), json!({"value": null}));
    let values = ["Ada", "", " spaces around ", "#;\"\\", "two\nlines\tand tab", "ünï 世"];
    for value in values {
        set(&daemon, json!({"key": "my.value", "value": value})).ok().await;
        let output = repo.try_git(&["config", "--global", "-z", "my.value"]).stdout;
        assert_eq!(String::from_utf8(output).unwrap(), format!("{value}\0"));
        assert_eq!(get(&daemon, "my.value", "global").ok().await.json()["value"], value);
    }
    set(&daemon, json!({"key": "my.value", "value": "here", "scope": "local", "path": "repo"})).ok().await;
    assert_eq!(repo.git(&["config", "--local", "my.value"]), "here");
    let local = get(&daemon, "my.value", "local").query("path", "repo").ok().await.json();
    assert_eq!(local, json!({"value": "here"}));
    repo.git(&["config", "--add", "my.many", "first"]);
    repo.git(&["config", "--add", "my.many", "last"]);
    let many = get(&daemon, "my.many", "local").query("path", "repo").ok().await.json();
    assert_eq!(many["value"], "last");
    let body = json!({"key": "my.many", "value": "x", "scope": "local", "path": "repo"});
    set(&daemon, body).fails(409, "CONFLICT").await;
    assert_eq!(repo.git(&["config", "--get-all", "my.many"]), "first\nlast");
    let user = json!({"name": "Grace", "email": "g@example.com", "scope": "local", "path": "repo"});
    daemon.client().post("/git/config/user").json(user).ok().await;
    daemon.client().post("/git/config/user").json(json!({"name": "A", "email": "a@b"})).ok().await;
    assert_eq!(repo.git(&["config", "--local", "user.email"]), "g@example.com");
    assert_eq!(repo.git(&["config", "--global", "user.name"]), "A");
    let system = get(&daemon, "no.such", "system").ok().await.json();
    assert_eq!(system, json!({"value": null}));
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let daemon = Daemon::start().await;
    for key in ["user", "user.", "us er.name", "user.1x", "-x", "a.b\nc.d"] {
        get(&daemon, key, "global").fails(400, "BAD_REQUEST").await;
        set(&daemon, json!({"key": key, "value": "x"})).fails(400, "BAD_REQUEST").await;
    }
    get(&daemon, "user.name", "odd").fails(400, "BAD_REQUEST").await;
    get(&daemon, "user.name", "local").fails(400, "BAD_REQUEST").await;
    get(&daemon, "user.name", "local").query("path", "nosuch").fails(404, "GIT_REPO_NOT_FOUND").await;
    set(&daemon, json!({"key": "a.b", "value": "a\u{0}b"})).fails(400, "BAD_REQUEST").await;
    set(&daemon, json!({"key": "a.b"})).fails(400, "INVALID_REQUEST_BODY").await;
    daemon.client().get("/git/config").fails(400, "BAD_REQUEST").await;
    assert!(!daemon.home().join(".gitconfig").exists());
}

#[tokio::test]
async fn the_users_file_keeps_its_mode_its_place_and_its_comments() {
    let daemon = Daemon::start().await;
    let dots = daemon.home().join("dots");
    std::fs::create_dir(&dots).unwrap();
    let text = "# mine\n[include]\n\tpath = other\n[user]\n\tname = Ada ; really\n";
    std::fs::write(dots.join("gitconfig"), text).unwrap();
    std::fs::set_permissions(dots.join("gitconfig"), PermissionsExt::from_mode(0o600)).unwrap();
    symlink("dots/gitconfig", daemon.home().join(".gitconfig")).unwrap();
    set(&daemon, json!({"key": "my.value", "value": "x"})).ok().await;
    assert!(daemon.home().join(".gitconfig").is_symlink());
    let metadata = std::fs::metadata(dots.join("gitconfig")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let expected = format!("{text}[my]\n\tvalue = x\n");
    assert_eq!(std::fs::read_to_string(dots.join("gitconfig")).unwrap(), expected);
    // Another program is at it.
    std::fs::write(dots.join("gitconfig.lock"), "").unwrap();
    let message = set(&daemon, json!({"key": "my.value", "value": "y"})).fails(409, "CONFLICT").await;
    assert!(message.contains("gitconfig.lock"), "{message}");
    assert_eq!(std::fs::read_to_string(dots.join("gitconfig")).unwrap(), expected);
    assert!(dots.join("gitconfig.lock").exists());
}

#[tokio::test]
async fn the_file_below_xdg_is_written_when_it_is_the_only_one() {
    let daemon = Daemon::start_with(|command| {
        let home = std::path::PathBuf::from(
            command.as_std().get_envs().find(|(name, _)| *name == "HOME").unwrap().1.unwrap(),
        );
        std::fs::create_dir_all(home.join("xdg/git")).unwrap();
        std::fs::write(home.join("xdg/git/config"), "[my]\n\tvalue = xdg\n").unwrap();
        command.env("XDG_CONFIG_HOME", home.join("xdg"));
    })
    .await;
    assert_eq!(get(&daemon, "my.value", "global").ok().await.json()["value"], "xdg");
    set(&daemon, json!({"key": "my.value", "value": "new"})).ok().await;
    assert!(!daemon.home().join(".gitconfig").exists());
    let text = std::fs::read_to_string(daemon.home().join("xdg/git/config")).unwrap();
    assert_eq!(text, "[my]\n\tvalue = new\n");
}
