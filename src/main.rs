//! The daemon: every role of Orbweaver in one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    orbweaver::cli::main()
}
