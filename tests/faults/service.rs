//! The real program as a child process, configured by environment variables.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::clusters::signal;

/// The program in the parent folder of this test's executable.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("product-base");
    assert!(
        program.exists(),
        "{} is missing: `cargo build -p product-base` makes it, and so does `make test`",
        program.display()
    );
    program
}

/// A running service process; it is killed when this is dropped.
pub struct Service {
    child: Child,
    /// With the scheme, without a trailing slash.
    pub address: String,
    /// Kept open, because the program continues to print.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Service {
    /// Starts it with the settings of `config/test.toml`, changed by these variables. The log goes to `log`. Blocks
    /// until the program prints the address where it listens.
    pub fn start(variables: &[(&str, &str)], log: Stdio) -> Self {
        let mut child = Command::new(program())
            .arg("serve")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("PB__ENVIRONMENT", "test")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = said.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on ")?;
            Some(address.to_owned())
        });
        Self { child, address: address.expect("the program says where it listens"), _said: said }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn terminate(&self) {
        signal("TERM", &[self.child.id().to_string()]);
    }

    /// SIGKILL: the process cannot clean up.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < limit, "the process is still there after {limit:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
