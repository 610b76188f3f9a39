//! The measured cases. A case is data: another one is a few lines here, and a file beside the yardsticks if it needs a
//! new yardstick.

/// The number of callers for "a few hundred": the service has most of them in its cache.
const A_FEW_HUNDRED: u32 = 500;

/// One request, repeated; or a few that belong together.
pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub callers: Callers,
    /// Lua after `load.lua`, for requests that differ from one another: mostly `function body() .. end`, where
    /// `unique()` makes an idempotency key.
    pub script: &'static str,
    /// One connection only if the latency of a lone request is of interest: it never gives the highest rate.
    pub connections: &'static [u32],
    /// Connections and the number of runs at them, each followed by a run of the yardstick, if there is one. The row is
    /// the median run, its ratio the median of the pairs. At other connections there is one run.
    pub repeated: &'static [(u32, u32)],
    pub house: House,
    /// The number of yardstick transactions in one request: more than one for a batch. A script that needs several
    /// requests for one transaction counts them itself, in `items`.
    pub items_per_request: u32,
    pub yardstick: Option<&'static Yardstick>,
}

impl Case {
    /// Whether the service batches these requests, so that its batch size is of interest.
    pub fn gathers(&self) -> bool {
        self.path.starts_with("/api/usage") || self.house == House::Gateway
    }

    /// Whether it calls models.
    pub fn asks_models(&self) -> bool {
        matches!(self.house, House::Gateway | House::Upstream)
    }
}

/// The callers.
#[derive(Clone, Copy)]
pub enum Callers {
    /// Requests without a token.
    Nobody,
    /// A random one of the first users, as many as this.
    First(u32),
    /// A random one of all users.
    Everybody,
}

/// The processes under measurement, and the tokens that they accept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum House {
    /// One process, with its own tokens.
    One,
    /// With a second process on the same database; each gets half of the connections.
    Two,
    /// A separate process that accepts tokens of Supabase (ES256), none of which it has cached.
    SupabaseUnseen,
    /// The same, after every token was sent to it once.
    Supabase,
    /// A separate process whose providers are the stub upstream.
    Gateway,
    /// The stub upstream itself, without the service.
    Upstream,
}

/// The same work in `pgbench`: one prepared statement or two, each a transaction, as the owner of the tables: no
/// row-level security, no `SET ROLE`, no `BEGIN`.
#[derive(PartialEq, Eq)]
pub struct Yardstick {
    pub name: &'static str,
    /// For `pgbench --file`; the variable `users` has their number.
    pub script: &'static str,
    /// Writes to a single row are fastest with one client; reads never are.
    pub clients: &'static [u32],
}

static SELECT_PLANS: Yardstick = Yardstick {
    name: "pgbench: SELECT of the plans as JSON",
    script: include_str!("yardsticks/plans.sql"),
    clients: &[16],
};
static SELECT_FACTS: Yardstick = Yardstick {
    name: "pgbench: SELECT of a check's facts",
    script: include_str!("yardsticks/check.sql"),
    clients: &[16, 64],
};

static CONSUME: Yardstick = Yardstick {
    name: "pgbench: consume, every user",
    script: include_str!("yardsticks/consume.sql"),
    clients: &[1, 16, 64],
};
pub static CONSUME_HOT: Yardstick = Yardstick {
    name: "pgbench: consume, one user",
    script: include_str!("yardsticks/consume_hot.sql"),
    clients: &[1, 16, 64],
};

static PAIR: Yardstick =
    Yardstick { name: "pgbench: pairs, every user", script: include_str!("yardsticks/pair.sql"), clients: &[16, 64] };
static PAIR_HOT: Yardstick = Yardstick {
    name: "pgbench: pairs, one user",
    script: include_str!("yardsticks/pair_hot.sql"),
    clients: &[1, 16, 64],
};

pub static YARDSTICKS: [&Yardstick; 6] = [&SELECT_PLANS, &SELECT_FACTS, &CONSUME, &CONSUME_HOT, &PAIR, &PAIR_HOT];

/// One unit of a feature that every plan grants, under its own idempotency key.
const CONSUME_ONE: &str = r#"
function body()
    return '{"feature_id":"bench_calls","idempotency_key":"' .. unique() .. '"}'
end
"#;

/// A hundred of them in one request.
const CONSUME_HUNDRED: &str = r#"
function body()
    local items = {}
    for i = 1, 100 do items[i] = '{"feature_id":"bench_calls","idempotency_key":"' .. unique() .. '"}' end
    return '{"items":[' .. table.concat(items, ",") .. ']}'
end
"#;

const CHECK_ONE: &str = r#"
function body() return '{"feature_id":"ai_requests"}' end
"#;

/// The common part of most cases.
const READING: Case = Case {
    name: "",
    method: "GET",
    path: "",
    callers: Callers::Nobody,
    script: "",
    connections: &[64],
    repeated: &[],
    house: House::One,
    items_per_request: 1,
    yardstick: None,
};

/// The common part of the check cases. The pgbench statement picks among all users.
const CHECKING: Case = Case { path: "/api/users/me/features/ai_requests", yardstick: Some(&SELECT_FACTS), ..READING };

/// The common part of the consumption cases.
const CONSUMING: Case = Case {
    method: "POST",
    path: "/api/usage",
    callers: Callers::Everybody,
    script: CONSUME_ONE,
    yardstick: Some(&CONSUME),
    ..READING
};

/// A reservation and its settlement: two requests.
const PAIRING: Case =
    Case { path: "/api/usage/reservations", script: include_str!("pairs.lua"), yardstick: Some(&PAIR), ..CONSUMING };

pub const CHECK: &str = "check, every user";
pub const CHECK_POSTED: &str = "check by POST, every user";
pub const CONSUME_EVERY: &str = "consume, every user";
pub const CONSUME_TWO: &str = "consume, two processes";
pub const CONSUME_SUPABASE: &str = "consume, ES256 tokens";
pub const CONSUME_ONE_USER: &str = "consume, one user";
pub const CONSUME_BATCHES: &str = "consume, batches of 100";
pub const PAIRS: &str = "pairs, every user";
pub const PAIRS_ONE_USER: &str = "pairs, one user";

/// A small prompt with a token limit; the service reserves for the whole limit first.
const ASK: &str = r#"
function body()
    return '{"model":"gpt-4o-mini","max_tokens":64,"messages":[{"role":"user","content":"Say something kind."}]}'
end
"#;

const ASK_STREAMED: &str = r#"
function body()
    return '{"model":"gpt-4o-mini","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"Say something kind."}]}'
end
"#;

/// The number of users for the model calls.
pub const GATEWAY_USERS: u32 = 1_000;

/// The common part of the model call cases.
const ASKING: Case = Case {
    method: "POST",
    path: "/v1/chat/completions",
    callers: Callers::First(GATEWAY_USERS),
    script: ASK,
    connections: &[1, 32],
    house: House::Gateway,
    ..READING
};

/// The same call to the stub upstream, which accepts any key.
const ASKING_DIRECTLY: Case = Case { house: House::Upstream, ..ASKING };

pub const DIRECT: &str = "stub upstream, plain";
pub const DIRECT_STREAMED: &str = "stub upstream, streamed";
pub const GATEWAY: &str = "gateway, 1,000 users";
pub const GATEWAY_ONE_USER: &str = "gateway, one user";
pub const GATEWAY_STREAMED: &str = "gateway, 1,000 users, streamed";

pub static CASES: [Case; 18] = [
    // The cost of the HTTP server and the middleware, and the limit of wrk itself.
    Case { name: "empty route", path: "/healthz", connections: &[1, 64], ..READING },
    Case { name: "plans", path: "/api/plans", yardstick: Some(&SELECT_PLANS), ..READING },
    Case { name: "check, 500 users", callers: Callers::First(A_FEW_HUNDRED), ..CHECKING },
    Case { name: CHECK, callers: Callers::Everybody, connections: &[1, 16, 64], ..CHECKING },
    Case {
        name: CHECK_POSTED,
        method: "POST",
        path: "/api/entitlements/check",
        callers: Callers::Everybody,
        script: CHECK_ONE,
        ..CHECKING
    },
    // Consumption is batched, so it is also measured with more waiting requests.
    Case { name: CONSUME_EVERY, connections: &[1, 16, 256, 64], repeated: &[(256, 3), (64, 5)], ..CONSUMING },
    // Directly after the five runs of one process, with which it is compared.
    Case { name: CONSUME_TWO, house: House::Two, repeated: &[(64, 3)], ..CONSUMING },
    Case { name: "consume, ES256 tokens, unseen", house: House::SupabaseUnseen, ..CONSUMING },
    Case { name: CONSUME_SUPABASE, house: House::Supabase, repeated: &[(64, 3)], ..CONSUMING },
    Case {
        name: CONSUME_ONE_USER,
        callers: Callers::First(1),
        connections: &[1, 64, 256],
        yardstick: Some(&CONSUME_HOT),
        ..CONSUMING
    },
    Case {
        name: CONSUME_BATCHES,
        path: "/api/usage/batch",
        script: CONSUME_HUNDRED,
        connections: &[16],
        items_per_request: 100,
        ..CONSUMING
    },
    Case { name: PAIRS, connections: &[64, 256], repeated: &[(64, 3)], ..PAIRING },
    Case { name: PAIRS_ONE_USER, callers: Callers::First(1), yardstick: Some(&PAIR_HOT), ..PAIRING },
    Case { name: DIRECT, ..ASKING_DIRECTLY },
    // The tables are vacuumed at irregular times, which may affect a single run.
    Case { name: GATEWAY, repeated: &[(32, 3)], ..ASKING },
    Case { name: GATEWAY_ONE_USER, callers: Callers::First(1), connections: &[32], ..ASKING },
    Case { name: DIRECT_STREAMED, script: ASK_STREAMED, ..ASKING_DIRECTLY },
    Case { name: GATEWAY_STREAMED, script: ASK_STREAMED, ..ASKING },
];
