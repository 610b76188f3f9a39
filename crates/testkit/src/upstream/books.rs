//! What the stub remembers: scripts, requests, the bill. A lock is held for one entry at a time, never over a wait.
//!
//! The last requests and lines are kept, as many as the settings say and at most 64 MiB of bodies; the totals are of all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::ask::{Ask, Kind, understand};
use super::bill::{BillLine, Ending, Totals};
use super::http::Request;
use super::reply::{self, Reply};
use super::script::Script;
use super::usage::{Parts, Prices};

const BODY_BYTES_KEPT: usize = 64 * 1024 * 1024;

pub struct Books {
    pages: Mutex<Pages>,
    /// A permit lets one held answer go on.
    pub let_go: Semaphore,
    kept: usize,
}

#[derive(Default)]
pub struct Pages {
    pub scripts: BTreeMap<String, Scripted>,
    pub otherwise: Script,
    pub key: Option<String>,
    pub requests: VecDeque<Request>,
    pub bill: VecDeque<BillLine>,
    pub totals: Totals,
    /// Answers that wait for the test.
    pub held: u64,
    body_bytes: usize,
    last_number: u64,
    /// Rises when the books are emptied: an answer that was under way then is no longer counted.
    volume: u64,
}

/// So often each of the first scripts, then the last.
#[derive(Default)]
pub struct Scripted {
    pub first: VecDeque<(u64, Script)>,
    pub then: Script,
}

/// An answer under way, and where it is written down.
pub struct Account {
    number: u64,
    volume: u64,
    prices: Prices,
    usage: Parts,
    nano_dollars: u64,
}

impl Books {
    pub fn new(kept: usize) -> Self {
        Self { pages: Mutex::new(Pages::default()), let_go: Semaphore::new(0), kept }
    }

    pub fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the request down, and says how to answer it.
    pub fn open(&self, mut request: Request) -> (Reply, Account) {
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
                (reply, line, Prices::default())
            }
        };
        let mut pages = self.pages();
        pages.totals.requests += 1;
        pages.totals.answering += 1;
        pages.totals.answering_at_most = pages.totals.answering_at_most.max(pages.totals.answering);
        pages.keep(self.kept, request, line);
        let account = Account { number, volume: pages.volume, prices, usage: Parts::default(), nano_dollars: 0 };
        (reply, account)
    }

    /// Charges what has been used by now.
    pub fn charge(&self, account: &mut Account, used: Parts) {
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

    pub fn deliver(&self, account: &Account, bytes: usize) {
        let mut pages = self.pages();
        if let Some(line) = pages.line(account.number).filter(|_| bytes > 0) {
            line.delivered += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
    }

    pub fn close(&self, account: &Account, ending: Ending) {
        let mut pages = self.pages();
        if pages.volume != account.volume {
            return;
        }
        pages.totals.answering -= 1;
        match ending {
            Ending::Answering => {}
            Ending::Finished => pages.totals.finished += 1,
            Ending::ClientLeft => pages.totals.clients_left += 1,
            Ending::BrokenOff => pages.totals.broken_off += 1,
        }
        if let Some(line) = pages.line(account.number) {
            line.ending = ending;
        }
    }
}

fn line(number: u64, reply: &Reply, ask: Option<&Ask>, tier: Option<String>) -> BillLine {
    BillLine {
        number,
        dialect: ask.map(|ask| ask.dialect),
        model: ask.map_or_else(String::new, |ask| ask.model.clone()),
        is_stream: reply.is_stream,
        status: reply.status,
        usage: Parts::default(),
        nano_dollars: 0,
        tier,
        ending: Ending::Answering,
        delivered: 0,
    }
}

impl Scripted {
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

impl Pages {
    /// Forgets requests and bill. Scripts stay, and numbers go on, so that no id comes twice.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.bill.clear();
        self.body_bytes = 0;
        self.totals = Totals::default();
        self.volume += 1;
    }

    /// The number of a request, and the credential that it must show.
    fn next(&mut self) -> (u64, Option<String>) {
        self.last_number += 1;
        (self.last_number, self.key.clone())
    }

    /// How the model behaves now. Of a list of models nobody wrote a script: there it is the models that have one.
    fn script(&mut self, ask: &Ask) -> (Script, Vec<String>) {
        if ask.kind == Kind::Models {
            return (Script::default(), self.scripts.keys().cloned().collect());
        }
        (self.scripts.get_mut(&ask.model).map_or_else(|| self.otherwise.clone(), Scripted::take), Vec::new())
    }

    fn keep(&mut self, kept: usize, request: Request, line: BillLine) {
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

    /// The line of a request, while it is kept. Connections open theirs side by side, so the order may be off by a few.
    fn line(&mut self, number: u64) -> Option<&mut BillLine> {
        self.bill.iter_mut().rev().find(|line| line.number == number)
    }
}
