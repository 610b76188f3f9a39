//! Chat by our own route: a provider-neutral conversation, preceded by earlier messages of its session.
//!
//! A session costs one read more than a call without one. As many of its last messages are sent along as the settings
//! allow and the model has room for beside the answer. The oldest are left out first, and the first one sent is the
//! user's.

use domain::ai::{Conversation, ConversationTurn, Geo, MessagePart, ProviderId, Speaker, Tier};
use domain::chat::{ChatMessage, ChatSession, ChatSessionId, MessageRole};
use domain::identity::UsageSubject;
use domain::prices::ModelPurpose;
use domain::users::UserId;
use ports::ai::CallContent;
use ports::chat::RecalledMessage;
use ports::store::Scope;

use super::calls::{Call, CallerContext, InputSize, OutputBound, ResolvedModel, SessionTurn};
use super::errors::CallError;
use super::service::AiService;
use crate::ai_usage::{AiUsage, AiUsageError, AiUsageQuestion};
use crate::chat::ChatError;

/// A request of our own route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    pub provider: Option<ProviderId>,
    /// If `None`: the session's, or else that of the settings.
    pub model: Option<String>,
    /// Overrides the session's own.
    pub system: Option<String>,
    /// The new turns; the last is the user's.
    pub turns: Vec<ConversationTurn>,
    pub session_id: Option<ChatSessionId>,
    pub streamed: bool,
    pub max_output_tokens: Option<u64>,
    pub may_be_lowered: bool,
    pub is_strict: bool,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub stop: Vec<String>,
}

impl AiService {
    /// Makes the call for a request of our own route.
    pub async fn prepare(&self, asking: CallerContext, request: ChatRequest) -> Result<Call, CallError> {
        let (session, earlier) = match request.session_id {
            Some(id) => self.recall(asking.user_id, id).await?,
            None => (None, Vec::new()),
        };
        let session = session.as_ref();
        let named = session.and_then(|session| session.model.as_ref().map(|model| model.as_str().to_owned()));
        let model = request.model.or(named).unwrap_or_else(|| self.parts.settings.default_model.clone());
        let target = self.target(&model, request.provider, ModelPurpose::Chat).await?;
        let system = request.system.or_else(|| session.and_then(|session| session.system.clone()));
        let said = last_text(&request.turns);
        let keeping =
            session.map(|session| SessionTurn { session_id: session.id, said_tokens: self.count(&said), said });
        let mut conversation = Conversation {
            system,
            turns: request.turns,
            max_output_tokens: request.max_output_tokens,
            temperature: request.temperature,
            top_p: request.top_p,
            stop: request.stop,
            ..Conversation::default()
        };
        let own = self.size(&conversation);
        let input = self.put_before(&mut conversation, earlier, own, &target);
        Ok(Call {
            asking,
            target,
            content: CallContent::Conversation(conversation),
            streamed: request.streamed,
            input,
            output: OutputBound {
                asked: request.max_output_tokens,
                answers: 1,
                may_be_lowered: request.may_be_lowered,
                is_strict: request.is_strict,
            },
            tier: Tier::Standard,
            geo: Geo::ANYWHERE,
            hold_id: None,
            keeping,
            retried_by_caller: false,
            translation: None,
        })
    }

    /// A session that can go on, and its latest messages.
    async fn recall(
        &self,
        owner: UserId,
        id: ChatSessionId,
    ) -> Result<(Option<ChatSession>, Vec<ChatMessage>), CallError> {
        let mut work = self.parts.store.begin(Scope::SERVICE).await?;
        let session = work.chat().open_session(owner, id).await?.ok_or(CallError::UnknownSession)?;
        session.may_go_on().map_err(|_| CallError::SessionEnded)?;
        let limit = self.parts.settings.context_messages;
        let messages = if limit > 0 { work.chat().list_latest_messages(id, limit).await? } else { Vec::new() };
        work.commit().await?;
        Ok((Some(session), messages))
    }

    fn size(&self, conversation: &Conversation) -> InputSize {
        let texts = || conversation.texts();
        InputSize {
            text_tokens: texts().map(|text| self.count(text)).fold(0, u64::saturating_add),
            text_bytes: texts().map(|text| text.len() as u64).fold(0, u64::saturating_add),
            digits: texts().map(digits).fold(0, u64::saturating_add),
            messages: conversation.turns.len() as u64,
            has_tools: !conversation.tools.is_empty(),
            ..InputSize::default()
        }
    }

    /// Puts as many of the earlier messages before the conversation as the model has room for.
    fn put_before(
        &self,
        conversation: &mut Conversation,
        earlier: Vec<ChatMessage>,
        own: InputSize,
        target: &ResolvedModel,
    ) -> InputSize {
        let answer = conversation.max_output_tokens.or(target.max_output_tokens).unwrap_or_default();
        // The count and half as much again, as in `estimates`; an answer may take half of the room at most.
        let room = target.max_input_tokens.map_or(u64::MAX, |room| room - answer.min(room / 2));
        let mut size = own;
        let mut first = earlier.len();
        for (place, message) in earlier.iter().enumerate().rev() {
            let tokens = self.count(&message.content);
            let content = message.content.as_str();
            let mut grown = size.with_text(tokens, content.len() as u64);
            grown.digits = grown.digits.saturating_add(digits(content));
            let most = grown.text_tokens.saturating_add(grown.text_tokens / 2);
            if most > room {
                break;
            }
            size = grown;
            first = place;
        }
        let kept = earlier.into_iter().skip(first).skip_while(|message| message.role != MessageRole::User);
        let mut turns: Vec<ConversationTurn> = kept.filter_map(turn).collect();
        turns.append(&mut conversation.turns);
        conversation.turns = turns;
        size
    }

    /// The seeds' `getUsageStats`: what a user's calls used and cost, and what may still be used.
    pub async fn usage_stats(&self, user: UsageSubject, question: &AiUsageQuestion) -> Result<AiUsage, AiUsageError> {
        self.parts.statistics.sum(user, question).await
    }

    /// The seeds' `getChatHistory`: the latest messages of all of the user's sessions, newest first.
    pub async fn chat_history(&self, owner: UserId, limit: u64) -> Result<Vec<RecalledMessage>, ChatError> {
        self.parts.history.list_history(owner, limit).await
    }
}

/// `None` for an empty message, such as of a model that only reasoned: providers refuse empty messages.
fn turn(message: ChatMessage) -> Option<ConversationTurn> {
    if message.content.trim().is_empty() {
        return None;
    }
    let speaker = match message.role {
        MessageRole::User => Speaker::User,
        MessageRole::Assistant => Speaker::Assistant,
        MessageRole::System => return None,
    };
    Some(ConversationTurn::text(speaker, message.content))
}

fn digits(text: &str) -> u64 {
    text.bytes().filter(u8::is_ascii_digit).count() as u64
}

/// The text of the last turn.
fn last_text(turns: &[ConversationTurn]) -> String {
    let parts = turns.last().map(|turn| turn.parts.as_slice()).unwrap_or_default();
    let texts = parts.iter().filter_map(|part| match part {
        MessagePart::Text(text) => Some(text.as_str()),
        MessagePart::ToolCall(_) | MessagePart::ToolAnswer(_) => None,
    });
    texts.collect()
}
