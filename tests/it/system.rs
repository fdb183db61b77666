//! Version, directories, environment, metrics.

use serde_json::json;

use crate::support::Daemon;

#[tokio::test]
async fn directories_are_those_the_daemon_was_started_with() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    assert_eq!(client.get("/work-dir").ok().await.json(), json!({"dir": daemon.work()}));
    for path in ["/user-home-dir", "/project-dir"] {
        assert_eq!(client.get(path).ok().await.json(), json!({"dir": daemon.home()}));
    }
}

#[tokio::test]
async fn the_home_directory_can_be_the_working_directory() {
    let daemon = Daemon::start_with(|command| {
        command.env("DAYTONA_USER_HOME_AS_WORKDIR", "true");
    })
    .await;
    assert_eq!(daemon.client().get("/work-dir").ok().await.json(), json!({"dir": daemon.home()}));
}

#[tokio::test]
async fn init_answers_whatever_token_comes() {
    let daemon = Daemon::start().await;
    for body in [json!({"token": "t"}), json!({"token": ""}), json!({})] {
        let reply = daemon.client().post("/init").json(body).ok().await;
        let text = "Auth token set and telemetry initialized successfully";
        assert_eq!(reply.json(), json!({"message": text}));
    }
    daemon.client().post("/init").body("{").fails(400, "INVALID_REQUEST_BODY").await;
}

#[tokio::test]
async fn metrics_are_whole_numbers_within_bounds() {
    let daemon = Daemon::start().await;
    let metrics = daemon.client().get("/system/metrics").ok().await.json();
    for name in ["cpuCount", "memTotal", "memUsed", "diskTotal", "diskUsed", "diskFree", "timestampUnix"] {
        assert!(metrics[name].as_u64().is_some_and(|value| value > 0), "{name}: {metrics}");
    }
    assert!(metrics["memUsed"].as_u64() < metrics["memTotal"].as_u64());
    assert!((0.0..=100.0).contains(&metrics["cpuUsedPct"].as_f64().unwrap()));
}

#[tokio::test]
async fn a_bad_environment_changes_nothing() {
    let daemon = Daemon::start().await;
    let client = daemon.client();
    let message = client.post("/env").json(json!({"set": {"X-Y": "1"}})).fails(400, "BAD_REQUEST").await;
    assert_eq!(message, "bad request: invalid environment variable name: 'X-Y'");
    client.post("/env").json(json!({"set": {"A": "a\u{0}b"}})).fails(400, "BAD_REQUEST").await;
    let reply = client.post("/env").json(json!({"set": {"A": "1"}, "unsetValuePrefix": ""})).ok().await;
    assert_eq!(reply.json(), json!({"message": "Environment updated successfully"}));
}
