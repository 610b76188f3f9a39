//! The body of a request in a dialect: JSON, compressed or not, as large as the provider itself accepts, and counted in
//! the memory of all bodies with its copy.

use actix_web::dev::Payload;
use actix_web::web::{Bytes, Data};
use actix_web::{FromRequest, HttpRequest};
use domain::ai::Dialect;
use futures_util::future::LocalBoxFuture;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

use super::decoding::{self, BodyUnpacking};
use super::dialect::dialect_of;
use crate::http::bodies::{self, BodyMemory, BodyReading};
use crate::http::caller::user_of;
use crate::http::problem::Problem;
use crate::settings::shape::{AiBodyLimits, Settings};

/// A body up to this size is parsed at once: no more of them are parsed at a time than there are threads.
const TURNLESS: usize = 64 * 1_024;

/// How many copies of the body there are: the received bytes, and the text that goes to the provider.
const COPIES: usize = 2;

pub struct DialectBody {
    pub bytes: Bytes,
    memory: Arc<BodyMemory>,
}

impl DialectBody {
    /// A turn to parse the body; `None` for a small one, which needs none.
    pub async fn turn(&self) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if self.bytes.len() <= TURNLESS {
            return Ok(None);
        }
        self.memory.turn(&self.bytes).await.map(Some)
    }
}

impl FromRequest for DialectBody {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (request, payload) = (request.clone(), payload.take());
        Box::pin(async move {
            let declared = decoding::declared(request.headers())?;
            let settings = request.app_data::<Data<Settings>>();
            let limit = settings.map_or(0, |settings| limit(&request, &settings.ai.body_limits));
            let memory = request.app_data::<Data<BodyMemory>>().map(|memory| Arc::clone(memory));
            let memory = memory.ok_or_else(|| Problem::internal(&"no memory for bodies is set up"))?;
            let caller = user_of(&request);
            // The text that goes to the provider is not compressed.
            let copies = if declared.is_packed() { 1 } else { COPIES };
            let bytes = bodies::read(request, payload, BodyReading { limit, caller, copies }).await?;
            let unpacking = BodyUnpacking { limit, copies: COPIES, memory: memory.of(caller) };
            Ok(Self { bytes: declared.unpack(bytes, unpacking).await?, memory })
        })
    }
}

fn limit(request: &HttpRequest, limits: &AiBodyLimits) -> usize {
    let dialect = dialect_of(request.path(), request.headers()).unwrap_or(Dialect::OpenAiChat);
    match dialect {
        Dialect::OpenAiChat => limits.openai,
        Dialect::Anthropic => limits.claude,
        Dialect::Gemini => limits.gemini,
    }
}
