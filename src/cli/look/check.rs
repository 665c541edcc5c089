//! `orbweaver ipam check`: what is inconsistent, by the core's own audit.

use std::process::ExitCode;
use std::time::Duration;

use ipam::audit;
use serde::Serialize;

use super::sight::{Sight, Unreadable};
use crate::cli::connection::Connection;
use crate::cli::render::{Output, Report, Table, counted};

/// Pause before the second look: what a write is just mending is gone by then.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Exit code where something is inconsistent.
const INCONSISTENT: u8 = 2;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Checked {
    /// True where nothing was found.
    consistent: bool,
    /// Objects looked at.
    subnets: usize,
    pools: usize,
    findings: Vec<Finding>,
}

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What it is, in one word.
    reason: &'static str,
    /// Which objects, which addresses.
    message: String,
}

pub(super) async fn run(
    arguments: &Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments {} = arguments;
    let mut checked = check(&Sight::of(connection).await?);
    if !checked.consistent {
        // The lists are not of one moment: only what is there both times is there.
        tokio::time::sleep(SECOND_LOOK).await;
        checked = checked.again(check(&Sight::of(connection).await?));
    }
    output.print(&checked)?;
    Ok(if checked.consistent {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCONSISTENT)
    })
}

/// What the objects of one look say. Pure.
fn check(sight: &Sight) -> Checked {
    let broken = audit::audit(&sight.world);
    let violations = broken.iter().map(|violation| Finding {
        reason: violation.reason(),
        message: violation.to_string(),
    });
    let unreadable = sight.unreadable.iter().map(|object| {
        let Unreadable { kind, name, reason } = object;
        Finding {
            reason: "Unreadable",
            message: format!("{kind} {name} can't be read and is left alone: {reason}"),
        }
    });
    Checked::of(sight, violations.chain(unreadable).collect())
}

impl Checked {
    fn of(sight: &Sight, findings: Vec<Finding>) -> Self {
        let count = |kind| sight.unreadable.iter().filter(|o| o.kind == kind).count();
        Self {
            consistent: findings.is_empty(),
            subnets: sight.world.subnets.len() + count(crate::api::names::KIND_SUBNET),
            pools: sight.world.pools.len() + count(crate::api::names::KIND_POOL),
            findings,
        }
    }

    /// What a second look confirms.
    fn again(self, mut second: Self) -> Self {
        second.findings.retain(|f| self.findings.contains(f));
        second.consistent = second.findings.is_empty();
        second
    }
}

impl Report for Checked {
    fn text(&self, width: Option<usize>) -> String {
        let (subnets, pools) = (counted(self.subnets, "subnet"), counted(self.pools, "pool"));
        let objects = format!("{subnets}, {pools}");
        if self.consistent {
            return format!("consistent: {objects}\n");
        }
        let mut table = Table::new(&["FINDING", "WHAT"]);
        for finding in &self.findings {
            table.row([finding.reason.to_owned(), finding.message.clone()]);
        }
        format!(
            "{}\n{} in {objects}\n",
            table.text(width),
            counted(self.findings.len(), "finding")
        )
    }
}

#[cfg(test)]
mod tests;
