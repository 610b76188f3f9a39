//! The stub upstream alone, for benchmarks and SDKs: `cargo run --release -p product-base-testkit --example upstream`.
//!
//! Its arguments are the address (127.0.0.1:9090) and the number of threads (2). It serves until it is stopped. The
//! models are those of `src/upstream/catalogue.rs`; any other name is the model `stub`. `GET /stub/totals` returns what
//! it would charge, `POST /stub/clear` resets it.

#![allow(clippy::expect_used, reason = "test code: a mistyped argument stops it")]

use std::net::SocketAddr;
use std::{env, thread};

use product_base_testkit::upstream::{Upstream, UpstreamSettings};

fn main() {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9090".to_owned());
    let threads = arguments.next().unwrap_or_else(|| "2".to_owned());
    let address: SocketAddr = address.parse().expect("the first argument is an address such as 127.0.0.1:9090");
    let threads: usize = threads.parse().expect("the second argument is a number of threads");
    // A benchmark sends millions of requests and reads only the totals.
    let upstream = Upstream::start_with(&UpstreamSettings { address, threads, kept: 100 });
    upstream.script_catalogue();
    println!("OpenAI:    {}", upstream.openai_url());
    println!("Anthropic: {}", upstream.anthropic_url());
    println!("Gemini:    {}", upstream.gemini_url());
    loop {
        thread::park();
    }
}
