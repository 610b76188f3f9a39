//! How the tests ask: providers of the stub, calls, and what came of them.

use std::sync::Arc;
use std::time::Duration;

use domain::ai::{Conversation, Delta, ModelId, Provider, ReportedUsage, Speaker, Turn};
use domain::usage::HoldId;
use futures_util::StreamExt;
use ports::ai::{
    AiProvider, CallContent, CallHold, Framing, NativeCall, Operation, ProviderCall, ProviderFault, Reply, ReplyPiece,
};
use product_base_adapters::ai::{Access, HttpProvider, Timeouts};
use product_base_adapters::clock::SystemClock;
use testkit::upstream::Upstream;
use uuid::Uuid;

pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    first_byte: Duration::from_secs(10),
    idle: Duration::from_secs(10),
    total: Duration::from_secs(30),
};

pub fn provider(stub: &Upstream, provider: Provider) -> HttpProvider {
    with_timeouts(stub, provider, TIMEOUTS)
}

pub fn with_timeouts(stub: &Upstream, provider: Provider, timeouts: Timeouts) -> HttpProvider {
    let base_url = match provider {
        Provider::OpenAi => stub.openai_url(),
        Provider::Claude => stub.anthropic_url(),
        Provider::Gemini => stub.gemini_url(),
    };
    let access = Access { base_url: &base_url, api_key: "the-key" };
    HttpProvider::new(provider, access, timeouts, Arc::new(SystemClock)).unwrap()
}

pub fn hold() -> CallHold {
    CallHold::granted(HoldId(Uuid::from_u128(7)))
}

/// A body that asks for little, in the words of the provider.
pub fn body_of(provider: Provider) -> &'static str {
    match provider {
        Provider::OpenAi => r#"{"model":"m","messages":[{"role":"user","content":"one two three"}]}"#,
        Provider::Claude => r#"{"model":"m","max_tokens":1000,"messages":[{"role":"user","content":"one two three"}]}"#,
        Provider::Gemini => r#"{"contents":[{"role":"user","parts":[{"text":"one two three"}]}]}"#,
    }
}

pub fn native(provider: Provider, body: &str, streamed: bool) -> ProviderCall {
    let native = NativeCall {
        operation: Operation::Chat,
        body: body.to_owned(),
        headers: Vec::new(),
        framing: Framing::ServerSentEvents,
    };
    call(provider, CallContent::Native(native), streamed)
}

/// Gemini's array.
pub fn in_array(body: &str) -> ProviderCall {
    let mut call = native(Provider::Gemini, body, true);
    let CallContent::Native(native) = &mut call.content else { unreachable!() };
    native.framing = Framing::JsonArray;
    call
}

pub fn of_operation(provider: Provider, operation: Operation, body: &str) -> ProviderCall {
    let mut call = native(provider, body, false);
    let CallContent::Native(native) = &mut call.content else { unreachable!() };
    native.operation = operation;
    call
}

pub fn conversing(provider: Provider, conversation: Conversation, streamed: bool) -> ProviderCall {
    call(provider, CallContent::Conversation(conversation), streamed)
}

pub fn saying(text: &str) -> Conversation {
    Conversation { turns: vec![Turn::text(Speaker::User, text)], ..Conversation::default() }
}

fn call(provider: Provider, content: CallContent, streamed: bool) -> ProviderCall {
    ProviderCall { provider, model: ModelId::parse("m").unwrap(), content, streamed, max_output_tokens: None }
}

/// Everything that came of a call.
#[derive(Debug, Default)]
pub struct Got {
    pub request_id: Option<String>,
    pub model: Option<String>,
    pub content_type: String,
    pub headers: Vec<(String, String)>,
    pub pieces: Vec<ReplyPiece>,
    /// What ended it, before or after its first piece.
    pub fault: Option<ProviderFault>,
}

impl Got {
    pub fn frames(&self) -> String {
        String::from_utf8(self.pieces.iter().flat_map(|piece| piece.frame.clone()).collect()).unwrap()
    }

    /// Neighbours of one kind joined, since where a text is cut is the network's matter.
    pub fn deltas(&self) -> Vec<Delta> {
        let mut joined: Vec<Delta> = Vec::new();
        for delta in self.pieces.iter().flat_map(|piece| piece.deltas.clone()) {
            match (joined.last_mut(), &delta) {
                (Some(Delta::Text(before)), Delta::Text(text))
                | (Some(Delta::Thinking(before)), Delta::Thinking(text)) => before.push_str(text),
                (Some(Delta::ToolArguments { index: of, json: before }), Delta::ToolArguments { index, json })
                    if of == index =>
                {
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

    /// Whole: one last piece, and no fault.
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

async fn drain(reply: Reply) -> Got {
    let Reply { hold: returned, request_id, model, content_type, headers, mut pieces } = reply;
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
