//! Several actions in one request.

use serde_json::{Value, json};

use crate::support::{Client, Daemon, Display, Recorder, Seen};

struct Stage {
    _display: Display,
    _daemon: Daemon,
    client: Client,
    window: Recorder,
}

async fn stage() -> Stage {
    let display = Display::start("800x600x24");
    let daemon = display.daemon().await;
    let window = Recorder::show(&display, 0, 0, 800, 600).await;
    let client = daemon.client();
    Stage { _display: display, _daemon: daemon, client, window }
}

impl Stage {
    async fn batch(&self, body: Value) -> Value {
        self.client.post("/computeruse/batch").json(body).ok().await.json()
    }
}

#[tokio::test]
async fn actions_are_done_in_order_and_each_has_its_result() {
    let mut stage = stage().await;
    let actions = json!([
        {"type": "move", "x": 10, "y": 20},
        {"type": "click", "x": 30, "y": 40, "button": "right"},
        {"type": "sleep", "ms": 1},
        {"type": "key", "key": "a"},
        {"type": "wait", "stableMs": 1},
        {"type": "screenshot", "scale": 0.1, "detail": true},
        {"type": "screenshot", "x": 5, "y": 5, "width": 20, "height": 10, "detail": true},
        {"type": "scroll", "x": 1, "y": 2, "direction": "down", "amount": 2.0},
    ]);
    let reply = stage.batch(json!({"actions": actions})).await;
    let results = reply["results"].as_array().unwrap();
    assert_eq!((&reply["completed"], results.len()), (&json!(8), 8), "{reply}");
    assert!(results.iter().all(|result| result["ok"] == true && result.get("error").is_none()));
    assert_eq!(results[0]["result"], json!({"x": 10, "y": 20}));
    assert_eq!(results[1]["result"], json!({"x": 30, "y": 40}));
    assert_eq!((&results[2]["result"], &results[3]["result"]), (&json!({}), &json!({})));
    assert_eq!(results[4]["result"]["settled"], true);
    assert_eq!((&results[5]["result"]["width"], &results[6]["result"]["width"]), (&json!(80), &json!(20)));
    assert_eq!(results[7]["result"], json!({"success": true}));
    let kinds: Vec<_> = stage
        .window
        .take(8)
        .await
        .into_iter()
        .map(|seen| match seen {
            Seen::Press(button, ..) => format!("press {button}"),
            Seen::Release(button, ..) => format!("release {button}"),
            Seen::KeyDown(symbol) => format!("down {symbol:#x}"),
            Seen::KeyUp(symbol) => format!("up {symbol:#x}"),
            Seen::Motion(..) => unreachable!(),
        })
        .collect();
    let wheel = ["press 5", "release 5", "press 5", "release 5"];
    assert_eq!(kinds, [["press 3", "release 3", "down 0x61", "up 0x61"], wheel].concat());
}

#[tokio::test]
async fn batches_are_not_mixed() {
    let mut stage = stage().await;
    let many = |button: &str| {
        let action = json!({"type": "click", "x": 5, "y": 5, "button": button});
        let batch = json!({"actions": vec![action; 20]});
        stage.client.post("/computeruse/batch").json(batch).ok()
    };
    let (left, right, middle) = tokio::join!(many("left"), many("right"), many("middle"));
    for reply in [left, right, middle] {
        assert_eq!(reply.json()["completed"], 20);
    }
    let seen = stage.window.take(120).await;
    let buttons: Vec<u8> = seen
        .iter()
        .filter_map(|seen| if let Seen::Press(button, ..) = seen { Some(*button) } else { None })
        .collect();
    let changes = buttons.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!((buttons.len(), changes), (60, 2), "{buttons:?}");
}

#[tokio::test]
async fn what_fails_is_told_and_ends_the_batch_unless_it_is_not_to() {
    let stage = stage().await;
    let actions = json!([
        {"type": "move", "x": 1, "y": 1},
        {"type": "screenshot", "display": 7},
        {"type": "move", "x": 2, "y": 2},
    ]);
    let reply = stage.batch(json!({"actions": actions})).await;
    assert_eq!((&reply["completed"], reply["results"].as_array().unwrap().len()), (&json!(1), 2));
    let error = &reply["results"][1];
    assert_eq!((&error["ok"], &error["error"]["code"]), (&json!(false), &json!("BAD_REQUEST")), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("no display 7"), "{error}");
    let reply = stage.batch(json!({"actions": actions, "stopOnError": false})).await;
    assert_eq!(reply["completed"], 2);
    assert_eq!(reply["results"][2]["result"], json!({"x": 2, "y": 2}));
    assert_eq!(stage.batch(json!({"actions": []})).await, json!({"results": [], "completed": 0}));
}

#[tokio::test]
async fn nothing_is_done_of_a_batch_that_makes_no_sense() {
    let mut stage = stage().await;
    for (action, word) in [
        (json!({"type": "dance"}), "dance"),
        (json!({"x": 1}), "type is required"),
        (json!({"type": "click", "button": "wheel"}), "wheel"),
        (json!({"type": "sleep", "ms": 60001}), "ms"),
        (json!({"type": "wait", "until": "x"}), "until"),
        (json!({"type": "screenshot", "scale": 9}), "scale"),
        (json!({"type": "key", "key": "FooBar"}), "FooBar"),
    ] {
        let batch = json!({"actions": [{"type": "click", "x": 1, "y": 1}, action]});
        let reply = stage.client.post("/computeruse/batch").json(batch).send().await;
        assert_eq!(reply.status, 400, "{}", reply.text());
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("actions[1]: ") && message.contains(word), "{message}");
    }
    let long =
        json!({"actions": [{"type": "click", "x": 1, "y": 1}, {"type": "wait", "timeoutMs": 300_001}]});
    let message = stage.client.post("/computeruse/batch").json(long).fails(400, "BAD_REQUEST").await;
    assert!(message.contains("300 seconds"), "{message}");
    assert_eq!(stage.window.so_far().await, []);
}
