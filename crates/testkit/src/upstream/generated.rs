//! The output of a model for a request, token by token, and the usage after a number of tokens.

use super::ask::UpstreamAsk;
use super::script::{FinishTold, ScriptedAnswer, ScriptedToolCall, UsageTold};
use super::usage::UsageParts;
use super::words;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeneratedToken {
    Thought(String),
    Text(String),
    /// The name of the call with this index.
    CallOpens(usize),
    /// A word of the arguments of the call with this index.
    Argument(usize, String),
}

pub struct GeneratedAnswer {
    /// Thinking, text and calls, cut off at the request's limit.
    pub tokens: Vec<GeneratedToken>,
    pub calls: Vec<ScriptedToolCall>,
    pub finish: FinishTold,
    pub told: UsageTold,
    pub tier: Option<String>,
    pub geo: Option<String>,
    pub choices: u64,
    thoughts: u64,
    input: UsageParts,
    /// Output without tokens of its own here. It is used when the response is finished.
    besides_out: UsageParts,
}

/// The part of a call that was sent.
pub struct SaidCall<'a> {
    pub index: usize,
    pub name: &'a str,
    pub arguments: String,
    /// False if the limit cut its arguments off.
    pub is_whole: bool,
}

impl GeneratedAnswer {
    pub fn of(ask: &UpstreamAsk, answer: &ScriptedAnswer, told: UsageTold) -> Self {
        let mut tokens: Vec<GeneratedToken> =
            words::tokens(&answer.thinking).into_iter().map(GeneratedToken::Thought).collect();
        if answer.finish == Some(FinishTold::PromptBlocked) {
            tokens.clear();
        } else {
            tokens.extend(words::tokens(&answer.text).into_iter().map(GeneratedToken::Text));
            for (index, call) in answer.calls.iter().enumerate() {
                tokens.push(GeneratedToken::CallOpens(index));
                tokens.extend(
                    words::tokens(&call.arguments).into_iter().map(|word| GeneratedToken::Argument(index, word)),
                );
            }
        }
        let limit = ask.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let is_cut = tokens.len() > limit;
        tokens.truncate(limit);
        let natural = match tokens.last() {
            _ if is_cut => FinishTold::Length,
            Some(GeneratedToken::CallOpens(_) | GeneratedToken::Argument(..)) => FinishTold::ToolCalls,
            _ => FinishTold::Stop,
        };
        let besides = answer.besides.within(ask.dialect);
        let by_bytes = answer.bytes_a_token.map(|bytes| ask.body_bytes.div_ceil(bytes.max(1)));
        let counted = answer.input_tokens.or(by_bytes).unwrap_or(ask.input_tokens);
        let input = UsageParts {
            uncached_in: counted,
            cache_read: besides.cache_read,
            cache_write_short: besides.cache_write_short,
            cache_write_long: besides.cache_write_long,
            audio_in: besides.audio_in,
            image_in: besides.image_in,
            tool_prompt: besides.tool_prompt,
            ..UsageParts::default()
        };
        let besides_out = UsageParts {
            out_visible: besides.out_visible,
            out_reasoning: besides.out_reasoning,
            out_rejected: besides.out_rejected,
            audio_out: besides.audio_out,
            image_out: besides.image_out,
            web_searches: besides.web_searches,
            ..UsageParts::default()
        };
        Self {
            thoughts: tokens.iter().map(|token| u64::from(matches!(token, GeneratedToken::Thought(_)))).sum(),
            tokens,
            calls: answer.calls.clone(),
            finish: if is_cut { FinishTold::Length } else { answer.finish.unwrap_or(natural) },
            told,
            tier: answer.tier.clone(),
            geo: answer.geo.clone(),
            choices: ask.choices,
            input,
            besides_out,
        }
    }

    /// The usage when every choice has sent `said` tokens, and the first `ahead` choices one more.
    pub fn used(&self, said: usize, ahead: u64) -> UsageParts {
        let output = |said: usize| {
            let said = u64::try_from(said).unwrap_or(u64::MAX);
            let out_reasoning = said.min(self.thoughts);
            UsageParts { out_reasoning, out_visible: said - out_reasoning, ..UsageParts::default() }
        };
        self.input + output(said).with_choices(self.choices - ahead) + output(said + 1).with_choices(ahead)
    }

    pub fn used_in_all(&self) -> UsageParts {
        self.used(self.tokens.len(), 0) + self.besides_out.with_choices(self.choices)
    }

    /// The usage that the response reports when `used` is used. `None` if it reports none.
    pub fn tells(&self, used: UsageParts) -> Option<UsageParts> {
        match self.told {
            UsageTold::Present | UsageTold::Late(_) => Some(used),
            UsageTold::Zero => Some(UsageParts::default()),
            UsageTold::Absent => None,
        }
    }

    pub fn thinking(&self) -> String {
        self.joined(|token| if let GeneratedToken::Thought(word) = token { Some(word) } else { None })
    }

    pub fn text(&self) -> String {
        self.joined(|token| if let GeneratedToken::Text(word) = token { Some(word) } else { None })
    }

    pub fn said_calls(&self) -> Vec<SaidCall<'_>> {
        let opened = |index| self.tokens.contains(&GeneratedToken::CallOpens(index));
        let calls = self.calls.iter().enumerate().filter(|(index, _)| opened(*index));
        let said = calls.map(|(index, call)| {
            let arguments = self.joined(|token| match token {
                GeneratedToken::Argument(of, word) if *of == index => Some(word),
                _ => None,
            });
            let is_whole = arguments == call.arguments;
            SaidCall { index, name: &call.name, arguments, is_whole }
        });
        said.collect()
    }

    fn joined<'a>(&'a self, word: impl Fn(&'a GeneratedToken) -> Option<&'a String>) -> String {
        self.tokens.iter().filter_map(word).map(String::as_str).collect()
    }
}
