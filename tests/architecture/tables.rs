//! The tables of the rules: what is allowed where. Every exception to a rule is here, with its reason.

/// The allowed imports of one of our crates: exactly these of ours; of others only these, if there is a list.
pub struct Imports {
    pub package: &'static str,
    pub ours: &'static [&'static str],
    pub others: Option<&'static [&'static str]>,
}

pub const DOMAIN: &str = "product-base-domain";
pub const PORTS: &str = "product-base-ports";
pub const SERVICES: &str = "product-base-services";
pub const ADAPTERS: &str = "product-base-adapters";
pub const APP: &str = "product-base";
pub const TESTKIT: &str = "product-base-testkit";
pub const MIGRATION: &str = "migration";
/// Exempt from the table: the tests import everything that they test.
pub const TESTS: &str = "tests";

pub const IMPORTS: [Imports; 7] = [
    Imports {
        package: DOMAIN,
        ours: &[],
        others: Some(&[
            "chrono",
            "rust_decimal",
            "serde",
            "thiserror",
            "unicode-normalization",
            "unicode-security",
            "uuid",
        ]),
    },
    Imports {
        package: PORTS,
        ours: &[DOMAIN],
        others: Some(&["async-trait", "chrono", "futures-core", "rust_decimal", "serde", "thiserror", "uuid"]),
    },
    Imports {
        package: SERVICES,
        ours: &[DOMAIN, PORTS],
        others: Some(&[
            "async-trait",
            "chrono",
            "futures-core",
            "futures-util",
            "rust_decimal",
            "serde",
            "strsim",
            "thiserror",
            "tokio",
            "tracing",
            "uuid",
        ]),
    },
    Imports { package: ADAPTERS, ours: &[DOMAIN, PORTS], others: None },
    Imports { package: APP, ours: &[DOMAIN, PORTS, SERVICES, ADAPTERS, MIGRATION], others: None },
    Imports { package: MIGRATION, ours: &[], others: None },
    Imports {
        package: TESTKIT,
        ours: &[DOMAIN, PORTS],
        others: Some(&["actix-web", "chrono", "serde_json", "tokio", "uuid"]),
    },
];

/// Crates that only these crates of ours may import. A name that ends in `*` is a prefix.
pub const OWNERS: [(&[&str], &[&str]); 6] = [
    (
        &[
            "argon2",
            "chacha20poly1305",
            "hmac",
            "jsonwebtoken",
            "rand",
            "reqwest",
            "sea-orm",
            "sea-query*",
            "sha1",
            "sha2",
            "sqlx*",
        ],
        &[ADAPTERS],
    ),
    (&["actix-web"], &[APP, TESTKIT]),
    (&["actix-http", "actix-service", "rlimit"], &[APP]),
    (&["askama*", "config", "governor", "metrics*", "secrecy", "utoipa*", "validator"], &[APP]),
    (&["tracing-subscriber"], &[APP, MIGRATION]),
    (&["sea-orm-migration"], &[MIGRATION]),
];

/// Crates that the rules must not reach, not even through another crate.
pub const NOT_UNDER_DOMAIN: [&str; 5] = ["actix*", "reqwest", "sea-orm*", "sqlx*", "tokio*"];

/// ring is the only TLS library: no C library of the system, no second build in C.
pub const NO_TLS_BUT_RING: [&str; 6] =
    ["aws-lc-fips-sys", "aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];

pub const FILE_LINES_MAX: usize = 399;

/// Words that may occur in one place only, and why.
pub const ONE_PLACE: [(&str, &str); 8] = [
    ("Utc::now", "time comes from ports::clock::Clock or from the database, so that tests can set it"),
    ("Uuid::new_v4", "ids come from ports::randomness::Randomness, their one place"),
    ("Uuid::now_v7", "ids come from ports::randomness::Randomness, their one place"),
    ("env::var", "settings are read once, where the program starts"),
    ("SystemTime::now", "time comes from ports::clock::Clock or from the database, so that tests can set it"),
    ("todo!(", "what is not done is an issue, not a panic"),
    ("unimplemented!(", "what is not done is an issue, not a panic"),
    ("dbg!(", "what happens is told by tracing"),
];

pub struct WordAllowed {
    pub word: &'static str,
    pub file: &'static str,
    pub because: &'static str,
}

pub const WORDS_ALLOWED: [WordAllowed; 8] = [
    WordAllowed { word: "Utc::now", file: "crates/adapters/src/clock.rs", because: "the one place of the time" },
    WordAllowed { word: "SystemTime::now", file: "crates/adapters/src/clock.rs", because: "its test reads beside it" },
    WordAllowed { word: "Uuid::now_v7", file: "crates/adapters/src/randomness.rs", because: "the one place of ids" },
    WordAllowed {
        word: "env::var",
        file: "crates/app/src/main.rs",
        because: "the one place of the service's settings",
    },
    WordAllowed {
        word: "env::var",
        file: "migration/src/main.rs",
        because: "the one place of the migration's settings",
    },
    WordAllowed {
        word: "env::var",
        file: "crates/adapters/tests/embedded.rs",
        because: "a test that starts itself again as a victim hands it the folder so",
    },
    WordAllowed {
        word: "env::var",
        file: "tests/faults/torture/form.rs",
        because: "the tests have no settings file: `make torture` says how long it is to last in the environment",
    },
    WordAllowed {
        word: "env::var",
        file: "tests/harness/cluster.rs",
        because: "the tests have no settings file: the run names its cluster in the environment",
    },
];

pub const NO_ROOMS: [&str; 4] = ["common", "helpers", "types", "utils"];

/// The folders of a port's room in the other crates.
pub const HOUSES: [&str; 4] =
    ["crates/domain/src", "crates/services/src", "crates/adapters/src/postgres", "crates/app/src/http"];

pub struct RoomAbsent {
    pub room: &'static str,
    pub from: &'static [&'static str],
    pub because: &'static str,
}

pub const ROOMS_ABSENT: [RoomAbsent; 6] = [
    RoomAbsent {
        room: "ai",
        from: &["crates/adapters/src/postgres", "crates/app/src/http"],
        because: "providers are no rows, crates/adapters/src/ai; its doors are http/chat and http/dialects",
    },
    RoomAbsent {
        room: "changes",
        from: &["crates/services/src", "crates/app/src/http"],
        because: "nobody asks for them: a feed tells the memory of the process, crates/adapters/src/cache",
    },
    RoomAbsent {
        room: "clock",
        from: &HOUSES,
        because: "the machine's, not the product's: crates/adapters/src/clock.rs",
    },
    RoomAbsent {
        room: "idempotency",
        from: &["crates/app/src/http"],
        because: "it has no route of its own: http/idempotent.rs wraps the routes that create or spend",
    },
    RoomAbsent {
        room: "randomness",
        from: &HOUSES,
        because: "the machine's, not the product's: crates/adapters/src/randomness.rs",
    },
    RoomAbsent {
        room: "store",
        from: &["crates/domain/src", "crates/services/src", "crates/app/src/http"],
        because: "transactions carry the rooms and are none",
    },
];

pub const TOP_LEVEL: [&str; 8] =
    ["Cargo.toml", "Makefile", "README.md", "config", "crates", "docs", "migration", "tests"];
pub const TOP_LEVEL_OPTIONAL: [&str; 3] = ["Cargo.lock", "LICENSE", "target"];
