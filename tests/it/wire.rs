//! The published description of the API says enough.

use crate::support::Daemon;

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
