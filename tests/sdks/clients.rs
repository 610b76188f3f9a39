//! Coding agents and chat clients through the gateway, unchanged except for their base URL and API key: one streamed
//! response, one turn with a tool, one refusal at the limit of an API key, and the same response from the sandbox.
//!
//! The programs are searched in `.clients` (`make clients`). If one is missing, its test reports on standard error that
//! it skips. Each runs in its own home folder and connects only to the gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use app::settings::models::parse;
use app::settings::shape::{SecretText, Settings};
use harness::TestApp;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::upstream::{Script, Upstream};

/// The time limit for a turn of a client.
const TURN_WITHIN: Duration = Duration::from_mins(1);

/// A client that keeps retrying a refused call is stopped after this time; aider retries for a minute.
const REFUSED_WITHIN: Duration = Duration::from_secs(25);

const ANSWER: &str = "The quick brown fox answers.";
const AFTER_TOOL: &str = "The file says pineapple.";
const SECRET_IN_FILE: &str = "pineapple-4711";

/// The models of the catalogue, one for each dialect; their prices do not matter.
const MODELS: &str = r#"
version = "2026-11-12"
[providers]
[[models]]
id = "gpt-one"
provider = "openai"
max_input_tokens = 400000
max_output_tokens = 100000
prices = { input = "2", output = "10", cache_read = "0.2" }
[[models]]
id = "claude-one"
provider = "claude"
max_input_tokens = 400000
max_output_tokens = 100000
prices = { input = "2", output = "10", cache_read = "0.2", cache_write_short = "2.5", cache_write_long = "4" }
[[models]]
id = "gemini-one"
provider = "gemini"
max_input_tokens = 400000
max_output_tokens = 100000
prices = { input = "2", output = "10", cache_read = "0.2" }
"#;

/// One client: its setup and its arguments.
struct Client {
    name: &'static str,
    program: &'static str,
    model: &'static str,
    /// The client's own tool for reading a file, and its arguments with `$file` for the path.
    tool: Option<(&'static str, &'static str)>,
    /// Arguments with `$model`, `$prompt`, `$url`.
    arguments: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// Whether it waits without output after a response that asks it to retry later.
    waits_in_silence: bool,
    /// Files in its home or, for paths that begin with `work/`, in its working folder.
    files: &'static [(&'static str, &'static str)],
}

const CLAUDE_CODE: Client = Client {
    name: "Claude Code",
    program: "node_modules/.bin/claude",
    model: "claude-one",
    tool: Some(("Read", r#"{"file_path": "$file"}"#)),
    arguments: &["-p", "$prompt", "--model", "$model"],
    variables: &[
        ("ANTHROPIC_BASE_URL", "$url"),
        ("ANTHROPIC_API_KEY", "$key"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
    ],
    waits_in_silence: false,
    files: &[],
};

const GEMINI_CLI: Client = Client {
    name: "Gemini CLI",
    program: "node_modules/.bin/gemini",
    model: "gemini-one",
    tool: Some(("read_file", r#"{"file_path": "$file"}"#)),
    arguments: &["-p", "$prompt", "-m", "$model"],
    variables: &[
        ("GOOGLE_GEMINI_BASE_URL", "$url"),
        ("GEMINI_API_KEY", "$key"),
        ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
    ],
    waits_in_silence: false,
    files: &[(
        ".gemini/settings.json",
        r#"{"security":{"auth":{"selectedType":"gemini-api-key"}},"privacy":{"usageStatisticsEnabled":false},"general":{"disableAutoUpdate":true}}"#,
    )],
};

const OPENCODE: Client = Client {
    name: "opencode",
    program: "node_modules/.bin/opencode",
    model: "gpt-one",
    tool: Some(("read", r#"{"filePath": "$file"}"#)),
    arguments: &["run", "-m", "pb/$model", "$prompt"],
    variables: &[("OPENCODE_DISABLE_AUTOUPDATE", "true"), ("OPENCODE_DISABLE_MODELS_FETCH", "true")],
    waits_in_silence: true,
    files: &[(
        "work/opencode.json",
        r#"{"autoupdate":false,"provider":{"pb":{"npm":"@ai-sdk/openai-compatible","options":{"baseURL":"$url/v1","apiKey":"$key"},"models":{"$model":{}}}}}"#,
    )],
};

const AIDER: Client = Client {
    name: "aider",
    program: "python/bin/aider",
    model: "gpt-one",
    // It edits files from the model's text, and calls no tools.
    tool: None,
    arguments: &[
        "--model",
        "openai/$model",
        "--no-git",
        "--yes-always",
        "--no-check-update",
        "--no-show-model-warnings",
        "--no-analytics",
        "--no-show-release-notes",
        "--map-tokens",
        "0",
        "--message",
        "$prompt",
    ],
    variables: &[("OPENAI_API_BASE", "$url/v1"), ("OPENAI_API_KEY", "$key")],
    waits_in_silence: false,
    files: &[],
};

const LLM: Client = Client {
    name: "llm",
    program: "python/bin/llm",
    model: "gpt-one",
    tool: Some(("llm_version", "{}")),
    arguments: &["-m", "pb", "-T", "llm_version", "$prompt"],
    variables: &[("LLM_USER_PATH", "$home/llm"), ("LLM_OPENAI_KEY", "$key")],
    waits_in_silence: false,
    files: &[
        (
            "llm/extra-openai-models.yaml",
            "- model_id: pb\n  model_name: $model\n  api_base: $url/v1\n  api_key_name: pb\n  supports_tools: true\n",
        ),
        ("llm/keys.json", r#"{"pb": "$key"}"#),
    ],
};

struct Gateway {
    app: TestApp,
    upstream: Upstream,
    key: String,
    limited_key: String,
}

impl Gateway {
    /// With a stub of the providers, or with the sandbox instead.
    async fn open(has_stub: bool) -> Self {
        let upstream = Upstream::start();
        let serve = |settings: &mut Settings| {
            let ai = &mut settings.ai;
            ai.models = parse(MODELS, &domain::ai::ProviderProfiles::default()).expect("a catalogue");
            let providers = [
                (&mut ai.openai, upstream.openai_url()),
                (&mut ai.claude, upstream.anthropic_url()),
                (&mut ai.gemini, upstream.gemini_url()),
            ];
            for (provider, url) in providers.into_iter().filter(|_| has_stub) {
                provider.base_url = url;
                provider.api_key = SecretText::new("the-key-of-the-stub");
            }
        };
        let app = TestApp::with(serve).await;
        let ada = app.signup("ada@example.com").await;
        let plan = json!({ "plan_id": "platinum" });
        app.post("/api/users/me/plan").bearer(&ada).json(plan).send().await.expect_status(200);
        let key = async |limits: Value| {
            let body = json!({ "name": "client", "limits": limits });
            let made = app.post("/api/keys").bearer(&ada).json(body).send().await.expect_status(201);
            made.text_at("/key").to_owned()
        };
        let (free, limited) = (key(json!({})).await, key(json!({ "monthly_cost_usd": "0.000000001" })).await);
        Self { app, upstream, key: free, limited_key: limited }
    }

    async fn run(&self, client: &Client, key: &str, prompt: &str) -> Outcome {
        let outcome = self.run_for(client, key, prompt, TURN_WITHIN).await;
        assert!(outcome.is_over, "{} was not done in {TURN_WITHIN:?}: {outcome:?}", client.name);
        outcome
    }

    /// Stops the client after `longest`.
    async fn run_for(&self, client: &Client, key: &str, prompt: &str, longest: Duration) -> Outcome {
        let home = TempDir::new().expect("a folder");
        let filled = |text: &str| self.fill(text, client, key, prompt, home.path());
        fs::create_dir(home.path().join("work")).expect("a folder");
        fs::write(home.path().join("work/secret.txt"), SECRET_IN_FILE).expect("a file");
        for (file, text) in client.files {
            let file = home.path().join(file);
            fs::create_dir_all(file.parent().expect("a file stands in a folder")).expect("a folder");
            fs::write(file, filled(text)).expect("a file");
        }
        let shown_in = home.path().join("shown");
        let shown = fs::File::create(&shown_in).expect("a file");
        let mut command = tokio::process::Command::new(program(client));
        command
            .args(client.arguments.iter().map(|argument| filled(argument)))
            .env("HOME", home.path())
            // Some programs use it instead of the real working folder.
            .env("PWD", home.path().join("work"))
            .env("NO_PROXY", "127.0.0.1")
            .envs(client.variables.iter().map(|(name, value)| (name, filled(value))))
            .current_dir(home.path().join("work"))
            .stdin(Stdio::null())
            .stdout(shown.try_clone().expect("a file"))
            .stderr(shown.try_clone().expect("a file"))
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the client can be started");
        let ended = tokio::time::timeout(longest, child.wait()).await;
        let is_success = ended.as_ref().is_ok_and(|ended| ended.as_ref().is_ok_and(std::process::ExitStatus::success));
        let text = String::from_utf8_lossy(&fs::read(&shown_in).expect("a file")).into_owned();
        Outcome { text, is_success, is_over: ended.is_ok() }
    }

    fn fill(&self, text: &str, client: &Client, key: &str, prompt: &str, home: &Path) -> String {
        let values = [
            ("$url", format!("http://{}", self.app.address())),
            ("$key", key.to_owned()),
            ("$model", client.model.to_owned()),
            ("$prompt", prompt.to_owned()),
            ("$home", home.display().to_string()),
        ];
        values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

#[derive(Debug)]
struct Outcome {
    text: String,
    is_success: bool,
    is_over: bool,
}

impl Outcome {
    /// Whether the output contains the words, independent of line wraps.
    fn shows(&self, words: &str) -> bool {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        plain(&self.text).contains(&plain(words))
    }
}

fn program(client: &Client) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository");
    root.join(".clients").join(client.program)
}

async fn drive(client: &Client) {
    if !program(client).exists() {
        let what = format!("{} was not driven", client.name);
        return harness::skip(&what, "it is not installed", "`make clients` installs it.");
    }
    let gateway = Gateway::open(true).await;
    gateway.upstream.script_others(Script::says(ANSWER));
    let streamed = gateway.run(client, &gateway.key, "Say hello.").await;
    assert!(streamed.is_success && streamed.shows(ANSWER), "{streamed:?}");

    if let Some((name, arguments)) = client.tool {
        // Read tools ask for an absolute path, which the stub cannot know; the clients also resolve a relative one.
        let arguments = arguments.replace("$file", "secret.txt");
        gateway.upstream.script_others(Script::says("").calling(name, &arguments).then_saying(AFTER_TOOL));
        gateway.upstream.clear();
        let turn = gateway.run(client, &gateway.key, "What does secret.txt say?").await;
        assert!(turn.is_success && turn.shows(AFTER_TOOL), "{turn:?}");
        let requests = gateway.upstream.requests();
        assert!(requests.len() >= 2, "the result of the tool went back: {} requests", requests.len());
    }

    gateway.upstream.clear();
    let refused = gateway.run_for(client, &gateway.limited_key, "Say hello.", REFUSED_WITHIN).await;
    assert!(!refused.shows(ANSWER), "{refused:?}");
    let says_why = refused.text.contains("limit") || refused.text.contains("429");
    assert!(says_why || (client.waits_in_silence && !refused.is_over), "it says why: {refused:?}");
    assert!(gateway.upstream.requests().is_empty(), "a refused call reaches no provider");
    gateway.app.stop().await;

    let sandbox = Gateway::open(false).await;
    let answered = sandbox.run(client, &sandbox.key, "Say hello.").await;
    assert!(answered.is_success && answered.shows("This is the sandbox"), "{answered:?}");
    sandbox.app.stop().await;
}

#[tokio::test]
async fn claude_code() {
    drive(&CLAUDE_CODE).await;
}

#[tokio::test]
async fn gemini_cli() {
    drive(&GEMINI_CLI).await;
}

#[tokio::test]
async fn opencode() {
    drive(&OPENCODE).await;
}

#[tokio::test]
async fn aider() {
    drive(&AIDER).await;
}

#[tokio::test]
async fn llm() {
    drive(&LLM).await;
}
