//! The published description of the API is that of the code.

use serde_json::Value;

use crate::support::Daemon;

const PUBLISHED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/openapi.json");

/// With `TOOLBOXD_UPDATE` set, the file is written instead of compared.
#[tokio::test]
async fn assets_openapi_json_is_what_the_daemon_serves() {
    let daemon = Daemon::start().await;
    let served = daemon.client().get("/openapi.json").ok().await.json();
    let text = serde_json::to_string_pretty(&served).unwrap() + "\n";
    if std::env::var_os("TOOLBOXD_UPDATE").is_some() {
        std::fs::write(PUBLISHED, &text).unwrap();
    }
    let published: Value = serde_json::from_str(&std::fs::read_to_string(PUBLISHED).unwrap()).unwrap();
    assert!(published == served, "run the tests once with TOOLBOXD_UPDATE=1 and look at the difference");
}

#[tokio::test]
async fn every_operation_is_described() {
    let daemon = Daemon::start().await;
    let document = daemon.client().get("/openapi.json").ok().await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(_, operation)| operation.is_object())
        {
            assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 10), "{method} {path}");
            assert!(operation["tags"][0].is_string(), "{method} {path}");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
                assert!(parameter["description"].is_string(), "{method} {path}: {}", parameter["name"]);
            }
        }
    }
}

#[tokio::test]
async fn the_description_can_be_switched_off() {
    for variables in [("TOOLBOXD_DOCS", "false"), ("ENVIRONMENT", "production")] {
        let daemon = Daemon::start_with(|command| {
            command.env(variables.0, variables.1);
        })
        .await;
        daemon.client().get("/openapi.json").fails(404, "NOT_FOUND").await;
        daemon.client().get("/docs").fails(404, "NOT_FOUND").await;
    }
    let page = Daemon::start().await.client().get("/docs").ok().await;
    assert!(page.text().contains("openapi.json") && page.header("content-type").starts_with("text/html"));
}
