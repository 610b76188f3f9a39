//! Test helpers: providers that call the stub, calls, and their results.

use std::sync::Arc;
use std::time::Duration;

use domain::ai::{
    AnswerDelta, Conversation, ConversationTurn, Dialect, ModelId, ProviderProfile, ReportedUsage, Speaker,
};
use domain::usage::HoldId;
use futures_util::StreamExt;
use ports::ai::{
    AiOperation, AiProvider, CallContent, CallReservation, NativeCall, ProviderCall, ProviderFault, ProviderReply,
    ReplyPiece, StreamFraming,
};
use product_base_adapters::ai::{HttpProvider, ProviderAccess, ProviderTimeouts};
use product_base_adapters::clock::SystemClock;
use testkit::upstream::Upstream;
use uuid::Uuid;

pub const TIMEOUTS: ProviderTimeouts = ProviderTimeouts {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    total: Duration::from_secs(30),
};

pub fn provider(stub: &Upstream, provider: Dialect) -> HttpProvider {
    with_timeouts(stub, provider, TIMEOUTS)
}

pub fn with_timeouts(stub: &Upstream, provider: Dialect, timeouts: ProviderTimeouts) -> HttpProvider {
    let base_url = match provider {
        Dialect::OpenAiChat => stub.openai_url(),
        Dialect::Anthropic => stub.anthropic_url(),
        Dialect::Gemini => stub.gemini_url(),
    };
    let access = ProviderAccess::of(&base_url, "the-key");
    HttpProvider::new(profile_of(provider), access, timeouts, Arc::new(SystemClock)).unwrap()
}

/// The built-in provider of a dialect.
pub fn profile_of(dialect: Dialect) -> ProviderProfile {
    ProviderProfile::BUILT_IN.into_iter().find(|profile| profile.dialect == dialect).unwrap()
}

pub fn hold() -> CallReservation {
    CallReservation::granted(HoldId(Uuid::from_u128(7)))
}

/// The body of a small request in the provider's format.
pub fn body_of(provider: Dialect) -> &'static str {
    match provider {
        Dialect::OpenAiChat => r#"{"model":"m","messages":[{"role":"user","content":"one two three"}]}"#,
        Dialect::Anthropic => {
            r#"{"model":"m","max_tokens":1000,"messages":[{"role":"user","content":"one two three"}]}"#
        }
        Dialect::Gemini => r#"{"contents":[{"role":"user","parts":[{"text":"one two three"}]}]}"#,
    }
}

pub fn native(provider: Dialect, body: &str, streamed: bool) -> ProviderCall {
    let native = NativeCall {
        operation: AiOperation::Chat,
        body: body.to_owned(),
        headers: Vec::new(),
        framing: StreamFraming::ServerSentEvents,
    };
    call(provider, CallContent::Native(native), streamed)
}

/// A call with Gemini's array stream.
pub fn in_array(body: &str) -> ProviderCall {
    let mut call = native(Dialect::Gemini, body, true);
    let CallContent::Native(native) = &mut call.content else { unreachable!() };
    native.framing = StreamFraming::JsonArray;
    call
}

pub fn of_operation(provider: Dialect, operation: AiOperation, body: &str) -> ProviderCall {
    let mut call = native(provider, body, false);
    let CallContent::Native(native) = &mut call.content else { unreachable!() };
    native.operation = operation;
    call
}

pub fn conversing(provider: Dialect, conversation: Conversation, streamed: bool) -> ProviderCall {
    call(provider, CallContent::Conversation(conversation), streamed)
}

pub fn saying(text: &str) -> Conversation {
    Conversation { turns: vec![ConversationTurn::text(Speaker::User, text)], ..Conversation::default() }
}

fn call(provider: Dialect, content: CallContent, streamed: bool) -> ProviderCall {
    ProviderCall {
        provider: profile_of(provider),
        model: ModelId::parse("m").unwrap(),
        content,
        streamed,
        max_output_tokens: None,
    }
}

/// The whole result of a call.
#[derive(Debug, Default)]
pub struct Got {
    pub request_id: Option<String>,
    pub model: Option<String>,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub pieces: Vec<ReplyPiece>,
    /// The fault that ended the call, before or after its first piece.
    pub fault: Option<ProviderFault>,
}

impl Got {
    pub fn frames(&self) -> String {
        String::from_utf8(self.pieces.iter().flat_map(|piece| piece.frame.clone()).collect()).unwrap()
    }

    /// Adjacent deltas of one kind are joined, since the network decides where a text is cut.
    pub fn deltas(&self) -> Vec<AnswerDelta> {
        let mut joined: Vec<AnswerDelta> = Vec::new();
        for delta in self.pieces.iter().flat_map(|piece| piece.deltas.clone()) {
            match (joined.last_mut(), &delta) {
                (Some(AnswerDelta::Text(before)), AnswerDelta::Text(text))
                | (Some(AnswerDelta::Thinking(before)), AnswerDelta::Thinking(text)) => before.push_str(text),
                (
                    Some(AnswerDelta::ToolArguments { index: of, json: before }),
                    AnswerDelta::ToolArguments { index, json },
                ) if of == index => {
                    before.push_str(json);
                }
                _ => joined.push(delta),
            }
        }
        joined
    }

    pub fn usage(&self) -> Option<ReportedUsage> {
        let mut reports = self.pieces.iter().filter_map(|piece| piece.usage.clone());
        let first = reports.next()?;
        Some(reports.fold(first, ReportedUsage::followed_by))
    }

    /// Asserts a complete reply: exactly one last piece, and no fault.
    #[track_caller]
    pub fn is_whole(&self) {
        assert_eq!(self.fault, None);
        let last: Vec<bool> = self.pieces.iter().map(|piece| piece.is_last).collect();
        assert_eq!(last.iter().filter(|is_last| **is_last).count(), 1, "{last:?}");
        assert_eq!(last.last(), Some(&true));
    }
}

pub async fn ask(provider: &dyn AiProvider, call: &ProviderCall) -> Got {
    match provider.send(hold(), call).await {
        Ok(reply) => drain(reply).await,
        Err((returned, fault)) => {
            assert_eq!(returned, hold(), "the hold comes back");
            Got { fault: Some(fault), ..Got::default() }
        }
    }
}

async fn drain(reply: ProviderReply) -> Got {
    let ProviderReply { hold: returned, request_id, model, content_type, headers, mut pieces } = reply;
    assert_eq!(returned, hold());
    let mut got = Got { request_id, model, content_type, headers, ..Got::default() };
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => got.pieces.push(piece),
            Err(fault) => {
                got.fault = Some(fault);
                assert!(pieces.next().await.is_none(), "a fault is the last item");
                break;
            }
        }
    }
    got
}
