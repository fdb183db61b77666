//! Previews of a stand-alone daemon: by path and by host name, with and without a token.

use serde_json::{Value, json};

use crate::support::{Call, Client, Daemon, Upstream, sent_header};

const VISIT: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

async fn guarded() -> Daemon {
    Daemon::start_with(|command| {
        command.env("TOOLBOXD_TOKEN", "t0ken");
    })
    .await
}

async fn id(client: &Client) -> String {
    let list = client.get("/api/sandbox").header("authorization", "Bearer t0ken").ok().await.json();
    list["items"][0]["id"].as_str().unwrap().to_owned()
}

/// A client that follows no redirect.
fn visitor() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn with(call: Call, headers: &[(&str, &str)]) -> Call {
    headers.iter().fold(call, |call, (name, value)| call.header(name, value))
}

#[tokio::test]
async fn a_host_name_leads_to_its_port() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let client = daemon.client();
    let host = format!("{}-{}.localhost:{}", app.port, id(&client).await, daemon.address.port());
    let ask = |path: &str| client.get(path).header("host", &host);
    // Paths of the API are the app's here.
    for path in ["/", "/version", "/files?path=x", "/proxy/1/a%2Fb", "/toolbox/x/files", "/api/sandbox"] {
        let told = ask(path).ok().await.json();
        assert_eq!(told["target"], path);
        assert_eq!(sent_header(&told, "host").unwrap(), format!("localhost:{}", app.port));
        assert_eq!(sent_header(&told, "x-forwarded-host").unwrap(), host);
    }
    let mut socket = client.upgrade("/ws", &[("host", &host)]).await.unwrap();
    socket.say("hello").await;
    assert_eq!(socket.next().await.unwrap().to_text().unwrap(), "hello");
    // A page there reaches its own server, and not what runs commands.
    let origin = format!("http://{host}");
    ask("/").header("origin", &origin).ok().await;
    client.get(&app.path("/")).header("origin", &origin).ok().await;
    let run = client.post("/process/execute").json(json!({"command": "true"}));
    run.header("origin", &origin).fails(403, "FORBIDDEN").await;
    let own = format!("/proxy/{}/work-dir", daemon.address.port());
    client.get(&own).header("origin", &origin).fails(403, "FORBIDDEN").await;
}

#[tokio::test]
async fn other_host_names_lead_nowhere_new() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let client = daemon.client();
    let (id, port) = (id(&client).await, app.port);
    for host in [
        format!("0{port}-{id}.localhost"),
        format!("+{port}-{id}.localhost"),
        format!("{port}-other.localhost"),
        format!("x.{port}-{id}.localhost"),
    ] {
        client.get("/work-dir").header("host", &host).ok().await;
    }
    for host in [format!("{port}-{id}.localhost.example"), format!("{port}-{id}.example"), "[::]".to_owned()]
    {
        client.get("/work-dir").header("host", &host).fails(403, "FORBIDDEN").await;
    }
    // With a platform, its host names mean something to it alone.
    let daemon = Daemon::start_with(|command| {
        command.env("DAYTONA_SANDBOX_ID", "box");
    })
    .await;
    daemon.client().get("/work-dir").header("host", &format!("{port}-box.localhost")).ok().await;
}

#[tokio::test]
async fn a_visit_with_a_token_gets_a_cookie_that_opens_one_port() {
    let (daemon, app, other) = (guarded().await, Upstream::app().await, Upstream::app().await);
    let client = daemon.client();
    let id = id(&client).await;
    let host = |port: u16| format!("{port}-{id}.localhost:{}", daemon.address.port());
    let base = app.path("");
    for (base, path, host) in
        [("/", "/", host(app.port)), (base.as_str(), base.as_str(), "localhost".to_owned())]
    {
        let ask = |path: &str| client.get(path).header("host", &host);
        let url = client.url(&format!("{path}?a=1&DAYTONA_SANDBOX_AUTH_KEY=t0ken"));
        ask(&format!("{path}?a=1")).fails(401, "UNAUTHORIZED").await;
        let visit = visitor().get(url).header("host", &host);
        let visit = VISIT.iter().fold(visit, |visit, (name, value)| visit.header(*name, *value));
        let reply = visit.send().await.unwrap();
        assert_eq!(reply.status(), 303);
        let there = format!("{}/?a=1", base.trim_end_matches('/'));
        assert_eq!(
            (&reply.headers()["location"], &reply.headers()["cache-control"]),
            (&there.parse().unwrap(), &"no-store".parse().unwrap())
        );
        let cookie = reply.headers()["set-cookie"].to_str().unwrap().to_owned();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert_eq!(attributes, format!(" Path={base}; HttpOnly; SameSite=Lax"));
        assert!(
            pair.starts_with(&format!("daytona-sandbox-auth-{id}=")) && !pair.contains("t0ken"),
            "{pair}"
        );

        let cookies = format!("theirs=1; {pair}; more=2");
        let told = ask(&there).header("cookie", &cookies).ok().await.json();
        assert_eq!(sent_header(&told, "cookie"), Some("theirs=1; more=2"));
        assert_eq!(told["target"], "/?a=1");
        client.get(&other.path("/")).header("cookie", &cookies).fails(401, "UNAUTHORIZED").await;
        let elsewhere =
            client.get("/").header("host", &self::host(&id, other.port)).header("cookie", &cookies);
        elsewhere.fails(401, "UNAUTHORIZED").await;
        client.get("/work-dir").header("cookie", &cookies).fails(401, "UNAUTHORIZED").await;
    }
}

fn host(id: &str, port: u16) -> String {
    format!("{port}-{id}.localhost")
}

#[tokio::test]
async fn programs_are_served_at_once_and_the_app_sees_no_secret() {
    let (daemon, app) = (guarded().await, Upstream::app().await);
    let client = daemon.client();
    let id = id(&client).await;
    let link = client.get(&format!("/api/sandbox/{id}/ports/{}/preview-url", app.port));
    let link =
        link.header("authorization", "Bearer t0ken").ok().await.json()["token"].as_str().unwrap().to_owned();
    for token in ["t0ken", &link] {
        let path = app.path(&format!("/x?a&DAYTONA_SANDBOX_AUTH_KEY={token}&b=%20"));
        let reply = client.get(&path).ok().await;
        assert!(reply.header("set-cookie").starts_with("daytona-sandbox-auth-"));
        assert_eq!(reply.json()["target"], "/x?a&b=%20");
        for (name, value) in
            [("authorization", &*format!("Bearer {token}")), ("x-daytona-preview-token", token)]
        {
            let reply = client.get(&app.path("/")).header(name, value).ok().await;
            assert_eq!(sent_header(&reply.json(), name), None);
            assert_eq!(reply.header("set-cookie"), "");
        }
    }
    // What is the app's own reaches it.
    let reply = client.get(&app.path("/?DAYTONA_SANDBOX_AUTH_KEY=theirs")).header("authorization", "Basic x");
    let told = reply.header("x-daytona-preview-token", "t0ken").ok().await.json();
    assert_eq!(sent_header(&told, "authorization"), Some("Basic x"));
    assert_eq!(told["target"], "/?DAYTONA_SANDBOX_AUTH_KEY=theirs");
}

#[tokio::test]
async fn the_cookie_of_a_signed_link_ends_with_it() {
    let (daemon, app) = (guarded().await, Upstream::app().await);
    let client = daemon.client();
    let ports = format!("/api/sandbox/{}/ports/{}", id(&client).await, app.port);
    let owner = |call: Call| call.header("authorization", "Bearer t0ken");
    let signed: Value =
        owner(client.get(&format!("{ports}/signed-preview-url?expiresInSeconds=600"))).ok().await.json();
    let (url, token) = (signed["url"].as_str().unwrap(), signed["token"].as_str().unwrap());
    let path = url.strip_prefix(&client.url("")).unwrap();
    let cookie = client.get(path).ok().await.header("set-cookie").split(';').next().unwrap().to_owned();
    client.get(&app.path("/a")).header("cookie", &cookie).ok().await;
    owner(client.post(&format!("{ports}/signed-preview-url/{token}/expire"))).ok().await;
    client.get(&app.path("/a")).header("cookie", &cookie).fails(401, "UNAUTHORIZED").await;
}

#[tokio::test]
async fn a_visit_to_a_path_gets_its_slash_and_a_program_its_answer() {
    let (daemon, app) = (Daemon::start().await, Upstream::app().await);
    let url = daemon.client().url(&app.path("?a=b"));
    let visit = visitor().get(url);
    let visit = VISIT.iter().fold(visit, |visit, (name, value)| visit.header(*name, *value));
    let reply = visit.send().await.unwrap();
    assert_eq!(
        (reply.status().as_u16(), reply.headers()["location"].to_str().unwrap()),
        (303, &*app.path("/?a=b"))
    );
    let told = daemon.client().get(&app.path("?a=b")).ok().await.json();
    assert_eq!(told["target"], "/?a=b");
    let told = with(daemon.client().get(&app.path("/?a=b")), &VISIT).ok().await.json();
    assert_eq!(told["target"], "/?a=b");
}

#[tokio::test]
async fn links_have_host_names_when_that_is_set() {
    let daemon = Daemon::start_with(|command| {
        command.args(["--preview-links", "host"]);
    })
    .await;
    let client = daemon.client();
    let id = id(&client).await;
    let link =
        |host: &str| client.get(&format!("/api/sandbox/{id}/ports/3000/preview-url")).header("host", host);
    let url = async |host: &str| link(host).ok().await.json()["url"].as_str().unwrap().to_owned();
    let name = format!("3000-{}.localhost", id.to_ascii_lowercase());
    assert_eq!(url("127.0.0.1:2280").await, format!("http://{name}:2280"));
    assert_eq!(url("[::1]:2280").await, format!("http://{name}:2280"));
    assert_eq!(url("box.localhost").await, format!("http://{name}"));
    let signed = client.get(&format!("/api/sandbox/{id}/ports/3000/signed-preview-url")).ok().await.json();
    let start = format!("http://{name}:{}?DAYTONA_SANDBOX_AUTH_KEY=", daemon.address.port());
    assert!(signed["url"].as_str().unwrap().starts_with(&start), "{signed}");
}
