//! Delivery: how much of an answer has arrived, and what is billed for it.
//!
//! A complete answer is billed as the provider reports, each number by itself. A number that is not reported, or not
//! yet reported when an answer breaks off, is billed by the delivered text and the known input: never less than the
//! provider had reported by then. During silence a model may have produced hidden reasoning, so for an answer that
//! broke off the whole seconds of silence are billed as output too, up to the bound of the call.

use super::conversation::{AnswerDelta, FinishReason};
use super::reports::ReportedUsage;
use super::usage::{CallUsage, TokenUsage, UsageSource};

/// Output tokens assumed per second of silence. Our own figure: hosted models of 2026 write 30 to 200 tokens per
/// second.
const TOKENS_PER_SILENT_SECOND: u64 = 100;

/// The output that may have been produced unseen in `silent_seconds`, up to `most`.
pub fn unseen_output(silent_seconds: u64, most: u64) -> u64 {
    silent_seconds.saturating_mul(TOKENS_PER_SILENT_SECOND).min(most)
}

/// An answer as far as it has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The input tokens counted before the call.
    pub input_tokens: u64,
    /// The output tokens counted piece by piece; slightly too many, since tokens span pieces.
    pub output_tokens: u64,
    /// The upper bound of output tokens.
    pub output_most: u64,
    /// The whole seconds of silence since the provider last reported its output.
    pub silent_seconds: u64,
    pub reported: Option<ReportedUsage>,
    /// `output_tokens` at the last report of the output: text that came after it is not in that report.
    pub output_at_report: u64,
    pub finish: Option<FinishReason>,
    /// Whether the provider sent the end of the answer.
    pub is_whole: bool,
}

impl Delivery {
    pub fn of_input(input_tokens: u64) -> Self {
        Self { input_tokens, ..Self::default() }
    }

    /// Records that nothing arrived for `seconds` while the provider was working.
    pub const fn be_silent(&mut self, seconds: u64) {
        self.silent_seconds = self.silent_seconds.saturating_add(seconds);
    }

    /// Records a piece with `tokens` tokens of text.
    pub fn add(&mut self, deltas: &[AnswerDelta], tokens: u64, reported: Option<ReportedUsage>) {
        self.output_tokens = self.output_tokens.saturating_add(tokens);
        let finished = deltas.iter().rev().find_map(|delta| match delta {
            AnswerDelta::Finished(reason) => Some(*reason),
            _ => None,
        });
        self.finish = finished.or(self.finish);
        if reported.as_ref().is_some_and(|reported| reported.read().tells_output) {
            (self.silent_seconds, self.output_at_report) = (0, self.output_tokens);
        }
        self.reported = match (self.reported.take(), reported) {
            (Some(earlier), Some(later)) => Some(earlier.followed_by(later)),
            (earlier, later) => later.or(earlier),
        };
    }

    /// Whether any billed output has arrived.
    pub const fn has_output(&self) -> bool {
        self.output_tokens > 0
    }

    /// Whether the provider has reported tokens.
    pub fn has_report(&self) -> bool {
        self.reported.as_ref().is_some_and(|reported| reported.read().usage.tokens.total() > 0)
    }

    /// The output so far, plus what may have been produced unseen.
    pub fn output_so_far(&self) -> u64 {
        self.with_unseen(self.output_tokens)
    }

    fn with_unseen(&self, seen: u64) -> u64 {
        seen.saturating_add(unseen_output(self.silent_seconds, self.output_most.saturating_sub(seen)))
    }

    /// The fields of the provider's report that were not usable as sent.
    pub fn odd_fields(&self) -> Vec<&'static str> {
        self.reported.as_ref().map(|reported| reported.read().odd_fields).unwrap_or_default()
    }

    /// The usage that is billed: each number that the provider reported, and an estimate of each that it did not. Calls
    /// of the built-in sandbox provider are marked as such, however they ended.
    pub fn billed(&self, is_sandbox: bool) -> CallUsage {
        let read = self.reported.as_ref().map(ReportedUsage::read);
        let (tells_input, tells_output) =
            read.as_ref().map_or((false, false), |read| (read.tells_input, read.tells_output));
        let total = read.as_ref().and_then(|read| read.total);
        let mut usage = read.map_or_else(|| CallUsage::standard(TokenUsage::default()), |read| read.usage);
        // Before the end of the answer, a zero may mean "not known yet".
        let has_input = tells_input && (self.is_whole || usage.tokens.input() > 0);
        if !has_input {
            usage.tokens.uncached_input = usage.tokens.uncached_input.max(self.input_tokens);
        }
        let is_final = tells_output && self.is_whole && self.output_tokens <= self.output_at_report;
        if !is_final {
            let told = usage.tokens.output();
            let came_out = self.output_tokens.max(told);
            let came_out = if self.is_whole { came_out } else { self.with_unseen(came_out) };
            let missing = came_out.saturating_sub(told);
            usage.tokens.visible_output = usage.tokens.visible_output.saturating_add(missing);
            usage = usage.up_to(total);
        }
        let is_told = has_input && (is_final || self.output_tokens == 0 || !self.is_whole && tells_output);
        usage.source = match (is_told, self.is_whole) {
            _ if is_sandbox => UsageSource::Sandbox,
            (true, true) => UsageSource::Provider,
            (false, true) => UsageSource::Estimated,
            (_, false) => UsageSource::Partial,
        };
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ai::{ClaudeUsage, OpenAiUsage};

    fn openai(prompt: i64, completion: i64) -> ReportedUsage {
        let usage =
            OpenAiUsage { prompt_tokens: Some(prompt), completion_tokens: Some(completion), ..OpenAiUsage::default() };
        ReportedUsage::OpenAi(usage, None)
    }

    fn parts(usage: &CallUsage) -> (u64, u64, UsageSource) {
        (usage.tokens.input(), usage.tokens.output(), usage.source)
    }

    #[test]
    fn a_whole_answer_is_billed_as_the_provider_says() {
        let mut delivery = Delivery::of_input(50);
        delivery.add(&[AnswerDelta::Text("Hello".into())], 1, None);
        delivery.add(&[AnswerDelta::Finished(FinishReason::Stop)], 0, Some(openai(40, 900)));
        delivery.is_whole = true;
        assert_eq!(parts(&delivery.billed(false)), (40, 900, UsageSource::Provider));
        assert_eq!(delivery.billed(true).source, UsageSource::Sandbox);
        assert_eq!(delivery.finish, Some(FinishReason::Stop));
    }

    #[test]
    fn without_a_report_the_text_is_billed() {
        let mut delivery = Delivery::of_input(50);
        delivery.add(&[], 7, None);
        delivery.is_whole = true;
        assert_eq!(parts(&delivery.billed(false)), (50, 7, UsageSource::Estimated));
        delivery.add(&[], 0, Some(openai(-4, 2)));
        assert_eq!(parts(&delivery.billed(false)), (50, 2, UsageSource::Estimated), "no count is negative");
        delivery.reported = Some(openai(9, -2));
        assert_eq!(parts(&delivery.billed(false)), (9, 7, UsageSource::Estimated), "each number stands for itself");
        delivery.reported = Some(openai(0, 0));
        assert_eq!(parts(&delivery.billed(false)), (0, 0, UsageSource::Provider), "nothing is told too");
        delivery.is_whole = false;
        assert_eq!(
            parts(&delivery.billed(false)),
            (50, 7, UsageSource::Partial),
            "before the end it is told of nobody"
        );
    }

    #[test]
    fn what_broke_off_is_at_least_what_was_delivered_and_what_was_said() {
        let mut delivery = Delivery::of_input(50);
        let begun = ClaudeUsage { input_tokens: Some(3), output_tokens: Some(1), ..ClaudeUsage::default() };
        delivery.add(&[], 0, Some(ReportedUsage::Claude(begun)));
        assert!(!delivery.has_output());
        delivery.add(&[AnswerDelta::Text("text".into())], 12, None);
        assert_eq!(parts(&delivery.billed(false)), (3, 12, UsageSource::Partial));
        let mut said_more = Delivery::of_input(50);
        said_more.add(&[], 12, Some(openai(4, 30)));
        assert_eq!(parts(&said_more.billed(false)), (4, 30, UsageSource::Partial));
        assert_eq!(parts(&Delivery::of_input(50).billed(false)), (50, 0, UsageSource::Partial));
    }

    #[test]
    fn a_report_that_text_follows_is_not_the_last_word() {
        let begun = || {
            let begun = ClaudeUsage { input_tokens: Some(1_000), output_tokens: Some(1), ..ClaudeUsage::default() };
            let mut delivery = Delivery::of_input(50);
            delivery.add(&[], 0, Some(ReportedUsage::Claude(begun)));
            delivery.add(&[AnswerDelta::Text("text".into())], 900, None);
            delivery
        };
        let mut ended = begun();
        ended.is_whole = true;
        assert_eq!(parts(&ended.billed(false)), (1_000, 900, UsageSource::Estimated));
        let last = ClaudeUsage { output_tokens: Some(880), ..ClaudeUsage::default() };
        ended.add(&[], 0, Some(ReportedUsage::Claude(last)));
        assert_eq!(parts(&ended.billed(false)), (1_000, 880, UsageSource::Provider));
        let mut with_its_text = Delivery::of_input(50);
        with_its_text.add(&[AnswerDelta::Text("text".into())], 12, Some(openai(4, 9)));
        with_its_text.is_whole = true;
        assert_eq!(parts(&with_its_text.billed(false)), (4, 9, UsageSource::Provider));
    }

    #[test]
    fn silence_before_a_break_is_billed_up_to_the_bound_until_the_provider_tells_more() {
        let mut delivery = Delivery { output_most: 1_000, ..Delivery::of_input(50) };
        delivery.be_silent(3);
        assert_eq!((delivery.output_so_far(), parts(&delivery.billed(false)).1), (300, 300));
        delivery.add(&[AnswerDelta::Text("text".into())], 12, None);
        assert_eq!(parts(&delivery.billed(false)).1, 312);
        delivery.be_silent(60);
        assert_eq!((delivery.output_so_far(), parts(&delivery.billed(false)).1), (1_000, 1_000));
        delivery.add(&[], 0, Some(openai(40, 500)));
        assert_eq!(parts(&delivery.billed(false)), (40, 500, UsageSource::Partial));
        delivery.be_silent(1);
        assert_eq!(parts(&delivery.billed(false)).1, 600);
        delivery.add(&[], 2_000, None);
        assert_eq!(parts(&delivery.billed(false)).1, 2_012, "what was delivered is billed whatever the bound");
        delivery.is_whole = true;
        assert_eq!(parts(&delivery.billed(false)), (40, 2_012, UsageSource::Estimated), "text came after the report");
    }
}
