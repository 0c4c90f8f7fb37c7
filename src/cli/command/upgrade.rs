//! `upgrade`: another program takes the mount over, and nobody in it notices.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Done, status};
use crate::cli::Context;
use crate::cli::args::Upgrade;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};

/// Longest that a daemon drains and its successor starts, or fails to and is succeeded itself.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(context: &Context, args: &Upgrade) -> Done {
    let program = program(args)?;
    let client = context.client()?;
    let before = generation(&client.read_text(".control/status")?).unwrap_or(0);
    let command = json!({ "do": "upgrade", "path": program }).to_string();
    // What it answers is of no interest, and may be gone with the server that answers it.
    drop(client.begin("admin", command.as_bytes())?);
    let now = successor(&client, before)?;
    let text = |key: &str| now.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (runs, version) = (text("program"), text("version"));
    if Path::new(&runs) != program {
        let why = format!("it did not serve, and {runs} goes on; the daemon's log says more");
        return Err(Failure::new(Kind::BackendConnection, program.display().to_string(), why));
    }
    let generation = now.get("server_generation");
    let document = json!({ "program": runs, "version": version, "server_generation": generation });
    context.out.done(format_args!("{runs} (version {version}) has taken over"), &document)
}

/// Returns the path of the program as the kernel will name it.
fn program(args: &Upgrade) -> Result<PathBuf, Failure> {
    let found = match &args.program {
        Some(program) => program.canonicalize(),
        None => std::env::current_exe(),
    };
    found.map_err(|err| {
        let named = args.program.as_deref().unwrap_or(Path::new("this program"));
        Failure::new(Kind::Config, named.display().to_string(), err.to_string())
    })
}

/// Waits for a later server than the one before, and returns its status.
fn successor(client: &Client, before: u64) -> Result<Value, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Opened before and read after the change, it is stale.
        if let Ok(text) = client.read_text(".control/status")
            && generation(&text).is_some_and(|now| now > before)
        {
            return Ok(document(&text));
        }
        if Instant::now() >= deadline {
            let why = "the daemon has not made room; its log says why";
            return Err(Failure::new(Kind::BackendConnection, "upgrade", why));
        }
        thread::sleep(LOOK);
    }
}

fn generation(status: &str) -> Option<u64> {
    document(status).get("server_generation").and_then(Value::as_u64)
}

fn document(status: &str) -> Value {
    let pairs: Vec<_> = status.lines().filter_map(|line| line.split_once(": ")).collect();
    status::document(&pairs)
}
