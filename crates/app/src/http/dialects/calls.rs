//! Calls: turns a body in a dialect into a call of the service, and chooses how its answer is rendered.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use domain::ai::{Conversation, Dialect, InputSize};
use domain::identity::Caller;
use domain::prices::ModelPurpose;
use ports::ai::{AiOperation, CallContent, NativeCall, StreamFraming};
use ports::clock::Clock;
use serde_json::Value;
use services::ai::AiService;
use services::ai::calls::{Call, CallerContext, OutputBound, ResolvedModel};
use tokio::task::spawn_blocking;

use super::delivery::{AnswerNotKept, AnswerWriting};
use super::dialect::GOOGLE_KEY;
use super::fallbacks::{ByWhom, translate, translation};
use super::leniency;
use super::rendering::{AnswerRenderer, RenderedFrame};
use super::request_summary::{OutputForm, RequestSummary, object, refused};
use super::sizing::weigh;
use crate::http::middleware::RequestActor;
use crate::http::problem::Problem;
use crate::http::replays::RepeatSigns;

/// Asks to lower the bound to what can be paid, instead of refusing the call.
const LOWER_MAX_TOKENS: &str = "x-product-base-lower-max-tokens";
/// Asks to reserve the whole bound of a stream before the call, not as the answer grows.
const STRICT_HOLD: &str = "x-product-base-strict-hold";
/// How long a provider's own header may be that is passed on, and how many there may be.
const PASSED_LENGTH_MAX: usize = 16 * 1_024;
const PASSED_MAX: usize = 32;
/// How many answers we end at most in a stream that a provider has cut.
const ANSWERS_ENDED: u64 = 128;
/// A longer body is parsed and counted outside the async runtime, which it would block.
const LONG_BODY: usize = 64 * 1_024;

/// Counts the tokens of a text.
pub type TokenCount<'a> = &'a dyn Fn(&str) -> u64;

/// A request at a gateway endpoint, before its body is read.
pub struct GatewayRequest {
    pub dialect: Dialect,
    pub operation: AiOperation,
    /// What identifies the call when it is sent again.
    pub signs: RepeatSigns,
    asking: CallerContext,
    headers: Result<Vec<(String, String)>, Problem>,
    may_be_lowered: bool,
    is_strict: bool,
    request_id: String,
    /// When it arrived, in seconds since 1970.
    created: i64,
}

impl GatewayRequest {
    pub fn of(request: &HttpRequest, caller: &Caller, dialect: Dialect, operation: AiOperation) -> Self {
        let headers = request.headers();
        Self {
            dialect,
            operation,
            signs: RepeatSigns::of(request, caller),
            asking: caller.into(),
            headers: passed(headers, dialect),
            may_be_lowered: is_asked(headers, LOWER_MAX_TOKENS),
            is_strict: asks_for_strict_hold(headers),
            request_id: request_id(request),
            created: request.app_data::<Data<dyn Clock>>().map_or(0, |clock| clock.now().timestamp()),
        }
    }

    /// The call that the body asks for, and how its answer is rendered.
    pub async fn prepare<R>(self, ai: Arc<AiService>, body: Bytes, read: R) -> Result<(Call, AnswerWriting), Problem>
    where
        R: FnOnce(&Value) -> Result<RequestSummary, Problem> + Send + 'static,
    {
        let headers = self.headers.clone()?;
        let (text, asked, input) = sized(&ai, self.dialect, body, read).await?;
        let purpose = match self.operation {
            AiOperation::Embeddings => ModelPurpose::Embedding,
            AiOperation::Chat | AiOperation::CountTokens => ModelPurpose::Chat,
        };
        let target = ai.target(&asked.model, None, purpose).await?;
        // Embeddings are not a conversation: the sandbox too takes them in the provider's own format.
        let is_native = target.takes_natively(self.dialect)
            || (self.operation == AiOperation::Embeddings && target.provider.dialect == self.dialect);
        // Whether another provider may answer instead.
        let may_change = is_native && self.operation == AiOperation::Chat;
        let frame = RenderedFrame {
            dialect: self.dialect,
            is_native,
            form: asked.form,
            include_usage: asked.include_usage,
            answers: asked.answers.min(ANSWERS_ENDED),
            created: self.created,
            input_tokens: input.likely(),
            request_id: self.request_id.clone(),
        };
        let content = if is_native {
            CallContent::Native(self.native(text, asked.form, headers))
        } else {
            CallContent::Conversation(self.translated(&text, &asked, &target)?)
        };
        let call = Call {
            asking: self.asking,
            target,
            content,
            streamed: asked.form != OutputForm::Whole,
            input,
            output: OutputBound {
                asked: asked.max_output_tokens,
                answers: asked.answers,
                may_be_lowered: self.may_be_lowered,
                is_strict: self.is_strict,
            },
            tier: asked.tier,
            geo: asked.geo.clone(),
            hold_id: None,
            keeping: None,
            retried_by_caller: false,
            translation: may_change.then(|| translation(self.dialect, asked.answers)),
        };
        let renderer: Box<dyn AnswerRenderer> =
            if may_change { Box::new(ByWhom::new(frame)) } else { frame.renderer() };
        let writing = AnswerWriting {
            renderer,
            is_streamed: call.streamed,
            native: if is_native { ai.providers().speaking(self.dialect).collect() } else { Vec::new() },
            sink: Box::new(AnswerNotKept),
        };
        Ok((call, writing))
    }

    fn native(&self, body: String, form: OutputForm, headers: Vec<(String, String)>) -> NativeCall {
        let framing = match form {
            OutputForm::Whole => StreamFraming::ServerSentEvents,
            OutputForm::Stream(framing) => framing,
        };
        NativeCall { operation: self.operation, body, headers, framing }
    }

    fn translated(&self, text: &str, asked: &RequestSummary, target: &ResolvedModel) -> Result<Conversation, Problem> {
        if self.operation == AiOperation::Embeddings {
            let why = format!("is {}'s, and embeddings are not translated; ask in its own dialect", target.provider.id);
            return Err(refused("model", why));
        }
        if target.provider.dialect == self.dialect {
            return leniency::conversation(self.dialect, &object(text)?);
        }
        translate(self.dialect, text, target.provider.id, asked.answers)
    }
}

/// The text of a body, what it asks for, and its size.
pub async fn sized<T, R>(
    ai: &Arc<AiService>,
    dialect: Dialect,
    body: Bytes,
    read: R,
) -> Result<(String, T, InputSize), Problem>
where
    T: Send + 'static,
    R: FnOnce(&Value) -> Result<T, Problem> + Send + 'static,
{
    let ai = Arc::clone(ai);
    let is_long = body.len() > LONG_BODY;
    let work = move || {
        let text = String::from_utf8(body.into()).map_err(|_| Problem::malformed("The body is not UTF-8."))?;
        let value = object(&text)?;
        let asked = read(&value)?;
        let input = weigh(dialect, &text, &value, &|text| ai.count(text));
        Ok((text, asked, input))
    };
    if !is_long {
        return work();
    }
    spawn_blocking(work).await.unwrap_or_else(|broken| Err(Problem::internal(&broken)))
}

/// Whether a request asks to reserve its whole bound before the call.
pub fn asks_for_strict_hold(headers: &HeaderMap) -> bool {
    is_asked(headers, STRICT_HOLD)
}

fn is_asked(headers: &HeaderMap, name: &str) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The headers of the dialect's own provider. None is dropped silently, except those that say who pays, which only the
/// gateway sets.
fn passed(headers: &HeaderMap, dialect: Dialect) -> Result<Vec<(String, String)>, Problem> {
    let prefix = match dialect {
        Dialect::OpenAiChat => "openai-",
        Dialect::Anthropic => "anthropic-",
        Dialect::Gemini => "x-goog-",
    };
    let own = headers.keys().map(HeaderName::as_str);
    let own: BTreeSet<&str> = own.filter(|name| name.starts_with(prefix) && *name != GOOGLE_KEY).collect();
    if own.len() > PASSED_MAX {
        return Err(too_large(format!("There are more than {PASSED_MAX} headers that begin with `{prefix}`.")));
    }
    let mut passed = Vec::with_capacity(own.len());
    for name in own {
        let values: Result<Vec<&str>, _> = headers.get_all(name).map(HeaderValue::to_str).collect();
        let value = values.map(|values| values.join(","));
        let value = value
            .map_err(|_| Problem::malformed(format!("The header `{name}` has characters that cannot be passed on.")))?;
        if value.len() > PASSED_LENGTH_MAX {
            return Err(too_large(format!("The header `{name}` is longer than {PASSED_LENGTH_MAX} characters.")));
        }
        if !value.is_empty() {
            passed.push((name.to_owned(), value));
        }
    }
    Ok(passed)
}

fn too_large(detail: String) -> Problem {
    Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large", detail)
}

fn request_id(request: &HttpRequest) -> String {
    use actix_web::HttpMessage;
    request.extensions().get::<RequestActor>().map(|who| who.request_id().to_owned()).unwrap_or_default()
}
