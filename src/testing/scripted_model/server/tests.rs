//! The server over real HTTP, without Claude Code.

use reqwest::Client;

use super::*;
use crate::testing::scripted_model::{Rule, Scenario, Step};

const TOOLS: &str = r#"[{"name": "Bash"}]"#;

async fn start(scenario: Scenario) -> ScriptedModel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ScriptedModel::start(listener, scenario.script()).unwrap()
}

fn limited_then_done() -> Scenario {
    Scenario {
        rules: vec![Rule {
            name: "all".into(),
            when: Vec::new(),
            steps: vec![Step::Fail {
                credential: None,
                times: Some(1),
                failure: Failure::usage_limit("five_hour", 1_900_000_000),
            }],
            finally: "Now it works.".into(),
        }],
        ..Scenario::default()
    }
}

async fn ask(model: &ScriptedModel, body: Value) -> reqwest::Response {
    crate::ports::tls::choose_provider();
    Client::new()
        .post(format!("http://{}/v1/messages?beta=true", model.address))
        .header("authorization", "Bearer sk-ant-oat01-secret-abcdef")
        .header("x-claude-code-session-id", "s1")
        .json(&body)
        .send()
        .await
        .unwrap()
}

fn turn(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-5", "max_tokens": 64000, "stream": stream,
        "tools": serde_json::from_str::<Value>(TOOLS).unwrap(),
        "messages": [{"role": "user", "content": "hello"}],
    })
}

#[tokio::test]
async fn a_limit_carries_its_headers_and_the_retry_goes_through() {
    let model = start(limited_then_done()).await;
    let limited = ask(&model, turn(true)).await;
    assert_eq!(limited.status(), 429);
    let headers = limited.headers();
    assert_eq!(headers["anthropic-ratelimit-unified-status"], "rejected");
    assert_eq!(headers["anthropic-ratelimit-unified-reset"], "1900000000");
    let body: Value = limited.json().await.unwrap();
    assert_eq!(body["error"]["type"], "rate_limit_error");

    let whole: Value = ask(&model, turn(false)).await.json().await.unwrap();
    assert_eq!(whole["content"][0]["text"], "Now it works.");
    assert_eq!(whole["stop_reason"], "end_turn");

    let records = model.requests();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].answered, Answered::Error { status: 429 });
    assert_eq!(records[1].attempt, 1);
    assert_eq!(records[1].credential, "abcdef");
    assert_eq!(records[1].instruction.as_deref(), Some("hello"));
    let counters = model.counters();
    assert_eq!((counters.turns, counters.errors), (1, 1));
    model.stop().await;
}

#[tokio::test]
async fn a_title_is_answered_by_its_schema_and_never_reaches_the_script() {
    let model = start(limited_then_done()).await;
    let asked = json!({
        "model": "claude-haiku", "stream": false, "messages": [{"role": "user", "content": "x"}],
        "output_config": {"format": {"type": "json_schema", "schema": {
            "type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"],
        }}},
    });
    let whole: Value = ask(&model, asked).await.json().await.unwrap();
    let text = whole["content"][0]["text"].as_str().unwrap();
    let title: Value = serde_json::from_str(text).unwrap();
    assert!(title["title"].is_string());
    assert_eq!(model.counters().side_calls, 1);
    assert_eq!(model.counters().errors, 0);
    model.stop().await;
}

#[tokio::test]
async fn bad_requests_get_the_errors_of_the_api() {
    let model = start(Scenario::default()).await;
    let url = |path: &str| format!("http://{}{path}", model.address);
    crate::ports::tls::choose_provider();
    let client = Client::new();
    let kind = async |response: reqwest::Response, status: u16| {
        assert_eq!(response.status().as_u16(), status);
        let body: Value = response.json().await.unwrap();
        body["error"]["type"].as_str().unwrap().to_owned()
    };
    let nowhere = client.get(url("/v2")).send().await.unwrap();
    assert_eq!(kind(nowhere, 404).await, "not_found_error");
    let anonymous = client.post(url("/v1/messages")).body("{}").send();
    assert_eq!(
        kind(anonymous.await.unwrap(), 401).await,
        "authentication_error"
    );
    let broken = client
        .post(url("/v1/messages"))
        .header("x-api-key", "key")
        .body("{")
        .send();
    assert_eq!(
        kind(broken.await.unwrap(), 400).await,
        "invalid_request_error"
    );
    assert!(
        client
            .head(url("/"))
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let models: Value = client
        .get(url("/v1/models"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(models["data"][0]["id"].is_string());
    let count = client
        .post(url("/v1/messages/count_tokens"))
        .header("x-api-key", "key")
        .json(&turn(false))
        .send();
    let count: Value = count.await.unwrap().json().await.unwrap();
    assert!(count["input_tokens"].as_u64().unwrap() > 10);
    let counters = model.counters();
    assert_eq!(
        (counters.unknown, counters.token_counts, counters.errors),
        (1, 1, 2)
    );
    model.stop().await;
}

#[tokio::test]
async fn a_slow_stream_is_cut_when_the_server_stops_and_the_address_is_free() {
    let slow = Pacing {
        first_ms: 0,
        chunk_ms: 3_600_000,
    };
    let model = start(Scenario::default().paced(slow)).await;
    let address = model.address;
    let mut response = ask(&model, turn(true)).await;
    let first = response.chunk().await.unwrap().unwrap();
    assert!(first.starts_with(b"event: message_start"));
    model.stop().await;
    assert_eq!(response.chunk().await.unwrap(), None);
    TcpListener::bind(address).await.unwrap();
}
