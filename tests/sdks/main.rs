//! The official Python SDKs through the gateway (`through`), and here against the stub upstream: their results equal
//! the stub's responses, and their token counts equal its bill. So tests of the gateway may trust the stub's bytes.
//!
//! Python with the SDKs is searched in `.sdks` (`make sdks`), then on the path. If one is missing, its test reports on
//! standard error that it skips; it downloads nothing.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod clients;
mod through;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testkit::upstream::{Upstream, sentence};

const KEY: &str = "sk-of-the-test";
/// The number of words of `PROMPT` in drive.py.
const INPUT: u64 = 7;

/// The results of the SDK, by the name of the case. `None` if it is not installed.
fn drive(sdk: &str, url: &str) -> Option<BTreeMap<String, Value>> {
    run("drive.py", sdk, url, KEY)
}

/// The same for any of the scripts.
fn run(script: &str, sdk: &str, url: &str, key: &str) -> Option<BTreeMap<String, Value>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository");
    let own = root.join(".sdks/bin/python");
    let python = if own.exists() { own } else { "python3".into() };
    let Ok(output) = Command::new(python).arg(root.join("tests/sdks").join(script)).args([sdk, url, key]).output()
    else {
        skip(sdk, "there is no Python");
        return None;
    };
    let (told, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{sdk} told {told}\nand failed with {failed}");
    let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    let lines: Vec<Value> = lines.collect();
    if let [Value::Object(only)] = lines.as_slice()
        && let Some(missing) = only.get("missing")
    {
        skip(sdk, &format!("Python has no module {missing}"));
        return None;
    }
    Some(lines.into_iter().map(|line| (line["case"].as_str().unwrap_or_default().to_owned(), line)).collect())
}

fn skip(sdk: &str, because: &str) {
    harness::skip(&format!("the SDK of {sdk} was not driven"), because, "`make sdks` installs it.");
}

fn stub() -> Upstream {
    let stub = Upstream::start();
    stub.script_catalogue();
    stub.accept_only(KEY);
    stub
}

/// Compares a case with the catalogue, and its usage with the bill.
#[track_caller]
fn assert_said(stub: &Upstream, told: &BTreeMap<String, Value>, case: &str, text: &str, finish: &str, used: [u64; 2]) {
    let said = &told[case];
    let shown = json!([said["text"], said["finish"], said["input"], said["output"]]);
    assert_eq!(shown, json!([text, finish, used[0], used[1]]), "{case}");
    let id = said["id"].as_str().expect("an answer has an id");
    let line = stub.bill().into_iter().find(|line| id.ends_with(&format!("stub{}", line.number)));
    let line = line.expect("what was answered is on the bill");
    assert_eq!([line.usage.input(), line.usage.output()], used, "{case}");
}

/// The expected results of the cases that every SDK runs.
struct Expected {
    stop: &'static str,
    length: &'static str,
    calls: &'static str,
    /// The cached tokens of `stub-thinking` for this provider.
    cached: u64,
    /// The class and the status of each error.
    refused: &'static [(&'static str, &'static str, Option<u16>)],
}

#[track_caller]
fn assert_told(stub: &Upstream, told: &BTreeMap<String, Value>, expected: &Expected) {
    let (words, all) = (sentence(8), sentence(16));
    for way in ["plain", "streamed"] {
        let case = |case: &str| if way == "plain" { case.to_owned() } else { format!("{case} streamed") };
        assert_said(stub, told, way, &words, expected.stop, [INPUT, 8]);
        assert_said(stub, told, &case("limit"), &sentence(3), expected.length, [INPUT, 3]);
        assert_said(stub, told, &case("thinking"), &words, expected.stop, [INPUT + expected.cached, 15]);
        // Four words, and two calls: a name with four words of arguments, a name with two.
        assert_said(stub, told, &case("tools"), "I look it up.", expected.calls, [INPUT, 12]);
        let calls = json!([["get_weather", {"city": "Zürich", "days": 2}], ["get_time", {"zone": "Europe/Zurich"}]]);
        assert_eq!(told[&case("tools")]["calls"], calls);
    }
    for split in ["stub-joined", "stub-trickle", "stub-inside-characters", "stub-inside-lines"] {
        assert_said(stub, told, split, &all, expected.stop, [INPUT, 16]);
    }
    for (case, class, status) in expected.refused {
        assert_eq!([&told[*case]["error"], &told[*case]["status"]], [&json!(class), &json!(status)], "{case}");
    }
}

#[test]
fn openai() {
    let stub = stub();
    let Some(told) = drive("openai", &stub.openai_url()) else { return };
    let expected = Expected {
        stop: "stop",
        length: "length",
        calls: "tool_calls",
        cached: 50,
        refused: &[
            ("stub-400", "BadRequestError", Some(400)),
            ("stub-402", "APIStatusError", Some(402)),
            ("stub-429", "RateLimitError", Some(429)),
            ("stub-429-spend-limit", "RateLimitError", Some(429)),
            ("stub-500", "InternalServerError", Some(500)),
            ("stub-503", "InternalServerError", Some(503)),
            ("stub-529", "InternalServerError", Some(529)),
            ("error in stream", "APIError", None),
            ("another key", "AuthenticationError", Some(401)),
        ],
    };
    assert_told(&stub, &told, &expected);
    assert_said(&stub, &told, "accumulated", "I look it up.", "tool_calls", [INPUT, 12]);
    assert_eq!(told["accumulated"]["calls"], told["tools"]["calls"]);
    let vectors = &told["embeddings"];
    assert_eq!(json!([vectors["sizes"], vectors["first"], vectors["input"]]), json!([[5, 5], 0.125, 3]));
    assert_eq!(told["models"]["one"], "stub");
    assert!(told["models"]["known"].as_array().expect("a list").contains(&json!("stub-tools")));
}

#[test]
fn anthropic() {
    let stub = stub();
    let Some(told) = drive("anthropic", &stub.anthropic_url()) else { return };
    let expected = Expected {
        stop: "end_turn",
        length: "max_tokens",
        calls: "tool_use",
        cached: 60,
        // Some classes are newer than some SDKs; the statuses are what matters.
        refused: &[
            ("stub-400", "BadRequestError", Some(400)),
            ("stub-429", "RateLimitError", Some(429)),
            ("stub-500", "InternalServerError", Some(500)),
            ("another key", "AuthenticationError", Some(401)),
        ],
    };
    assert_told(&stub, &told, &expected);
    for (case, status) in [("stub-402", 402), ("stub-429-spend-limit", 429), ("stub-503", 503), ("stub-529", 529)] {
        assert_eq!(told[case]["status"], status, "{case}");
    }
    assert!(told["error in stream"]["error"].is_string(), "{}", told["error in stream"]);
    for case in ["thinking", "thinking streamed"] {
        assert_eq!(told[case]["thinking"], "First I think, zuerst, then I speak.");
        assert_eq!(told[case]["signatures"], json!(["c3R1Yi1zaWduYXR1cmU="]));
    }
    assert_eq!(told["count"]["input"], INPUT);
}

#[test]
fn gemini() {
    let stub = stub();
    let Some(told) = drive("gemini", &stub.gemini_url()) else { return };
    let expected = Expected {
        stop: "STOP",
        length: "MAX_TOKENS",
        calls: "STOP",
        cached: 30,
        refused: &[
            ("stub-400", "ClientError", Some(400)),
            ("stub-402", "ClientError", Some(402)),
            ("stub-429", "ClientError", Some(429)),
            ("stub-429-spend-limit", "ClientError", Some(429)),
            ("stub-500", "ServerError", Some(500)),
            ("stub-503", "ServerError", Some(503)),
            ("stub-529", "ServerError", Some(529)),
            ("error in stream", "ServerError", Some(529)),
            ("another key", "ClientError", Some(403)),
        ],
    };
    assert_told(&stub, &told, &expected);
    for case in ["thinking", "thinking streamed"] {
        assert_eq!(told[case]["thinking"], "First I think, zuerst, then I speak.");
    }
    assert_eq!(told["tools streamed"]["signatures"], json!(["stub-signature"]));
    assert_eq!(told["count"]["input"], INPUT);
}
