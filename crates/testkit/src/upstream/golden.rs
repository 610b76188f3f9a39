//! Compares the bytes of every kind of response with texts written by hand.

use super::ask::{UpstreamDialect, understand};
use super::http::UpstreamRequest;
use super::refusals::{Refusal, RetryAfter, Why};
use super::reply::{self, UpstreamReply};
use super::script::{Fault, FinishTold, Script, UsageTold};
use super::steps::PlayStep;
use super::usage::UsageParts;

const OPENAI: &str = "/v1/chat/completions";
const ANTHROPIC: &str = "/v1/messages";
const GEMINI: &str = "/v1beta/models/m:generateContent";
const GEMINI_STREAM: &str = "/v1beta/models/m:streamGenerateContent";

fn request(target: &str, body: &str) -> UpstreamRequest {
    let headers = ["authorization: Bearer k", "x-goog-api-key: k", "anthropic-version: 2023-06-01"];
    let headers = headers.iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let method = if body.is_empty() { "GET" } else { "POST" };
    UpstreamRequest { number: 1, method: method.to_owned(), target: target.to_owned(), headers, body: body.into() }
}

fn reply(target: &str, body: &str, script: &Script) -> UpstreamReply {
    match understand(&request(target, body), None) {
        Ok(ask) => reply::to(&ask, script, 1, &["m".to_owned()]),
        Err((dialect, refusal)) => reply::refused(dialect, &refusal, 1),
    }
}

/// Head and body, without the framing of HTTP chunks.
fn sent(reply: &UpstreamReply) -> (String, String) {
    let mut wire = Vec::new();
    for step in &reply.steps {
        if let PlayStep::Write { wire: part, .. } = step {
            wire.extend_from_slice(part);
        }
    }
    let wire = String::from_utf8(wire).unwrap();
    let (head, rest) = wire.split_once("\r\n\r\n").unwrap();
    if !head.contains("chunked") {
        return (head.to_owned(), rest.to_owned());
    }
    let (mut body, mut rest) = (String::new(), rest);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let (chunk, beyond) = after.split_at(usize::from_str_radix(size, 16).unwrap());
        body.push_str(chunk);
        rest = beyond.strip_prefix("\r\n").unwrap();
    }
    (head.to_owned(), body)
}

fn body(target: &str, asked: &str, script: &Script) -> String {
    sent(&reply(target, asked, script)).1
}

fn used(reply: &UpstreamReply) -> UsageParts {
    let all =
        reply.steps.iter().filter_map(|step| if let PlayStep::Write { used, .. } = step { Some(*used) } else { None });
    all.max_by_key(|used| used.input() + used.output()).unwrap()
}

/// Anthropic's stream, built from the data alone: the events are named after their types.
fn anthropic(data: &[&str]) -> String {
    let name = |data: &str| data.split('"').nth(3).unwrap().to_owned();
    let events: Vec<String> = data.iter().map(|data| format!("event: {}\ndata: {data}\n\n", name(data))).collect();
    events.concat()
}

#[test]
fn openai_plain() {
    let script = Script::says("Grüße 東京").thinking("a b c").calling("look", r#"{"at": "é"}"#).tier("flex");
    let script = script.using(UsageParts { cache_read: 5, cache_write_short: 4, image_in: 2, ..UsageParts::default() });
    let asked = r#"{"model":"m","n":2,"messages":[{"role":"user","content":"one two"},{"role":"user","content":[{"type":"text","text":"three"}]}]}"#;
    let reply = reply(OPENAI, asked, &script);
    let (head, body) = sent(&reply);
    let choice = |index: u8| {
        format!(
            r#"{{"index":{index},"message":{{"role":"assistant","content":"Grüße 東京","refusal":null,"tool_calls":[{{"id":"call_stub1_{index}_0","type":"function","function":{{"name":"look","arguments":"{{\"at\": \"é\"}}"}}}}],"annotations":[]}},"logprobs":null,"finish_reason":"tool_calls"}}"#
        )
    };
    // A choice has three thinking words, two words, and a call of three tokens: its name, `{"at":` and ` "é"}`.
    let usage = r#"{"prompt_tokens":14,"completion_tokens":16,"total_tokens":30,"prompt_tokens_details":{"cached_tokens":5,"audio_tokens":0,"cache_write_tokens":4,"image_tokens":2},"completion_tokens_details":{"reasoning_tokens":6,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;
    let (first, second) = (choice(0), choice(1));
    let expected = format!(
        r#"{{"id":"chatcmpl-stub1","object":"chat.completion","created":1767225600,"model":"m","choices":[{first},{second}],"usage":{usage},"service_tier":"flex","system_fingerprint":"fp_stub"}}"#
    );
    assert_eq!(body, expected);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_stub1\r\n"),
        "{head}"
    );
    assert!(head.ends_with(&format!("content-length: {}", expected.len())), "{head}");
    let expected =
        UsageParts { uncached_in: 3, cache_read: 5, cache_write_short: 4, image_in: 2, ..UsageParts::default() };
    assert_eq!(used(&reply), UsageParts { out_visible: 10, out_reasoning: 6, ..expected });
}

#[test]
fn openai_stream() {
    let script = Script::says("é b").calling("f", "{}");
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"messages":[{"content":"x"}]}"#;
    let chunk = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-stub1\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"m\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_stub\",\"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        )
    };
    let delta = |delta: &str, finish: &str| {
        let choice = format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}"#);
        chunk(&choice, "null")
    };
    let usage = r#"{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;
    let call = r#"{"tool_calls":[{"index":0,"id":"call_stub1_0_0","type":"function","function":{"name":"f","arguments":""}}]}"#;
    let mut expected = [
        delta(r#"{"role":"assistant","content":"","refusal":null}"#, "null"),
        delta(r#"{"content":"é"}"#, "null"),
        delta(r#"{"content":" b"}"#, "null"),
        delta(call, "null"),
        delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#, "null"),
        delta("{}", "\"tool_calls\""),
        chunk("", usage),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(body(OPENAI, asked, &script), expected.concat());
    let zero = expected[6].replace(
        "\"prompt_tokens\":1,\"completion_tokens\":4,\"total_tokens\":5",
        "\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0",
    );
    expected[6] = zero;
    assert_eq!(body(OPENAI, asked, &script.clone().telling(UsageTold::Zero)), expected.concat());
    expected[6] = String::new();
    assert_eq!(body(OPENAI, asked, &script.clone().telling(UsageTold::Absent)), expected.concat());
    // Without `include_usage` the client gets no usage, not even the empty field, and gets the padding.
    let asked = r#"{"model":"m","stream":true,"messages":[{"content":"x"}]}"#;
    let plain = body(OPENAI, asked, &script);
    assert!(!plain.contains("usage") && plain.contains(r#""finish_reason":null}],"obfuscation":""#), "{plain}");
}

#[test]
fn anthropic_plain_and_streamed() {
    let script = Script::says("hi é").thinking("so").calling("f", r#"{"a": 1}"#);
    let script = script.using(UsageParts {
        cache_read: 7,
        cache_write_short: 2,
        cache_write_long: 3,
        web_searches: 1,
        ..UsageParts::default()
    });
    let asked = r#"{"model":"m","max_tokens":99,"system":"be kind","messages":[{"role":"user","content":"x"}]}"#;
    let input = r#""input_tokens":3,"cache_creation_input_tokens":5,"cache_read_input_tokens":7,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":3}"#;
    let usage = format!(
        r#"{{{input},"output_tokens":6,"service_tier":"standard","server_tool_use":{{"web_search_requests":1}}}}"#
    );
    let message = r#""id":"msg_stub1","type":"message","role":"assistant","model":"m""#;
    assert_eq!(
        body(ANTHROPIC, asked, &script),
        format!(
            r#"{{{message},"content":[{{"type":"thinking","thinking":"so","signature":"c3R1Yi1zaWduYXR1cmU="}},{{"type":"text","text":"hi é"}},{{"type":"tool_use","id":"toolu_stub1_0","name":"f","input":{{"a": 1}}}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{usage}}}"#
        )
    );
    let start = format!(
        r#"{{"type":"message_start","message":{{{message},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{{{input},"output_tokens":1,"service_tier":"standard"}}}}}}"#
    );
    let end = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"tool_use","stop_sequence":null}},"usage":{usage}}}"#
    );
    let expected = anthropic(&[
        &start,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"so"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c3R1Yi1zaWduYXR1cmU="}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"hi"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" é"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_stub1_0","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":" 1}"}}"#,
        r#"{"type":"content_block_stop","index":2}"#,
        &end,
        r#"{"type":"message_stop"}"#,
    ]);
    let streamed = asked.replace("\"model\"", "\"stream\":true,\"model\"");
    assert_eq!(body(ANTHROPIC, &streamed, &script), expected);
    let counted = body("/v1/messages/count_tokens", r#"{"model":"m","messages":[{"content":"a b"}]}"#, &script);
    assert_eq!(counted, r#"{"input_tokens":14}"#);
}

#[test]
fn gemini_plain_and_both_streams() {
    let script = Script::says("hi é").thinking("so").calling("f", r#"{"a": 1}"#).tier("ON_DEMAND");
    let script = script.using(UsageParts { cache_read: 7, tool_prompt: 2, audio_in: 3, ..UsageParts::default() });
    let asked =
        r#"{"contents":[{"role":"user","parts":[{"text":"x y"}]}],"systemInstruction":{"parts":[{"text":"z"}]}}"#;
    let response = |parts: &str, finish: &str, visible: u8, thoughts: &str, total: u8| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}}{finish},"index":0}}],"usageMetadata":{{"promptTokenCount":13,"candidatesTokenCount":{visible},"cachedContentTokenCount":7,"toolUsePromptTokenCount":2{thoughts},"totalTokenCount":{total},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":10}},{{"modality":"AUDIO","tokenCount":3}}],"trafficType":"ON_DEMAND"}},"modelVersion":"m","responseId":"stub1"}}"#
        )
    };
    let (thought, call) = (
        r#"{"text":"so","thought":true}"#,
        r#"{"functionCall":{"name":"f","args":{"a": 1}},"thoughtSignature":"c3R1Yi1zaWduYXR1cmU="}"#,
    );
    let (one, stop) = (r#","thoughtsTokenCount":1"#, r#","finishReason":"STOP""#);
    let whole = format!(r#"{thought},{{"text":"hi é"}},{call}"#);
    assert_eq!(body(GEMINI, asked, &script), response(&whole, stop, 5, one, 21));
    let chunks = [
        response(thought, "", 0, one, 16),
        response(r#"{"text":"hi"}"#, "", 1, one, 17),
        response(r#"{"text":" é"}"#, "", 2, one, 18),
        response(call, "", 5, one, 21),
        response(r#"{"text":""}"#, stop, 5, one, 21),
    ];
    let events: Vec<String> = chunks.iter().map(|chunk| format!("data: {chunk}\r\n\r\n")).collect();
    assert_eq!(body(&format!("{GEMINI_STREAM}?alt=sse"), asked, &script), events.concat());
    assert_eq!(body(GEMINI_STREAM, asked, &script), format!("[{}]", chunks.join(",\r\n")));
    let counted = body("/v1/models/a%2Fb:countTokens", asked, &script);
    assert_eq!(counted, r#"{"totalTokens":15}"#);
    let late = body(GEMINI_STREAM, asked, &script.clone().telling(UsageTold::Late(std::time::Duration::from_secs(1))));
    assert_eq!(late.matches("usageMetadata").count(), 1);
    let blocked = body(GEMINI, asked, &Script::words(3).finishing(FinishTold::PromptBlocked));
    let expected = r#"{"promptFeedback":{"blockReason":"SAFETY","safetyRatings":[]},"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":0,"totalTokenCount":3,"promptTokensDetails":[{"modality":"TEXT","tokenCount":3}]},"modelVersion":"m","responseId":"stub1"}"#;
    assert_eq!(blocked, expected);
}

#[test]
fn what_decides_a_price_is_told_where_each_provider_tells_it() {
    let besides = UsageParts { image_out: 5, audio_out: 2, out_rejected: 3, ..UsageParts::default() };
    let mut script = Script::words(1).using(besides).tier("fast").finishing(FinishTold::Filtered);
    script.answer.geo = Some("us".to_owned());
    script.answer.input_tokens = Some(1000);
    let asked = r#"{"model":"m","max_tokens":9,"messages":[1],"contents":[1]}"#;
    for (target, told, output) in [
        (OPENAI, r#""service_tier":"fast""#, 11),
        (
            OPENAI,
            r#""completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":2,"accepted_prediction_tokens":0,"rejected_prediction_tokens":3,"image_tokens":5}"#,
            11,
        ),
        (OPENAI, r#""finish_reason":"content_filter""#, 11),
        (ANTHROPIC, r#""input_tokens":1000,"#, 1),
        (ANTHROPIC, r#""output_tokens":1,"service_tier":"standard","speed":"fast","inference_geo":"us"}"#, 1),
        (ANTHROPIC, r#""stop_reason":"refusal""#, 1),
        (GEMINI, r#""candidatesTokenCount":8,"totalTokenCount":1008,"#, 8),
        (
            GEMINI,
            r#""candidatesTokensDetails":[{"modality":"TEXT","tokenCount":1},{"modality":"AUDIO","tokenCount":2},{"modality":"IMAGE","tokenCount":5}],"trafficType":"fast""#,
            8,
        ),
        (GEMINI, r#""finishReason":"SAFETY""#, 8),
    ] {
        let reply = reply(target, asked, &script);
        assert!(sent(&reply).1.contains(told), "{}", sent(&reply).1);
        assert_eq!((used(&reply).uncached_in, used(&reply).output()), (1000, output), "{target}");
    }
}

#[test]
fn a_limit_cuts_off_and_says_so() {
    let script = Script::words(5).thinking("a b").calling("f", r#"{"a": 1}"#);
    let asked = |limit: u8| {
        format!(
            r#"{{"model":"m","max_tokens":{limit},"messages":[{{"content":"x"}}],"contents":[1],"generationConfig":{{"maxOutputTokens":{limit}}}}}"#
        )
    };
    for (target, length) in [(OPENAI, "\"length\""), (ANTHROPIC, "\"max_tokens\""), (GEMINI, "\"MAX_TOKENS\"")] {
        // Two thinking words and five words, the name of the call, and one of the two words of its arguments.
        for (limit, reasoning, visible) in [(1, 1, 0), (3, 2, 1), (9, 2, 7)] {
            let reply = reply(target, &asked(limit), &script);
            assert_eq!(
                (used(&reply).out_reasoning, used(&reply).out_visible),
                (reasoning, visible),
                "{target} {limit}"
            );
            assert!(sent(&reply).1.contains(length), "{target} {limit}");
        }
        let reply = reply(target, &asked(10), &script);
        assert_eq!(used(&reply).output(), 10);
        assert!(!sent(&reply).1.contains(length), "{target}");
    }
}

#[test]
fn embeddings_and_models() {
    let asked = r#"{"model":"m","input":["a b","c"],"dimensions":3}"#;
    let expected = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.125,0.25,0.375]},{"object":"embedding","index":1,"embedding":[0.125,0.25,0.375]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    assert_eq!(body("/v1/embeddings", asked, &Script::default()), expected);
    let asked = r#"{"model":"m","input":[5,6],"dimensions":1,"encoding_format":"base64"}"#;
    // 0.125 is 0x3e000000.
    let expected = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAAPg=="}],"model":"m","usage":{"prompt_tokens":2,"total_tokens":2}}"#;
    assert_eq!(body("/v1/embeddings", asked, &Script::default()), expected);
    let asked = r#"{"requests":[{"content":{"parts":[{"text":"a b"}]}},{"content":{"parts":[{"text":"c"}]}}]}"#;
    let expected = r#"{"embeddings":[{"values":[0.125,0.25,0.375]},{"values":[0.125,0.25,0.375]}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}"#;
    assert_eq!(body("/v1beta/models/m:batchEmbedContents", asked, &Script::default()), expected);
    let model = r#"{"id":"m","object":"model","created":1767225600,"owned_by":"stub"}"#;
    assert_eq!(body("/v1/models", "", &Script::default()), format!(r#"{{"object":"list","data":[{model}]}}"#));
    assert_eq!(body("/v1/models/m", "", &Script::default()), model);
}

#[test]
fn refusals_have_the_providers_words() {
    let told = |why| {
        let refusal = Refusal { retry_after: Some(RetryAfter::Milliseconds(1500)), ..Refusal::of(why) };
        [UpstreamDialect::OpenAi, UpstreamDialect::Anthropic, UpstreamDialect::Gemini].map(|dialect| {
            let refused = refusal.rendered(dialect);
            let headers: Vec<String> = refused.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            format!("{} [{}] {}", refused.status, headers.join(", "), refused.body)
        })
    };
    assert_eq!(
        told(Why::SpendLimit),
        [
            r#"429 [retry-after-ms: 1500, retry-after: 2] {"error":{"message":"You exceeded your spend limit for this month.","type":"insufficient_quota","param":null,"code":"organization_spend_limit_exceeded"}}"#,
            r#"429 [retry-after: 2] {"type":"error","error":{"type":"rate_limit_error","message":"You exceeded your spend limit for this month.","details":{"error_code":"enforced_spend_limit_reached"}},"request_id":"req_stub"}"#,
            r#"429 [] {"error":{"code":429,"message":"You exceeded your spend limit for this month.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"SpendPerMonth"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"2s"}]}}"#,
        ]
    );
    let kinds = [
        (Why::Unpaid, 402, "insufficient_quota", "billing_error", "FAILED_PRECONDITION"),
        (Why::TooFast, 429, "requests", "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (Why::Broken, 500, "server_error", "api_error", "INTERNAL"),
        (Why::Unavailable, 503, "server_error", "api_error", "UNAVAILABLE"),
        (Why::TimedOut, 504, "server_error", "timeout_error", "DEADLINE_EXCEEDED"),
        (Why::Overloaded, 529, "server_error", "overloaded_error", "UNAVAILABLE"),
    ];
    for (why, status, openai, anthropic, gemini) in kinds {
        let bodies = told(why.clone());
        assert!(bodies.iter().all(|body| body.starts_with(&status.to_string())), "{bodies:?}");
        let said =
            bodies.iter().zip([openai, anthropic, gemini]).all(|(body, kind)| body.contains(&format!("\"{kind}\"")));
        assert!(said, "{bodies:?}");
    }
    let in_array = Refusal::too_fast(None).in_array();
    assert!(in_array.rendered(UpstreamDialect::Gemini).body.starts_with("[{\"error\""));
    assert!(in_array.rendered(UpstreamDialect::OpenAi).body.starts_with("{\"error\""));
}

#[test]
fn what_a_provider_checks_first() {
    let refused = |target: &str, asked: &str| {
        let reply = reply(target, asked, &Script::default());
        assert_eq!(used(&reply), UsageParts::default());
        (reply.status, sent(&reply).1)
    };
    let (no_model, no_limit) = (r#"{"messages":[1]}"#, r#"{"model":"m","messages":[1]}"#);
    assert_eq!(refused(OPENAI, no_model).0, 400);
    assert_eq!(refused(OPENAI, r#"{"model":"m","messages":[1],"n":0}"#).0, 400);
    assert_eq!(refused(OPENAI, "[]").0, 400);
    assert!(refused(ANTHROPIC, no_limit).1.contains("max_tokens: Field required"));
    assert!(refused(GEMINI, r#"{"contents":[]}"#).1.contains("INVALID_ARGUMENT"));
    assert!(
        refused(GEMINI, r#"{"contents":[1],"generationConfig":{"candidateCount":2}}"#).1.contains("INVALID_ARGUMENT")
    );
    assert_eq!(refused("/v1/completions", no_limit), (404, r#"{"error":{"message":"POST /v1/completions is not served","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#.to_owned()));
    assert_eq!(refused("/v1beta/models/m:embedContent", no_limit).0, 400);
    assert_eq!(refused("/v1beta/models/m:tuneModel", no_limit).0, 404);
    let mut bare = request(ANTHROPIC, no_limit);
    bare.headers.retain(|(name, _)| name == "authorization");
    assert!(matches!(understand(&bare, None), Err((UpstreamDialect::Anthropic, Refusal { why: Why::Invalid(_), .. }))));
    assert!(matches!(
        understand(&request(OPENAI, no_limit), Some("other")),
        Err((_, Refusal { why: Why::Unauthenticated, .. }))
    ));
    assert!(understand(&request(OPENAI, no_limit), Some("k")).is_ok());
}

#[test]
fn a_stream_breaks_in_its_own_words() {
    let stream = |target: &str, events: usize| {
        let fault = Fault::ErrorAfter { events, refusal: Refusal::of(Why::Overloaded) };
        body(
            target,
            r#"{"model":"m","stream":true,"max_tokens":9,"messages":[1],"contents":[1]}"#,
            &Script::says("a b").with_fault(fault),
        )
    };
    let error = r#"data: {"error":{"message":"Overloaded","type":"server_error","param":null,"code":null}}"#;
    assert!(stream(OPENAI, 2).ends_with(&format!("\n\n{error}\n\n")));
    let error =
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_stub"}"#;
    assert!(stream(ANTHROPIC, 2).ends_with(&format!("\n\nevent: error\ndata: {error}\n\n")));
    let error = r#"{"error":{"code":529,"message":"Overloaded","status":"UNAVAILABLE"}}"#;
    assert!(stream(&format!("{GEMINI_STREAM}?alt=sse"), 1).ends_with(&format!("\r\n\r\ndata: {error}\r\n\r\n")));
    assert!(stream(GEMINI_STREAM, 1).ends_with(&format!("}},\r\n{error}]")));
    assert_eq!(stream(GEMINI_STREAM, 0), format!("[{error}]"));
    let ended =
        body(OPENAI, r#"{"model":"m","stream":true,"messages":[1]}"#, &Script::fails(Fault::EndAfter { events: 3 }));
    assert_eq!((ended.matches("data: ").count(), ended.contains("[DONE]")), (3, false));
}
