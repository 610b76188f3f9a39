//! Rendering: an answer in the format of our own route, as one object, or as events: `start`, `delta`s, then `done`, or
//! `error`. `done` has the fields of the whole answer but for the text, and is sent once the call is stored.

use domain::ai::{AnswerDelta, FinishReason, ProviderId, TokenUsage, UsageSource};
use ports::ai::ReplyPiece;
use serde::Serialize;
use services::ai::answers::{AnswerHead, CallReceipt};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::ai_usage::AiTokensView;
use crate::http::dialects::rendering::{AnswerEnd, AnswerRenderer, Transcript};
use crate::http::prices::ProviderName;

/// The outcome of a call.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatOutcomeView {
    /// The id of the call, also in the usage log.
    pub id: Uuid,
    pub session_id: Option<Uuid>,
    #[schema(value_type = ProviderName)]
    pub provider: ProviderId,
    pub model: String,
    /// `stop`, `length`, `tool_calls` or `filtered`.
    #[schema(value_type = String)]
    pub finish_reason: FinishReason,
    pub usage: AiTokensView,
    /// Null for a call that is not billed.
    #[schema(example = "0.000123", required = true)]
    pub cost_usd: Option<String>,
    /// Tokens taken from the balance, since the plan's limit was reached.
    pub tokens_spent: i64,
    /// Where the numbers come from: `provider`, `estimated`, `partial` or `sandbox`.
    #[schema(value_type = String)]
    pub source: UsageSource,
    pub latency_ms: u64,
    /// What `max_tokens` was lowered to, if it was.
    pub lowered_to: Option<u64>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatAnswerMessage {
    pub role: &'static str,
    pub content: String,
}

/// A complete answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatAnswerView {
    #[serde(flatten)]
    pub outcome: ChatOutcomeView,
    pub message: ChatAnswerMessage,
}

#[derive(Serialize)]
struct StartView<'a> {
    id: Uuid,
    session_id: Option<Uuid>,
    provider: ProviderId,
    model: &'a str,
}

/// The state that both forms share.
struct Known {
    session_id: Option<Uuid>,
    head: Option<AnswerHead>,
    said: Transcript,
}

impl Known {
    fn outcome(&self, receipt: &CallReceipt, end: AnswerEnd<'_>) -> Option<ChatOutcomeView> {
        let head = self.head.as_ref()?;
        Some(ChatOutcomeView {
            id: receipt.call_id,
            session_id: self.session_id,
            provider: head.provider.id,
            model: head.model.to_string(),
            finish_reason: self.said.finish(end),
            usage: tokens(&receipt.usage),
            cost_usd: receipt.cost.map(|cost| cost.to_string()),
            tokens_spent: receipt.tokens_spent,
            source: receipt.source,
            latency_ms: receipt.latency_ms,
            lowered_to: head.lowered_to,
        })
    }
}

/// Renders one JSON object.
pub struct ChatAnswerBody(Known);

/// Renders server-sent events; the text is the id of the request, for an error.
pub struct ChatEvents(Known, String);

impl ChatAnswerBody {
    pub fn new(session_id: Option<Uuid>) -> Self {
        Self(Known { session_id, head: None, said: Transcript::default() })
    }
}

impl ChatEvents {
    pub fn new(session_id: Option<Uuid>, request_id: String) -> Self {
        Self(Known { session_id, head: None, said: Transcript::default() }, request_id)
    }
}

impl AnswerRenderer for ChatAnswerBody {
    fn content_type(&self, _: &AnswerHead) -> String {
        "application/json".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.0.head = Some(head.clone());
        Vec::new()
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        self.0.said.take(&piece.deltas);
        Vec::new()
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        let outcome = end.receipt().and_then(|receipt| self.0.outcome(receipt, end));
        let content = std::mem::take(&mut self.0.said.text);
        let answer = |outcome| ChatAnswerView { outcome, message: ChatAnswerMessage { role: "assistant", content } };
        outcome.map(answer).and_then(|answer| serde_json::to_vec(&answer).ok()).unwrap_or_default()
    }
}

impl AnswerRenderer for ChatEvents {
    fn content_type(&self, _: &AnswerHead) -> String {
        "text/event-stream".to_owned()
    }

    fn begin(&mut self, head: &AnswerHead) -> Vec<u8> {
        self.0.head = Some(head.clone());
        let (id, session_id, provider, model) =
            (head.call_id, self.0.session_id, head.provider.id, head.model.as_str());
        event("start", &StartView { id, session_id, provider, model })
    }

    fn piece(&mut self, piece: &ReplyPiece) -> Vec<u8> {
        let mut bytes = Vec::new();
        for delta in &piece.deltas {
            match delta {
                AnswerDelta::Text(text) => bytes.extend(event("delta", &serde_json::json!({ "text": text }))),
                other => self.0.said.take_call(other),
            }
        }
        bytes
    }

    fn end(&mut self, end: AnswerEnd<'_>) -> Vec<u8> {
        match end {
            AnswerEnd::Broken(problem) => event("error", &problem.body("", &self.1)),
            _ => match end.receipt().and_then(|receipt| self.0.outcome(receipt, end)) {
                Some(outcome) => event("done", &outcome),
                None => Vec::new(),
            },
        }
    }
}

fn tokens(usage: &TokenUsage) -> AiTokensView {
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let (input, output) = (whole(usage.input()), whole(usage.output()));
    AiTokensView { input, output, cached: whole(usage.cache_read), total: input.saturating_add(output) }
}

fn event(name: &str, data: &impl Serialize) -> Vec<u8> {
    // JSON can always express words and numbers, and it has no line break outside of a text.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use domain::ai::{ModelId, ProviderProfile};
    use domain::prices::NanoUsd;

    use super::*;
    use crate::http::problem::Problem;

    fn head() -> AnswerHead {
        AnswerHead {
            call_id: Uuid::nil(),
            provider: ProviderProfile::CLAUDE,
            model: ModelId::parse("claude-x").unwrap(),
            is_sandbox: false,
            request_id: None,
            content_type: "text/event-stream".to_owned(),
            headers: Vec::new(),
            lowered_to: Some(64),
        }
    }

    fn receipt() -> CallReceipt {
        CallReceipt {
            call_id: Uuid::nil(),
            usage: TokenUsage { uncached_input: 5, cache_read: 2, visible_output: 3, ..TokenUsage::default() },
            source: UsageSource::Provider,
            cost: Some(NanoUsd(1_500)),
            tokens_spent: 10,
            finish: Some(FinishReason::Stop),
            latency_ms: 7,
        }
    }

    fn said(text: &str) -> ReplyPiece {
        ReplyPiece { deltas: vec![AnswerDelta::Text(text.to_owned())], ..ReplyPiece::default() }
    }

    const DONE: &str = r#"{"id":"00000000-0000-0000-0000-000000000000","session_id":null,"provider":"claude","model":"claude-x","finish_reason":"stop","usage":{"input":7,"output":3,"cached":2,"total":10},"cost_usd":"0.0000015","tokens_spent":10,"source":"provider","latency_ms":7,"lowered_to":64"#;

    #[test]
    fn a_whole_answer_is_one_object() {
        let mut whole = ChatAnswerBody::new(None);
        assert!([whole.begin(&head()), whole.piece(&said("Hi ")), whole.piece(&said("there"))].concat().is_empty());
        let text = String::from_utf8(whole.end(AnswerEnd::Settled(&receipt()))).unwrap();
        assert_eq!(text, format!(r#"{DONE},"message":{{"role":"assistant","content":"Hi there"}}}}"#));
    }

    #[test]
    fn a_stream_starts_says_and_is_done() {
        let mut events = ChatEvents::new(None, "r1".to_owned());
        let pieces = [events.begin(&head()), events.piece(&said("Hi\n")), events.end(AnswerEnd::Settled(&receipt()))];
        let text = String::from_utf8(pieces.concat()).unwrap();
        let start =
            r#"{"id":"00000000-0000-0000-0000-000000000000","session_id":null,"provider":"claude","model":"claude-x"}"#;
        let expected = format!(
            "event: start\ndata: {start}\n\nevent: delta\ndata: {{\"text\":\"Hi\\n\"}}\n\nevent: done\ndata: {DONE}}}\n\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_cut_is_told_as_length_and_what_breaks_as_an_error() {
        let mut events = ChatEvents::new(None, "r1".to_owned());
        events.begin(&head());
        let cut = String::from_utf8(events.end(AnswerEnd::Cut(Some(&receipt())))).unwrap();
        assert!(cut.contains(r#""finish_reason":"length""#), "{cut}");
        let problem = Problem::unavailable("stopping", "The service stops.");
        let broken = String::from_utf8(events.end(AnswerEnd::Broken(&problem))).unwrap();
        assert!(broken.starts_with("event: error\ndata: {") && broken.contains("stopping"), "{broken}");
    }
}
