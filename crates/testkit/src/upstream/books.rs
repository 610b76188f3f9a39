//! The stub's state: scripts, requests and the bill. Its lock is held for one entry at a time, never during a wait.
//!
//! The last requests and lines are kept, as many as the settings allow and at most 64 MiB of bodies; totals cover all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::ask::{UpstreamAsk, UpstreamCallKind, understand};
use super::bill::{BillEnding, BillLine, BillTotals};
use super::http::UpstreamRequest;
use super::reply::{self, UpstreamReply};
use super::script::Script;
use super::usage::{UpstreamPrices, UsageParts};

const BODY_BYTES_KEPT: usize = 64 * 1024 * 1024;

pub struct UpstreamBooks {
    pages: Mutex<BookPages>,
    /// A permit lets one held response continue.
    pub let_go: Semaphore,
    kept: usize,
}

#[derive(Default)]
pub struct BookPages {
    pub scripts: BTreeMap<String, ScriptedModels>,
    pub otherwise: Script,
    pub key: Option<String>,
    pub requests: VecDeque<UpstreamRequest>,
    pub bill: VecDeque<BillLine>,
    pub totals: BillTotals,
    /// Responses that wait for the test.
    pub held: u64,
    body_bytes: usize,
    last_number: u64,
    /// Increments when the books are cleared: a response that was in progress then is no longer counted.
    volume: u64,
}

/// Uses each of the first scripts the given number of times, then the last one.
#[derive(Default)]
pub struct ScriptedModels {
    pub first: VecDeque<(u64, Script)>,
    pub then: Script,
}

/// A response in progress, and its line in the books.
pub struct UpstreamAccount {
    number: u64,
    volume: u64,
    prices: UpstreamPrices,
    usage: UsageParts,
    nano_dollars: u64,
}

impl UpstreamBooks {
    pub fn new(kept: usize) -> Self {
        Self { pages: Mutex::new(BookPages::default()), let_go: Semaphore::new(0), kept }
    }

    pub fn pages(&self) -> MutexGuard<'_, BookPages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the request and returns its response.
    pub fn open(&self, mut request: UpstreamRequest) -> (UpstreamReply, UpstreamAccount) {
        let (number, key) = self.pages().next();
        request.number = number;
        let (reply, line, prices) = match understand(&request, key.as_deref()) {
            Ok(ask) => {
                let (script, known) = self.pages().script(&ask);
                let reply = reply::to(&ask, &script, number, &known);
                let line = line(number, &reply, Some(&ask), script.answer.tier.clone());
                (reply, line, script.prices)
            }
            Err((dialect, refusal)) => {
                let reply = reply::refused(dialect, &refusal, number);
                let line = BillLine { dialect: Some(dialect), ..line(number, &reply, None, None) };
                (reply, line, UpstreamPrices::default())
            }
        };
        let mut pages = self.pages();
        pages.totals.requests += 1;
        pages.totals.answering += 1;
        pages.totals.answering_at_most = pages.totals.answering_at_most.max(pages.totals.answering);
        pages.keep(self.kept, request, line);
        let account =
            UpstreamAccount { number, volume: pages.volume, prices, usage: UsageParts::default(), nano_dollars: 0 };
        (reply, account)
    }

    /// Charges the usage so far.
    pub fn charge(&self, account: &mut UpstreamAccount, used: UsageParts) {
        if account.usage == used {
            return;
        }
        let nano_dollars = account.prices.nano_dollars(used);
        let mut pages = self.pages();
        if pages.volume != account.volume {
            return;
        }
        pages.totals.usage = pages.totals.usage + used - account.usage;
        pages.totals.nano_dollars = pages.totals.nano_dollars + nano_dollars - account.nano_dollars;
        (account.usage, account.nano_dollars) = (used, nano_dollars);
        if let Some(line) = pages.line(account.number) {
            (line.usage, line.nano_dollars) = (used, nano_dollars);
        }
    }

    pub fn deliver(&self, account: &UpstreamAccount, bytes: usize) {
        let mut pages = self.pages();
        if let Some(line) = pages.line(account.number).filter(|_| bytes > 0) {
            line.delivered += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
    }

    pub fn close(&self, account: &UpstreamAccount, ending: BillEnding) {
        let mut pages = self.pages();
        if pages.volume != account.volume {
            return;
        }
        pages.totals.answering -= 1;
        match ending {
            BillEnding::Answering => {}
            BillEnding::Finished => pages.totals.finished += 1,
            BillEnding::ClientLeft => pages.totals.clients_left += 1,
            BillEnding::BrokenOff => pages.totals.broken_off += 1,
        }
        if let Some(line) = pages.line(account.number) {
            line.ending = ending;
        }
    }
}

fn line(number: u64, reply: &UpstreamReply, ask: Option<&UpstreamAsk>, tier: Option<String>) -> BillLine {
    BillLine {
        number,
        dialect: ask.map(|ask| ask.dialect),
        model: ask.map_or_else(String::new, |ask| ask.model.clone()),
        is_stream: reply.is_stream,
        status: reply.status,
        usage: UsageParts::default(),
        nano_dollars: 0,
        tier,
        ending: BillEnding::Answering,
        delivered: 0,
    }
}

impl ScriptedModels {
    fn take(&mut self) -> Script {
        let Some((times, script)) = self.first.front_mut() else { return self.then.clone() };
        *times -= 1;
        let (is_over, script) = (*times == 0, script.clone());
        if is_over {
            self.first.pop_front();
        }
        script
    }
}

impl BookPages {
    /// Removes requests and bill. Scripts stay, and numbers continue, so that no id is used twice.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.bill.clear();
        self.body_bytes = 0;
        self.totals = BillTotals::default();
        self.volume += 1;
    }

    /// The number of a request, and the required credential.
    fn next(&mut self) -> (u64, Option<String>) {
        self.last_number += 1;
        (self.last_number, self.key.clone())
    }

    /// The model's current script. A request for the model list has none: it gets the models with a script.
    fn script(&mut self, ask: &UpstreamAsk) -> (Script, Vec<String>) {
        if ask.kind == UpstreamCallKind::Models {
            return (Script::default(), self.scripts.keys().cloned().collect());
        }
        (self.scripts.get_mut(&ask.model).map_or_else(|| self.otherwise.clone(), ScriptedModels::take), Vec::new())
    }

    fn keep(&mut self, kept: usize, request: UpstreamRequest, line: BillLine) {
        self.body_bytes += request.body.len();
        self.requests.push_back(request);
        while self.requests.len() > kept || self.body_bytes > BODY_BYTES_KEPT {
            let Some(oldest) = self.requests.pop_front() else { break };
            self.body_bytes -= oldest.body.len();
        }
        self.bill.push_back(line);
        if self.bill.len() > kept {
            self.bill.pop_front();
        }
    }

    /// The line of a request, while it is kept. Connections add lines concurrently, so their order may be off by a few.
    fn line(&mut self, number: u64) -> Option<&mut BillLine> {
        self.bill.iter_mut().rev().find(|line| line.number == number)
    }
}
