//! Calls: from a body in a dialect to a call of the service, and how its answer is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::{Bytes, Data};
use domain::ai::{Conversation, InputSize};
use domain::identity::Caller;
use domain::prices::ModelPurpose;
use ports::ai::{CallContent, Framing, NativeCall, Operation};
use ports::clock::Clock;
use serde_json::Value;
use services::ai::AiService;
use services::ai::calls::{Asking, Call, OutputBound, Target};
use tokio::task::spawn_blocking;

use super::asked::{Asked, Form, object, refused};
use super::delivery::{Unkept, Writing};
use super::dialect::{Dialect, GOOGLE_KEY};
use super::fallbacks::{ByWhom, translate, translation};
use super::leniency;
use super::rendering::{Frame, Renderer};
use super::sizing::weigh;
use crate::http::finish::Who;
use crate::http::problem::Problem;
use crate::http::replays::RepeatSigns;

/// Asks for a bound to be lowered to what can be paid, rather than the call to be refused.
const LOWER_MAX_TOKENS: &str = "x-product-base-lower-max-tokens";
/// Asks for all of the bound of a stream to be held before the call, rather than as the answer grows.
const STRICT_HOLD: &str = "x-product-base-strict-hold";
/// How long a header of the provider's own may be that goes along, and how many there may be.
const PASSED_LENGTH_MAX: usize = 16 * 1_024;
const PASSED_MAX: usize = 32;
/// How many answers a stream of ours ends at most, where a provider has cut it.
const ANSWERS_ENDED: u64 = 128;
/// A body longer than this is read and counted beside the runtime, which it would hold up.
const LONG_BODY: usize = 64 * 1_024;

/// Counts the tokens of a text.
pub type Count<'a> = &'a dyn Fn(&str) -> u64;

/// A request at a door, before its body is read.
pub struct Knock {
    pub dialect: Dialect,
    pub operation: Operation,
    /// By what the call is known when it comes again.
    pub signs: RepeatSigns,
    asking: Asking,
    headers: Result<Vec<(String, String)>, Problem>,
    may_be_lowered: bool,
    is_strict: bool,
    request_id: String,
    /// When it came, in seconds since 1970.
    created: i64,
}

impl Knock {
    pub fn of(request: &HttpRequest, caller: &Caller, dialect: Dialect, operation: Operation) -> Self {
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

    /// The call that the body asks for, and how its answer is written.
    pub async fn prepare<R>(self, ai: Arc<AiService>, body: Bytes, read: R) -> Result<(Call, Writing), Problem>
    where
        R: FnOnce(&Value) -> Result<Asked, Problem> + Send + 'static,
    {
        let headers = self.headers.clone()?;
        let (text, asked, input) = sized(&ai, self.dialect, body, read).await?;
        let purpose = match self.operation {
            Operation::Embeddings => ModelPurpose::Embedding,
            Operation::Chat | Operation::CountTokens => ModelPurpose::Chat,
        };
        let target = ai.target(&asked.model, None, purpose).await?;
        let provider = self.dialect.provider();
        // Embeddings are no conversation: the sandbox too takes them in its provider's words.
        let is_native =
            target.takes_natively(provider) || (self.operation == Operation::Embeddings && target.provider == provider);
        // Whether another provider may come to answer.
        let may_change = is_native && self.operation == Operation::Chat;
        let frame = Frame {
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
            streamed: asked.form != Form::Whole,
            input,
            output: OutputBound {
                asked: asked.max_output_tokens,
                answers: asked.answers,
                may_be_lowered: self.may_be_lowered,
                is_strict: self.is_strict,
            },
            tier: asked.tier,
            hold_id: None,
            keeping: None,
            retried_by_caller: false,
            translation: may_change.then(|| translation(self.dialect, asked.answers)),
        };
        let renderer: Box<dyn Renderer> = if may_change { Box::new(ByWhom::new(frame)) } else { frame.renderer() };
        let writing = Writing {
            renderer,
            is_streamed: call.streamed,
            native: is_native.then_some(provider),
            sink: Box::new(Unkept),
        };
        Ok((call, writing))
    }

    fn native(&self, body: String, form: Form, headers: Vec<(String, String)>) -> NativeCall {
        let framing = match form {
            Form::Whole => Framing::ServerSentEvents,
            Form::Stream(framing) => framing,
        };
        NativeCall { operation: self.operation, body, headers, framing }
    }

    fn translated(&self, text: &str, asked: &Asked, target: &Target) -> Result<Conversation, Problem> {
        if self.operation == Operation::Embeddings {
            let why = format!("is {}'s, and embeddings are not translated; ask in its own dialect", target.provider);
            return Err(refused("model", why));
        }
        let provider = target.provider;
        if provider == self.dialect.provider() {
            return leniency::conversation(self.dialect, &object(text)?);
        }
        translate(self.dialect, text, provider, asked.answers)
    }
}

/// The text of a body, what it asks for, and how large it is.
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

/// Whether a request asks for all of its bound to be held before the call.
pub fn asks_for_strict_hold(headers: &HeaderMap) -> bool {
    is_asked(headers, STRICT_HOLD)
}

fn is_asked(headers: &HeaderMap, name: &str) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The headers of the dialect's own provider. None is dropped without a word, but for those that say who pays: they are ours
/// to say.
fn passed(headers: &HeaderMap, dialect: Dialect) -> Result<Vec<(String, String)>, Problem> {
    let prefix = match dialect {
        Dialect::OpenAi => "openai-",
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
    request.extensions().get::<Who>().map(|who| who.request_id().to_owned()).unwrap_or_default()
}
