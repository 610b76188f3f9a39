//! What a model says to a request, token by token, and what has been used when so many of the tokens are said.

use super::ask::Ask;
use super::script::{Answer, Finish, ToolCall, UsageTold};
use super::usage::Parts;
use super::words;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Thought(String),
    Text(String),
    /// The name of the call with this index.
    CallOpens(usize),
    /// A word of the arguments of the call with this index.
    Argument(usize, String),
}

pub struct Spoken {
    /// Thoughts, text, calls, cut off at the request's limit.
    pub tokens: Vec<Token>,
    pub calls: Vec<ToolCall>,
    pub finish: Finish,
    pub told: UsageTold,
    pub tier: Option<String>,
    pub geo: Option<String>,
    pub choices: u64,
    thoughts: u64,
    input: Parts,
    /// What of the output no token stands for. It is used when the answer is finished.
    besides_out: Parts,
}

/// A call as far as it was said.
pub struct SaidCall<'a> {
    pub index: usize,
    pub name: &'a str,
    pub arguments: String,
    /// False where the limit cut its arguments off.
    pub is_whole: bool,
}

impl Spoken {
    pub fn of(ask: &Ask, answer: &Answer, told: UsageTold) -> Self {
        let mut tokens: Vec<Token> = words::tokens(&answer.thinking).into_iter().map(Token::Thought).collect();
        if answer.finish == Some(Finish::PromptBlocked) {
            tokens.clear();
        } else {
            tokens.extend(words::tokens(&answer.text).into_iter().map(Token::Text));
            for (index, call) in answer.calls.iter().enumerate() {
                tokens.push(Token::CallOpens(index));
                tokens.extend(words::tokens(&call.arguments).into_iter().map(|word| Token::Argument(index, word)));
            }
        }
        let limit = ask.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let is_cut = tokens.len() > limit;
        tokens.truncate(limit);
        let natural = match tokens.last() {
            _ if is_cut => Finish::Length,
            Some(Token::CallOpens(_) | Token::Argument(..)) => Finish::ToolCalls,
            _ => Finish::Stop,
        };
        let besides = answer.besides.within(ask.dialect);
        let by_bytes = answer.bytes_a_token.map(|bytes| ask.body_bytes.div_ceil(bytes.max(1)));
        let counted = answer.input_tokens.or(by_bytes).unwrap_or(ask.input_tokens);
        let input = Parts {
            uncached_in: counted,
            cache_read: besides.cache_read,
            cache_write_short: besides.cache_write_short,
            cache_write_long: besides.cache_write_long,
            audio_in: besides.audio_in,
            image_in: besides.image_in,
            tool_prompt: besides.tool_prompt,
            ..Parts::default()
        };
        let besides_out = Parts {
            out_visible: besides.out_visible,
            out_reasoning: besides.out_reasoning,
            out_rejected: besides.out_rejected,
            audio_out: besides.audio_out,
            image_out: besides.image_out,
            web_searches: besides.web_searches,
            ..Parts::default()
        };
        Self {
            thoughts: tokens.iter().map(|token| u64::from(matches!(token, Token::Thought(_)))).sum(),
            tokens,
            calls: answer.calls.clone(),
            finish: if is_cut { Finish::Length } else { answer.finish.unwrap_or(natural) },
            told,
            tier: answer.tier.clone(),
            geo: answer.geo.clone(),
            choices: ask.choices,
            input,
            besides_out,
        }
    }

    /// Used when every choice has said `said` tokens, and the first `ahead` choices one more.
    pub fn used(&self, said: usize, ahead: u64) -> Parts {
        let output = |said: usize| {
            let said = u64::try_from(said).unwrap_or(u64::MAX);
            let out_reasoning = said.min(self.thoughts);
            Parts { out_reasoning, out_visible: said - out_reasoning, ..Parts::default() }
        };
        self.input + output(said).with_choices(self.choices - ahead) + output(said + 1).with_choices(ahead)
    }

    pub fn used_in_all(&self) -> Parts {
        self.used(self.tokens.len(), 0) + self.besides_out.with_choices(self.choices)
    }

    /// What the answer says it used, where that is `used`. `None` where it says nothing.
    pub fn tells(&self, used: Parts) -> Option<Parts> {
        match self.told {
            UsageTold::Present | UsageTold::Late(_) => Some(used),
            UsageTold::Zero => Some(Parts::default()),
            UsageTold::Absent => None,
        }
    }

    pub fn thinking(&self) -> String {
        self.joined(|token| if let Token::Thought(word) = token { Some(word) } else { None })
    }

    pub fn text(&self) -> String {
        self.joined(|token| if let Token::Text(word) = token { Some(word) } else { None })
    }

    pub fn said_calls(&self) -> Vec<SaidCall<'_>> {
        let opened = |index| self.tokens.contains(&Token::CallOpens(index));
        let calls = self.calls.iter().enumerate().filter(|(index, _)| opened(*index));
        let said = calls.map(|(index, call)| {
            let arguments = self.joined(|token| match token {
                Token::Argument(of, word) if *of == index => Some(word),
                _ => None,
            });
            let is_whole = arguments == call.arguments;
            SaidCall { index, name: &call.name, arguments, is_whole }
        });
        said.collect()
    }

    fn joined<'a>(&'a self, word: impl Fn(&'a Token) -> Option<&'a String>) -> String {
        self.tokens.iter().filter_map(word).map(String::as_str).collect()
    }
}
