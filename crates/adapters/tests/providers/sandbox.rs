//! The sandbox as a provider, and the provider without an API key.

use std::sync::Arc;

use domain::ai::{AnswerDelta, Conversation, Dialect, FinishReason, ToolDefinition};
use ports::ai::{AiOperation, AiProvider, ProviderFault, TokenCounter};
use product_base_adapters::ai::KeylessProvider;
use product_base_adapters::ai::sandbox::SandboxProvider;
use product_base_adapters::ai::token_counter::O200kCounter;
use serde_json::Value;

use crate::asking::{ask, body_of, conversing, native, of_operation, saying};

fn sandbox() -> SandboxProvider {
    SandboxProvider::new(Arc::new(O200kCounter))
}

fn text(deltas: &[AnswerDelta]) -> String {
    deltas.iter().map(AnswerDelta::text).collect()
}

#[tokio::test]
async fn it_says_the_same_whole_and_streamed_and_counts_what_it_says() {
    let sandbox = sandbox();
    assert!(sandbox.is_sandbox());
    for of in Dialect::ALL {
        let whole = ask(&sandbox, &conversing(of, saying("Guten Tag, 東京"), false)).await;
        let streamed = ask(&sandbox, &conversing(of, saying("Guten Tag, 東京"), true)).await;
        whole.is_whole();
        streamed.is_whole();
        assert_eq!((whole.pieces.len(), whole.deltas()), (1, streamed.deltas()));
        assert!(streamed.pieces.len() > 10 && text(&streamed.deltas()).contains("\"Guten Tag, 東京\""));
        assert_eq!(whole.usage(), streamed.usage());
        let tokens = whole.usage().unwrap().read().usage.tokens;
        assert_eq!(tokens.input(), O200kCounter.count("Guten Tag, 東京"));
        // The output is counted word by word, as it was streamed: close to the count of the whole.
        let at_once = O200kCounter.count(&text(&whole.deltas()));
        assert!(tokens.output() >= at_once && tokens.output() <= at_once * 2, "{} {at_once}", tokens.output());
        assert_eq!(whole.deltas().pop(), Some(AnswerDelta::Finished(FinishReason::Stop)));
        assert_eq!(whole.model.as_deref(), Some("m"));
    }
}

#[tokio::test]
async fn it_stops_at_its_bound() {
    for bound in [0, 1, 5, 12] {
        let mut call = conversing(Dialect::Anthropic, saying("hello"), true);
        call.max_output_tokens = Some(bound);
        let got = ask(&sandbox(), &call).await;
        got.is_whole();
        let output = got.usage().unwrap().read().usage.tokens.output();
        assert!(output <= bound && output + 3 >= bound, "{output} of {bound}");
        assert_eq!(got.deltas().pop(), Some(AnswerDelta::Finished(FinishReason::Length)));
    }
}

#[tokio::test]
async fn it_calls_a_tool_that_is_named() {
    let tool = ToolDefinition { name: "get_time".into(), description: None, parameters: None };
    let conversation = Conversation { tools: vec![tool], ..saying("please get_time") };
    let got = ask(&sandbox(), &conversing(Dialect::OpenAiChat, conversation.clone(), false)).await;
    assert_eq!(
        got.deltas(),
        [
            AnswerDelta::ToolCallBegun { index: 0, id: "call_sandbox_1_0".into(), name: "get_time".into() },
            AnswerDelta::ToolArguments { index: 0, json: "{}".into() },
            AnswerDelta::Finished(FinishReason::ToolCalls),
        ]
    );
    let mut call = conversing(Dialect::OpenAiChat, conversation, false);
    call.max_output_tokens = Some(1);
    let got = ask(&sandbox(), &call).await;
    assert_eq!(got.deltas(), [AnswerDelta::Finished(FinishReason::Length)]);
}

#[tokio::test]
async fn it_embeds_and_counts_and_takes_no_foreign_chat() {
    let call = of_operation(Dialect::OpenAiChat, AiOperation::Embeddings, r#"{"input":"one two"}"#);
    let got = ask(&sandbox(), &call).await;
    got.is_whole();
    let body: Value = serde_json::from_str(&got.frames()).unwrap();
    assert_eq!((body["model"].as_str(), body["data"][0]["embedding"].as_array().unwrap().len()), (Some("m"), 1_536));
    assert_eq!(got.usage().unwrap().read().usage.tokens.uncached_input, 2);
    let call =
        of_operation(Dialect::Gemini, AiOperation::CountTokens, r#"{"contents":[{"parts":[{"text":"one two"}]}]}"#);
    assert_eq!(ask(&sandbox(), &call).await.frames(), r#"{"totalTokens":2}"#);
    for of in Dialect::ALL {
        let got = ask(&sandbox(), &native(of, body_of(of), false)).await;
        assert!(matches!(got.fault, Some(ProviderFault::Refused(_))), "{of}");
    }
}

#[tokio::test]
async fn a_provider_without_a_key_names_the_setting() {
    for (of, setting) in [
        (Dialect::OpenAiChat, "PB__AI__OPENAI__API_KEY"),
        (Dialect::Anthropic, "PB__AI__CLAUDE__API_KEY"),
        (Dialect::Gemini, "PB__AI__GEMINI__API_KEY"),
    ] {
        let keyless = KeylessProvider::new(setting.to_owned());
        assert!(!keyless.is_sandbox());
        let got = ask(&keyless, &conversing(of, saying("hi"), false)).await;
        assert_eq!(got.fault, Some(ProviderFault::NoKey { setting: setting.to_owned() }));
    }
}
