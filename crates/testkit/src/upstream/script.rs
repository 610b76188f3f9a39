//! How a model behaves, as a test writes it down. A script is plain data: the fields are public, and the methods only
//! make the common cases short.

use std::time::Duration;

use super::refusals::Refusal;
use super::usage::{Parts, Prices};
use super::words;

/// Without a word of the test's a model says eight words at once, tells its usage, and charges what it said.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub answer: Answer,
    pub pace: Pace,
    pub usage: UsageTold,
    pub fault: Option<Fault>,
    pub charges: Charges,
    pub prices: Prices,
}

#[derive(Clone, Debug)]
pub struct Answer {
    /// Said before the text. OpenAI only counts it.
    pub thinking: String,
    pub text: String,
    pub calls: Vec<ToolCall>,
    /// Said in place of the calls where the request offers no tools, or brings the result of one.
    pub after_result: Option<String>,
    /// Without it, it follows from the answer: the limit, the tool calls, or the natural end.
    pub finish: Option<Finish>,
    /// Without it, the words of the prompt are counted. These tokens are the uncached ones.
    pub input_tokens: Option<u64>,
    /// What goes in is counted by the bytes of the whole body, so many of them a token, whatever stands in it.
    pub bytes_a_token: Option<u64>,
    /// Added to what is counted: cache, audio, images, searches.
    pub besides: Parts,
    /// The tier that the answer names, as the provider writes it.
    pub tier: Option<String>,
    /// Anthropic's `inference_geo`.
    pub geo: Option<String>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            thinking: String::new(),
            text: words::sentence(8),
            calls: Vec::new(),
            after_result: None,
            finish: None,
            input_tokens: None,
            bytes_a_token: None,
            besides: Parts::default(),
            tier: None,
            geo: None,
        }
    }
}

/// A token for the name, and one for each word of the arguments.
#[derive(Clone, Debug)]
pub struct ToolCall {
    pub name: String,
    /// A JSON object, as text.
    pub arguments: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Stop,
    Length,
    ToolCalls,
    /// OpenAI's `content_filter`, Anthropic's `refusal`, Gemini's `SAFETY`.
    Filtered,
    /// The prompt itself was blocked: Gemini sends `promptFeedback` and no candidate, the others as if filtered.
    PromptBlocked,
}

#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Before the status line.
    pub before_head: Duration,
    /// Between the head and the first byte of the body.
    pub first_token: Duration,
    /// Before each further piece.
    pub between: Duration,
    pub split: Split,
}

/// Where the body is cut into pieces. A piece is one HTTP chunk and one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// After each event of a stream; a plain answer stays whole.
    #[default]
    Events,
    /// Not at all.
    Joined,
    /// After so many bytes, wherever they end. One byte with a pause between is the slow trickle.
    Every(usize),
    /// After the first byte of every character that has several.
    InsideCharacters,
    /// In the middle of each line, and between the two line ends that part the events.
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
    /// Nothing is generated, and nothing charged.
    Refuse(Refusal),
    /// The body of a refusal under the status 200. Nothing is charged.
    ErrorWith200(Refusal),
    /// So many events, then bytes that mean nothing. A plain answer is such bytes alone, and is not charged.
    Garbage {
        after_events: usize,
    },
    /// The right answer under the wrong name.
    WrongContentType(String),
    HangBeforeHead,
    ResetBeforeHead,
    CloseBeforeHead,
    /// So many events, then the dialect's error event, and the end. A plain answer is refused so at once.
    ErrorAfter {
        events: usize,
        refusal: Refusal,
    },
    /// So many events, then the orderly end of the HTTP body without the dialect's own.
    EndAfter {
        events: usize,
    },
    /// So many bytes of the body, then a reset (RST).
    ResetAfter {
        bytes: usize,
    },
    /// So many bytes of the body, then the connection is closed in the middle of it (FIN).
    CloseAfter {
        bytes: usize,
    },
    /// So many bytes of the body, then nothing until the client leaves.
    HangAfter {
        bytes: usize,
    },
    /// So many events, then nothing until `Upstream::let_go`: a test knows exactly what was delivered by then.
    HoldAfter {
        events: usize,
    },
}

/// What is charged when an answer is not delivered to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charges {
    /// The prompt and what was said until then.
    #[default]
    Generated,
    /// All of it from the first byte on: this provider goes on when nobody listens.
    Whole,
}

impl Script {
    /// Says this text.
    pub fn says(text: &str) -> Self {
        let answer = Answer { text: text.to_owned(), ..Answer::default() };
        Self { answer, ..Self::default() }
    }

    /// Says so many words.
    pub fn words(tokens: usize) -> Self {
        Self::says(&words::sentence(tokens))
    }

    /// Goes wrong so, with the usual words.
    pub fn fails(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// Refuses so.
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
        self.answer.calls.push(ToolCall { name: name.to_owned(), arguments: arguments.to_owned() });
        self
    }

    /// Calls no tool, but says this, where the request offers none or brings a result: a whole turn of an agent.
    #[must_use]
    pub fn then_saying(mut self, text: &str) -> Self {
        self.answer.after_result = Some(text.to_owned());
        self
    }

    #[must_use]
    pub fn finishing(mut self, finish: Finish) -> Self {
        self.answer.finish = Some(finish);
        self
    }

    /// Charges what goes in by the bytes of the body.
    #[must_use]
    pub fn counting_bytes(mut self, bytes_a_token: u64) -> Self {
        self.answer.bytes_a_token = Some(bytes_a_token);
        self
    }

    /// Uses this besides what is counted.
    #[must_use]
    pub fn using(mut self, besides: Parts) -> Self {
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
    pub fn paced(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    #[must_use]
    pub fn split(mut self, split: Split) -> Self {
        self.pace.split = split;
        self
    }

    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    #[must_use]
    pub fn charging(mut self, charges: Charges) -> Self {
        self.charges = charges;
        self
    }

    #[must_use]
    pub fn priced(mut self, prices: Prices) -> Self {
        self.prices = prices;
        self
    }
}
