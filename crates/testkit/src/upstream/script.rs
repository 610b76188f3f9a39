//! The behavior of a model, as a test defines it. A script is plain data: the fields are public, and the methods only
//! shorten the common cases.

use std::time::Duration;

use super::refusals::Refusal;
use super::usage::{UpstreamPrices, UsageParts};
use super::words;

/// By default a model says eight words at once, reports its usage, and charges what it said.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub answer: ScriptedAnswer,
    pub pace: AnswerPace,
    pub usage: UsageTold,
    pub fault: Option<Fault>,
    pub charges: ChargedPart,
    pub prices: UpstreamPrices,
}

#[derive(Clone, Debug)]
pub struct ScriptedAnswer {
    /// Sent before the text. OpenAI only counts it.
    pub thinking: String,
    pub text: String,
    pub calls: Vec<ScriptedToolCall>,
    /// Sent in place of the calls if the request offers no tools or contains a tool result.
    pub after_result: Option<String>,
    /// Default: follows from the answer, which is the limit, the tool calls, or the natural end.
    pub finish: Option<FinishTold>,
    /// Default: the words of the prompt. These are the uncached tokens.
    pub input_tokens: Option<u64>,
    /// Counts the input by the bytes of the whole body, this many per token, whatever its content.
    pub bytes_a_token: Option<u64>,
    /// Added to the counted usage: cache, audio, images, searches.
    pub besides: UsageParts,
    /// The tier reported in the response, in the provider's spelling.
    pub tier: Option<String>,
    /// Anthropic's `inference_geo`.
    pub geo: Option<String>,
}

impl Default for ScriptedAnswer {
    fn default() -> Self {
        Self {
            thinking: String::new(),
            text: words::sentence(8),
            calls: Vec::new(),
            after_result: None,
            finish: None,
            input_tokens: None,
            bytes_a_token: None,
            besides: UsageParts::default(),
            tier: None,
            geo: None,
        }
    }
}

/// One token for the name, and one for each word of the arguments.
#[derive(Clone, Debug)]
pub struct ScriptedToolCall {
    pub name: String,
    /// A JSON object, as text.
    pub arguments: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishTold {
    Stop,
    Length,
    ToolCalls,
    /// OpenAI's `content_filter`, Anthropic's `refusal`, Gemini's `SAFETY`.
    Filtered,
    /// The prompt itself was blocked: Gemini sends `promptFeedback` and no candidate, the others as if filtered.
    PromptBlocked,
}

#[derive(Clone, Debug, Default)]
pub struct AnswerPace {
    /// Before the status line.
    pub before_head: Duration,
    /// Between the head and the first byte of the body.
    pub first_token: Duration,
    /// Before each further piece.
    pub between: Duration,
    pub split: PieceSplit,
}

/// Where the body is cut into pieces. A piece is one HTTP chunk and one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PieceSplit {
    /// After each event of a stream; a plain response is not cut.
    #[default]
    Events,
    /// No cuts.
    Joined,
    /// After this many bytes, wherever they end. One byte with a pause between is a slow trickle.
    Every(usize),
    /// After the first byte of every multi-byte character.
    InsideCharacters,
    /// In the middle of each line, and between the two line ends that separate events.
    InsideLines,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageTold {
    #[default]
    Present,
    Absent,
    /// Only at the end, and only after this pause.
    Late(Duration),
    /// Every number is 0, whatever was used.
    Zero,
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is generated or charged.
    Refuse(Refusal),
    /// The body of a refusal with status 200. Nothing is charged.
    ErrorWith200(Refusal),
    /// This many events, then garbage bytes. A plain response is only garbage, and is not charged.
    Garbage {
        after_events: usize,
    },
    /// The right body with this wrong content type.
    WrongContentType(String),
    HangBeforeHead,
    ResetBeforeHead,
    CloseBeforeHead,
    /// This many events, then the dialect's error event, and the end. A plain response is refused at once.
    ErrorAfter {
        events: usize,
        refusal: Refusal,
    },
    /// This many events, then the orderly end of the HTTP body without the dialect's own end.
    EndAfter {
        events: usize,
    },
    /// This many bytes of the body, then a reset (RST).
    ResetAfter {
        bytes: usize,
    },
    /// This many bytes of the body, then the connection is closed in the middle of it (FIN).
    CloseAfter {
        bytes: usize,
    },
    /// This many bytes of the body, then nothing until the client leaves.
    HangAfter {
        bytes: usize,
    },
    /// This many events, then nothing until `Upstream::let_go`: a test knows exactly what was delivered by then.
    HoldAfter {
        events: usize,
    },
}

/// What is charged for a response that is not delivered to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChargedPart {
    /// The prompt and the output until then.
    #[default]
    Generated,
    /// All of it from the first byte on: this provider continues without a client.
    Whole,
}

impl Script {
    /// Answers with this text.
    pub fn says(text: &str) -> Self {
        let answer = ScriptedAnswer { text: text.to_owned(), ..ScriptedAnswer::default() };
        Self { answer, ..Self::default() }
    }

    /// Answers with this many words.
    pub fn words(tokens: usize) -> Self {
        Self::says(&words::sentence(tokens))
    }

    /// Fails with this fault, with the default text.
    pub fn fails(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// Refuses with this refusal.
    pub fn refuses(refusal: Refusal) -> Self {
        Self::fails(Fault::Refuse(refusal))
    }

    #[must_use]
    pub fn thinking(mut self, thoughts: &str) -> Self {
        thoughts.clone_into(&mut self.answer.thinking);
        self
    }

    /// Calls a tool after the text.
    #[must_use]
    pub fn calling(mut self, name: &str, arguments: &str) -> Self {
        self.answer.calls.push(ScriptedToolCall { name: name.to_owned(), arguments: arguments.to_owned() });
        self
    }

    /// Sends this text instead of a tool call if the request offers no tools or contains a result: a whole agent turn.
    #[must_use]
    pub fn then_saying(mut self, text: &str) -> Self {
        self.answer.after_result = Some(text.to_owned());
        self
    }

    #[must_use]
    pub fn finishing(mut self, finish: FinishTold) -> Self {
        self.answer.finish = Some(finish);
        self
    }

    /// Charges the input by the bytes of the body.
    #[must_use]
    pub fn counting_bytes(mut self, bytes_a_token: u64) -> Self {
        self.answer.bytes_a_token = Some(bytes_a_token);
        self
    }

    /// Adds this to the counted usage.
    #[must_use]
    pub fn using(mut self, besides: UsageParts) -> Self {
        self.answer.besides = besides;
        self
    }

    #[must_use]
    pub fn telling(mut self, usage: UsageTold) -> Self {
        self.usage = usage;
        self
    }

    #[must_use]
    pub fn tier(mut self, tier: &str) -> Self {
        self.answer.tier = Some(tier.to_owned());
        self
    }

    #[must_use]
    pub fn paced(mut self, pace: AnswerPace) -> Self {
        self.pace = pace;
        self
    }

    #[must_use]
    pub fn split(mut self, split: PieceSplit) -> Self {
        self.pace.split = split;
        self
    }

    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    #[must_use]
    pub fn charging(mut self, charges: ChargedPart) -> Self {
        self.charges = charges;
        self
    }

    #[must_use]
    pub fn priced(mut self, prices: UpstreamPrices) -> Self {
        self.prices = prices;
        self
    }
}
