//! `orbweaver ipam …`: what there is in a cluster, whose it is, and whether it is consistent.
//!
//! Owns: the sub-commands. Never does: judge: figures are the core's `census`, refusals its `select`
//! through the agent's own search, findings its `audit` and `repair`, what may be released its
//! `collect`; or write, but for what a person was shown and says yes to (`check --repair --yes`,
//! `give-back --yes`).

mod check;
mod explain;
mod gc;
mod give_back;
mod mend;
#[cfg(test)]
#[cfg(feature = "demo")]
mod on_a_server;
mod residents;
mod show;
mod sight;
#[cfg(test)]
mod testing;
mod who;

use std::process::ExitCode;

use clap::Subcommand;

use super::connection::Target;
use super::render::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    question: Question,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// How much is free and used: of all subnets and pools, or of what is named.
    Show(show::Arguments),
    /// Whose address is this?
    Who(who::Arguments),
    /// Why may a Pod use its pools, or why not?
    Explain(explain::Arguments),
    /// What is inconsistent, and who mends it? Exits with 2 where something is.
    Check(check::Arguments),
    /// Leave the objects as Spiderpool's controller accepts them; shows what, and writes with --yes.
    GiveBack(give_back::Arguments),
    /// Which addresses have no living Pod, and what becomes of them?
    Gc(gc::Arguments),
}

/// Answers the question; the exit code is 0, or 2 where the answer is one that a script should act
/// on.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments {
        question,
        target,
        output,
    } = arguments;
    super::runtime()?.block_on(async {
        let connection = target.open().await?;
        match question {
            Question::Show(arguments) => show::run(arguments, &connection, output).await,
            Question::Who(arguments) => who::run(&arguments, &connection, output).await,
            Question::Explain(arguments) => explain::run(arguments, &connection, output).await,
            Question::Check(arguments) => check::run(&arguments, &connection, output).await,
            Question::GiveBack(arguments) => give_back::run(&arguments, &connection, output).await,
            Question::Gc(arguments) => gc::run(&arguments, &connection, output).await,
        }
    })
}
