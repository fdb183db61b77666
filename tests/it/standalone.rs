//! The platform calls of SDKs, and what stands for the token in links.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{SinkExt, StreamExt};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Daemon, gone, within};

/// The id of the one sandbox.
async fn id(client: &Client) -> String {
    let list = client.get("/api/sandbox").ok().await.json();
    list["items"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_sandbox_is_there_from_the_start_with_all_that_clients_require() {
    let daemon = Daemon::start().await;
    let list = daemon.client().get("/api/sandbox").ok().await.json();
    assert_eq!(list["nextCursor"], Value::Null);
    let sandbox = &list["items"][0];
    assert_eq!(sandbox["state"], "started");
    assert_eq!(sandbox["toolboxProxyUrl"], format!("http://{}/toolbox", daemon.address));
    for name in ["id", "organizationId", "name", "user", "target", "createdAt", "updatedAt", "lastActivityAt"]
    {
        assert!(sandbox[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {sandbox}");
    }
    for name in ["cpu", "memory", "disk"] {
        assert!(sandbox[name].as_u64().is_some_and(|value| value > 0), "{name}: {sandbox}");
    }
    assert_eq!((&sandbox["gpu"], &sandbox["autoDeleteInterval"]), (&json!(0), &json!(-1)));
    assert_eq!(sandbox["networkBlockAll"], false);
}

#[tokio::test]
async fn links_are_made_from_the_host_that_the_client_used() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = id(&client).await;
    let ask =
        |path: &str| client.get(&format!("/api/sandbox/{id}/{path}")).header("host", "box.localhost:99");
    assert_eq!(ask("toolbox-proxy-url").ok().await.json(), json!({"url": "http://box.localhost:99/toolbox"}));
    let preview = ask("ports/3000/preview-url").header("x-forwarded-proto", "https").ok().await.json();
    assert_eq!(preview["url"], "https://box.localhost:99/proxy/3000");
    let config = client.get("/api/config").ok().await.json();
    assert_eq!(config["proxyToolboxUrl"], format!("http://{}/toolbox", daemon.address));
}

#[tokio::test]
async fn create_keeps_what_it_can_and_names_the_rest_in_the_log() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let wanted = json!({
        "name": "mine", "env": {"GREETING": "hello"}, "labels": {"a": "b"}, "public": true, "target": "eu",
        "autoStopInterval": 15, "autoArchiveInterval": 30, "autoDeleteInterval": 60,
        "cpu": 4, "buildInfo": {"dockerfileContent": "FROM debian"}, "volumes": [], "spot": false, "gpu": 0,
    });
    let sandbox = client.post("/api/sandbox").json(wanted).ok().await.json();
    assert_eq!((&sandbox["name"], &sandbox["labels"]), (&json!("mine"), &json!({"a": "b"})));
    assert_eq!((&sandbox["env"], &sandbox["public"]), (&json!({"GREETING": "hello"}), &json!(true)));
    assert_eq!((&sandbox["target"], &sandbox["autoStopInterval"]), (&json!("eu"), &json!(15)));
    assert_eq!((&sandbox["autoArchiveInterval"], &sandbox["autoDeleteInterval"]), (&json!(30), &json!(60)));
    assert!(
        daemon.log().contains("nothing here can honour buildInfo, cpu; going on without"),
        "{}",
        daemon.log()
    );
    assert_eq!(client.get("/api/sandbox/mine").ok().await.json()["id"], sandbox["id"]);
    let said = client.post("/process/execute").json(json!({"command": "echo $GREETING"})).ok().await.json();
    assert_eq!(said["result"], "hello\n");
}

#[tokio::test]
async fn a_bad_create_changes_nothing() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    for wanted in [json!({"name": "x", "env": {"A-B": "1"}}), json!({"name": "x", "autoStopInterval": -1})] {
        client.post("/api/sandbox").json(wanted).fails(400, "BAD_REQUEST").await;
    }
    client.post("/api/sandbox").json(json!({"name": 1})).fails(400, "INVALID_REQUEST_BODY").await;
    client.get("/api/sandbox/x").fails(404, "NOT_FOUND").await;
}

#[tokio::test]
async fn it_stops_starts_and_is_gone_until_the_next_create() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = id(&client).await;
    let path = format!("/api/sandbox/{id}");
    let act = |what: &str| client.post(&format!("{path}/{what}"));
    assert_eq!(act("stop").ok().await.json()["state"], "stopped");
    assert_eq!(client.get(&path).ok().await.json()["state"], "stopped");
    assert_eq!(act("start").ok().await.json()["state"], "started");
    client.post("/api/sandbox").json(json!({"env": {"LEFT": "over"}, "labels": {"a": "b"}})).ok().await;
    assert_eq!(client.delete(&path).ok().await.json()["state"], "destroyed");
    client.get(&path).fails(404, "NOT_FOUND").await;
    act("start").fails(404, "NOT_FOUND").await;
    client.delete(&path).fails(404, "NOT_FOUND").await;
    assert_eq!(client.get("/api/sandbox").ok().await.json()["items"], json!([]));
    let fresh = client.post("/api/sandbox").json(json!({})).ok().await.json();
    assert_eq!((&fresh["id"], &fresh["labels"]), (&json!(id), &json!({})));
    let said = client.post("/process/execute").json(json!({"command": "echo \"[$LEFT]\""})).ok().await.json();
    assert_eq!(said["result"], "[]\n");
}

#[tokio::test]
async fn stopping_an_ephemeral_sandbox_deletes_it() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.post("/api/sandbox").json(json!({"name": "brief", "autoDeleteInterval": 0})).ok().await;
    assert_eq!(client.post("/api/sandbox/brief/stop").ok().await.json()["state"], "destroyed");
    client.get("/api/sandbox/brief").fails(404, "NOT_FOUND").await;
}

#[tokio::test]
async fn deleting_ends_no_process() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = id(&client).await;
    let command = json!({"command": "sleep 300 >/dev/null 2>&1 & echo $!"});
    let started = client.post("/process/execute").json(command).ok().await.json();
    client.delete(&format!("/api/sandbox/{id}")).ok().await;
    let pid = started["result"].as_str().unwrap().trim();
    assert!(!gone(pid.parse().unwrap()));
    client.post("/process/execute").json(json!({"command": format!("kill {pid}")})).ok().await;
}

#[tokio::test]
async fn labels_intervals_and_flags_are_kept() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let path = format!("/api/sandbox/{}", id(&client).await);
    let labels = json!({"labels": {"team": "a"}});
    let reply = client.request(http::Method::PUT, &format!("{path}/labels")).json(labels.clone()).ok().await;
    assert_eq!(reply.json(), labels);
    for (what, member, value) in [
        ("autostop/5", "autoStopInterval", json!(5)),
        ("autoarchive/6", "autoArchiveInterval", json!(6)),
        ("autodelete/-1", "autoDeleteInterval", json!(-1)),
        ("public/true", "public", json!(true)),
    ] {
        assert_eq!(client.post(&format!("{path}/{what}")).ok().await.json()[member], value, "{what}");
    }
    client.post(&format!("{path}/autostop/-1")).fails(400, "BAD_REQUEST").await;
    client.post(&format!("{path}/autostop/soon")).fails(400, "BAD_REQUEST").await;
    assert_eq!(client.post(&format!("{path}/last-activity")).ok().await.status, 201);
    let sandbox = client.get(&path).ok().await.json();
    assert_eq!((&sandbox["labels"], &sandbox["autoStopInterval"]), (&labels["labels"], &json!(5)));
}

#[tokio::test]
async fn lists_are_filtered_in_both_forms() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    client.post("/api/sandbox").json(json!({"name": "Mine", "labels": {"a": "1", "b": "2"}})).ok().await;
    for (query, count) in [
        ("name=mi", 1),
        ("name=other", 0),
        ("labels=%7B%22a%22%3A%221%22%7D", 1),
        ("labels=%7B%22a%22%3A%222%22%7D", 0),
        ("states=stopped&states=started", 1),
        ("states=stopped", 0),
        ("isPublic=true", 0),
        ("limit=10&cursor=&order=asc", 1),
    ] {
        let list = client.get(&format!("/api/sandbox?{query}")).ok().await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{query}");
        let page = client.get(&format!("/api/sandbox/paginated?{query}")).ok().await.json();
        assert_eq!((&page["total"], &page["page"]), (&json!(count), &json!(1)), "{query}");
    }
    client.get("/api/sandbox?labels=x").fails(400, "BAD_REQUEST").await;
}

#[tokio::test]
async fn what_needs_a_platform_is_refused_as_such() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = id(&client).await;
    let resize = format!("/api/sandbox/{id}/resize");
    for path in ["/api/snapshots", "/api/volumes/by-name/x", "/api/organizations/o/usage", &resize] {
        let message = client.post(path).json(json!({})).fails(501, "NOT_IMPLEMENTED").await;
        assert_eq!(message, format!("POST {path} needs a platform, and toolboxd runs stand-alone"));
    }
    client.get("/api/sandbox/ssh-access/validate?token=t").fails(501, "NOT_IMPLEMENTED").await;
    client.post("/api/sandbox/other/resize").fails(404, "NOT_FOUND").await;
    client.get("/api/nonsense").fails(404, "NOT_FOUND").await;
}

#[tokio::test]
async fn there_is_no_platform_call_where_there_is_a_platform() {
    let daemon = Daemon::start_with(|command| {
        command.env("DAYTONA_SANDBOX_ID", "box");
    })
    .await;
    for path in ["/api/sandbox", "/api/sandbox/box", "/api/config", "/api/snapshots", "/api/socket.io/"] {
        daemon.client().get(path).fails(404, "NOT_FOUND").await;
    }
    std::fs::write(daemon.work().join("a"), "x").unwrap();
    let ignored = "/files/download?path=a&expires=1&signature=v1_wrong";
    assert_eq!(daemon.client().get(ignored).ok().await.text(), "x");
}

/// A signature as SDKs make it.
fn signature(key: &str, method: &str, path: &str, expires: u64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(format!("v1:files:{method}:{path}:{expires}").as_bytes());
    format!("v1_{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A daemon that wants a token, with the file `a b+c` in it, and its signing key.
async fn guarded() -> (Daemon, String) {
    let daemon = Daemon::start_with(|command| {
        command.env("TOOLBOXD_TOKEN", "t0ken");
    })
    .await;
    std::fs::write(daemon.work().join("a b+c"), "content").unwrap();
    let client = daemon.client();
    let list = client.get("/api/sandbox").header("authorization", "Bearer t0ken").ok().await.json();
    let path = format!("/api/sandbox/{}/signing-key", list["items"][0]["id"].as_str().unwrap());
    let key = client.get(&path).header("authorization", "Bearer t0ken").ok().await.json();
    (daemon, key.as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_signature_stands_for_the_token_of_one_file() {
    let (daemon, key) = guarded().await;
    let client = daemon.client();
    let get = |path: &str, signed: &str, expires: &str, signature: &str| {
        client
            .get(&format!("/toolbox/box/files/{path}"))
            .query("path", signed)
            .query("expires", expires)
            .query("signature", signature)
    };
    let forever = signature(&key, "GET", "a b+c", 0);
    assert_eq!(get("download", "a b+c", "0", &forever).ok().await.text(), "content");
    let later = signature(&key, "GET", "a b+c", 99_999_999_999);
    assert_eq!(get("download", "a b+c", "99999999999", &later).ok().await.text(), "content");

    let past = signature(&key, "GET", "a b+c", 1_000);
    get("download", "a b+c", "1000", &past).fails(401, "UNAUTHORIZED").await;
    get("download", "other", "0", &forever).fails(401, "UNAUTHORIZED").await;
    get("download", "a b+c", "1", &forever).fails(401, "UNAUTHORIZED").await;
    get("download", "a b+c", "", &forever).fails(401, "UNAUTHORIZED").await;
    get("download", "a b+c", "0", "").fails(401, "UNAUTHORIZED").await;
    get("download", "a b+c", "0", &signature("other key", "GET", "a b+c", 0))
        .fails(401, "UNAUTHORIZED")
        .await;
    get("info", "a b+c", "0", &forever).fails(401, "UNAUTHORIZED").await;
    let wrong_method = signature(&key, "POST", "a b+c", 0);
    get("download", "a b+c", "0", &wrong_method).fails(401, "UNAUTHORIZED").await;
    // The right token does not mend a wrong signature.
    let both = get("download", "a b+c", "0", "v1_x").header("authorization", "Bearer t0ken");
    both.fails(401, "UNAUTHORIZED").await;
    assert!(!daemon.log().contains(&forever));
}

#[tokio::test]
async fn a_signature_uploads_one_file_until_the_key_is_rotated() {
    let (daemon, key) = guarded().await;
    let client = daemon.client();
    let put = |signature: &str| {
        let call = client.post("/files/upload-v2").query("path", "new").query("expires", "0");
        call.query("signature", signature).header("content-type", "application/octet-stream").body("sent")
    };
    let signed = signature(&key, "POST", "new", 0);
    put(&signed).ok().await;
    assert_eq!(std::fs::read_to_string(daemon.work().join("new")).unwrap(), "sent");
    put(&signature(&key, "GET", "new", 0)).fails(401, "UNAUTHORIZED").await;
    let list = client.get("/api/sandbox").header("authorization", "Bearer t0ken").ok().await.json();
    let rotate = format!("/api/sandbox/{}/signing-key/rotate", list["items"][0]["id"].as_str().unwrap());
    let fresh = client.post(&rotate).header("authorization", "Bearer t0ken").ok().await.json();
    put(&signed).fails(401, "UNAUTHORIZED").await;
    put(&signature(fresh.as_str().unwrap(), "POST", "new", 0)).ok().await;
}

#[tokio::test]
async fn without_a_token_a_wrong_signature_is_refused_all_the_same() {
    let daemon = Daemon::start().await;
    std::fs::write(daemon.work().join("a"), "x").unwrap();
    let client = daemon.client();
    client.get("/files/download?path=a").ok().await;
    client.get("/files/download?path=a&expires=0&signature=v1_x").fails(401, "UNAUTHORIZED").await;
}

#[tokio::test]
async fn preview_tokens_open_what_they_are_for() {
    let (daemon, _) = guarded().await;
    let client = daemon.client();
    let ask = |path: &str| client.get(path).header("authorization", "Bearer t0ken");
    let list = ask("/api/sandbox").ok().await.json();
    let ports = format!("/api/sandbox/{}/ports/3000", list["items"][0]["id"].as_str().unwrap());

    let link = ask(&format!("{ports}/preview-url")).ok().await.json();
    let token = link["token"].as_str().unwrap();
    assert_ne!(token, "t0ken");
    client.get("/work-dir").header("x-daytona-preview-token", token).ok().await;

    let signed = ask(&format!("{ports}/signed-preview-url?expiresInSeconds=600")).ok().await.json();
    let token = signed["token"].as_str().unwrap();
    let url = format!("http://{}/proxy/3000?DAYTONA_SANDBOX_AUTH_KEY={token}", daemon.address);
    assert_eq!((&signed["url"], &signed["port"]), (&json!(url), &json!(3000)));
    // Let in by the guard; what comes then is the proxy's answer.
    let show = |path: &str| client.get(&format!("{path}?DAYTONA_SANDBOX_AUTH_KEY={token}"));
    assert_ne!(show("/proxy/3000/").send().await.status, 401);
    show("/proxy/3001/").fails(401, "UNAUTHORIZED").await;
    show("/work-dir").fails(401, "UNAUTHORIZED").await;

    let expire = |port: &str| {
        let path = ports.replace("3000", port) + &format!("/signed-preview-url/{token}/expire");
        client.post(&path).header("authorization", "Bearer t0ken")
    };
    expire("3001").fails(404, "NOT_FOUND").await;
    expire("3000").ok().await;
    show("/proxy/3000/").fails(401, "UNAUTHORIZED").await;
    ask(&format!("{ports}/signed-preview-url?expiresInSeconds=0")).fails(400, "BAD_REQUEST").await;
    ask(&format!("{ports}000/preview-url")).fails(400, "BAD_REQUEST").await;
}

/// Messages of a client's own, as it would send and get them.
struct Events(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>);

impl Events {
    async fn connect(daemon: &Daemon) -> Self {
        let url = format!("ws://{}/api/socket.io/?EIO=4&transport=websocket", daemon.address);
        let mut events = Self(within(tokio_tungstenite::connect_async(url)).await.unwrap().0);
        let open = events.next().await.unwrap();
        let hello: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
        assert!(hello["sid"].is_string() && hello["pingInterval"].is_u64(), "{hello}");
        events
    }

    async fn send(&mut self, text: &str) {
        within(self.0.send(Message::text(text))).await.unwrap();
    }

    /// The next message; none at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            match within(self.0.next()).await?.unwrap() {
                Message::Text(text) => return Some(text.to_string()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn states_are_told_to_those_who_follow() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let id = id(&client).await;
    let mut events = Events::connect(&daemon).await;
    events.send("40{\"token\":\"any\"}").await;
    assert!(events.next().await.unwrap().starts_with("40{\"sid\":"));
    events.send("2probe").await;
    assert_eq!(events.next().await.unwrap(), "3probe");
    client.post(&format!("/api/sandbox/{id}/stop")).ok().await;
    let event = events.next().await.unwrap();
    let event: Value = serde_json::from_str(event.strip_prefix("42").unwrap()).unwrap();
    let sandbox = json!({"id": id, "state": "stopped"});
    assert_eq!(event, json!(["sandbox.state.updated", {"sandbox": sandbox, "newState": "stopped"}]));
    events.send("41").await;
    assert_eq!(events.next().await, None);
    client.get("/api/socket.io/?EIO=4&transport=polling").fails(400, "BAD_REQUEST").await;
}

#[tokio::test]
async fn who_follows_shows_the_token_first() {
    let (daemon, _) = guarded().await;
    let mut events = Events::connect(&daemon).await;
    events.send("40{\"token\":\"wrong\"}").await;
    assert_eq!(events.next().await.unwrap(), "44{\"message\":\"the token is missing or wrong\"}");
    assert_eq!(events.next().await, None);
    let mut events = Events::connect(&daemon).await;
    events.send("40{\"token\":\"t0ken\"}").await;
    assert!(events.next().await.unwrap().starts_with("40{"));
}
