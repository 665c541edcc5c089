//! The CNI IPAM plugin `spiderpool`. Executed by the plugin that has
//! `"ipam": {"type": "spiderpool"}` in its configuration; everything it does
//! is in [`cni::plugin`].

use std::io::{self, Read, Write};
use std::process::ExitCode;

use cni::plugin::{Invocation, System, run};
use cni::socket::SocketTransport;

/// Most bytes read from standard input. A configuration has some hundred.
const STDIN_LIMIT: u64 = 4 << 20;

fn main() -> ExitCode {
    let host = System::new();
    let mut stdin = Vec::new();
    // What cannot be read is missed by the parser, which says so as JSON.
    let _ = io::stdin().lock().take(STDIN_LIMIT).read_to_end(&mut stdin);
    let invocation = Invocation {
        env: std::env::vars_os().collect(),
        stdin,
    };
    let outcome = run(&invocation, &host, &SocketTransport);
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(outcome.stdout.as_bytes())
        .and_then(|()| stdout.flush());
    if outcome.succeeded && written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
