//! What is measured. A case is data: another one is a few lines here, and a file beside the yardsticks if what it is
//! compared with is new.

/// The connections of a case, and the clients of a yardstick.
pub const CONNECTIONS: &[u32] = &[1, 16, 64];

/// How many callers there are where "a few hundred" is meant: what the service remembers of a caller is mostly there.
const A_FEW_HUNDRED: u32 = 500;

/// One request, again and again.
pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub path: &'static str,
    pub callers: Callers,
    /// Lua after `load.lua`, for requests that differ from one another: mostly `function body() .. end`, where
    /// `unique()` makes an idempotency key.
    pub script: &'static str,
    pub connections: &'static [u32],
    /// How many of the yardstick's transactions one request is worth: more than one for a batch.
    pub items_per_request: u32,
    pub yardstick: Option<&'static Yardstick>,
}

/// Who asks.
#[derive(Clone, Copy)]
pub enum Callers {
    /// Requests without a token.
    Nobody,
    /// A random one of the first so many users.
    First(u32),
    /// A random one of all users.
    Everybody,
}

/// The same work as one statement of `pgbench`, prepared, by the owner of the tables: no row-level security, no role
/// to set, no transaction to open.
#[derive(PartialEq, Eq)]
pub struct Yardstick {
    pub name: &'static str,
    /// For `pgbench --file`; the variable `users` holds their number.
    pub script: &'static str,
}

static SELECT_PLANS: Yardstick =
    Yardstick { name: "pgbench: SELECT of the plans as JSON", script: include_str!("yardsticks/plans.sql") };
static SELECT_FACTS: Yardstick =
    Yardstick { name: "pgbench: SELECT of a check's facts", script: include_str!("yardsticks/check.sql") };

static CONSUME: Yardstick =
    Yardstick { name: "pgbench: consume, every user", script: include_str!("yardsticks/consume.sql") };
static CONSUME_HOT: Yardstick =
    Yardstick { name: "pgbench: consume, one user", script: include_str!("yardsticks/consume_hot.sql") };

pub static YARDSTICKS: [&Yardstick; 4] = [&SELECT_PLANS, &SELECT_FACTS, &CONSUME, &CONSUME_HOT];

/// Consumption is gathered, so it is measured with more of them waiting too.
const MANY_CONNECTIONS: &[u32] = &[1, 16, 64, 256];

/// A thing to consume that every plan grants, under a key of its own.
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

/// What most cases have in common.
const READING: Case = Case {
    name: "",
    method: "GET",
    path: "",
    callers: Callers::Nobody,
    script: "",
    connections: CONNECTIONS,
    items_per_request: 1,
    yardstick: None,
};

/// What the cases of consumption have in common.
const CONSUMING: Case =
    Case { method: "POST", path: "/api/usage", script: CONSUME_ONE, connections: MANY_CONNECTIONS, ..READING };

pub static CASES: [Case; 7] = [
    // What the HTTP server and the middleware cost, and all that wrk can ask for.
    Case { name: "empty route", path: "/healthz", ..READING },
    Case { name: "plans", path: "/api/plans", yardstick: Some(&SELECT_PLANS), ..READING },
    Case {
        name: "check, 500 users",
        path: "/api/users/me/features/ai_requests",
        callers: Callers::First(A_FEW_HUNDRED),
        yardstick: Some(&SELECT_FACTS),
        ..READING
    },
    // The pgbench statement asks for all users too.
    Case {
        name: "check, every user",
        path: "/api/users/me/features/ai_requests",
        callers: Callers::Everybody,
        yardstick: Some(&SELECT_FACTS),
        ..READING
    },
    Case { name: "consume, every user", callers: Callers::Everybody, yardstick: Some(&CONSUME), ..CONSUMING },
    Case { name: "consume, one user", callers: Callers::First(1), yardstick: Some(&CONSUME_HOT), ..CONSUMING },
    Case {
        name: "consume, batches of 100",
        path: "/api/usage/batch",
        callers: Callers::Everybody,
        script: CONSUME_HUNDRED,
        connections: &[16],
        items_per_request: 100,
        yardstick: Some(&CONSUME),
        ..CONSUMING
    },
];
