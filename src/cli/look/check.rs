//! `orbweaver ipam check`: what is inconsistent and who mends it, by the core's own judgement; with
//! `--repair` what can be mended without a doubt is.
//!
//! Never does: decide. What is written was shown by the same command without `--yes`.

use std::process::ExitCode;
use std::time::Duration;

use ipam::addr::AddrCount;
use ipam::pool::Pool;
use ipam::repair::{self, Remedy, Repair};
use serde::Serialize;

use super::mend;
use super::residents::{self, Quiet};
use super::sight::Sight;
use crate::api::names;
use crate::cli::connection::{ClusterError, Connection};
use crate::cli::render::{Output, Report, Table, counted};

/// Pause before the second look: what a write is just mending is gone by then.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// The same before a repair: a kubelet tells its Pods' addresses within this time.
const SECOND_LOOK_OF_REPAIR: Duration = Duration::from_secs(10);

/// Exit code where something is inconsistent.
const INCONSISTENT: u8 = 2;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Show the writes that mend what can be mended without a doubt; with --yes, do them.
    #[arg(long)]
    repair: bool,
    /// Do them.
    #[arg(long, requires = "repair")]
    yes: bool,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checked {
    /// True where nothing was found.
    consistent: bool,
    /// Objects looked at.
    subnets: usize,
    pools: usize,
    /// Addresses that no Pod gets, since other hosts use them; nothing is inconsistent in that.
    quarantined: u128,
    /// Pools that are refused, or not looked at by the controller yet: they give nothing.
    not_admitted: Vec<String>,
    /// Whether the controller has admitted some pool, or said of some why not.
    #[serde(skip)]
    looked_at: bool,
    findings: Vec<Finding>,
    /// What a repair writes; only where one was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<String>,
    /// Whether that was done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repaired: bool,
}

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What it is, in one word.
    reason: &'static str,
    /// Which objects, which addresses.
    message: String,
    /// Who mends it: `repair`, `controller` or `person`.
    by: &'static str,
    /// How.
    remedy: String,
}

pub(super) async fn run(
    arguments: &Arguments,
    connection: &Connection,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let Arguments { repair, yes } = *arguments;
    let pause = if repair {
        SECOND_LOOK_OF_REPAIR
    } else {
        SECOND_LOOK
    };
    let (mut checked, mut plan) = twice(connection, pause).await?;
    if repair {
        checked.steps = plan.steps.iter().map(ToString::to_string).collect();
    }
    if yes && !plan.steps.is_empty() {
        output.print(&checked)?;
        mend::carry_out(&connection.writer, &plan.steps).await?;
        (checked, plan) = twice(connection, SECOND_LOOK_OF_REPAIR).await?;
        checked.repaired = true;
        checked.steps = plan.steps.iter().map(ToString::to_string).collect();
    }
    output.print(&checked)?;
    Ok(if checked.consistent {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCONSISTENT)
    })
}

/// Looks, and where something is wrong once more: the lists are not of one moment, so only what is
/// there both times is there, and mended.
async fn twice(
    connection: &Connection,
    pause: Duration,
) -> Result<(Checked, Repair), ClusterError> {
    let (checked, plan, quiet) = look(connection, None).await?;
    if checked.consistent {
        return Ok((checked, plan));
    }
    tokio::time::sleep(pause).await;
    let (checked, plan, _) = look(connection, Some((&plan, &quiet))).await?;
    Ok((checked, plan))
}

/// One look, for what one before it found too, if there was one.
pub(super) async fn look(
    connection: &Connection,
    before: Option<(&Repair, &Quiet)>,
) -> Result<(Checked, Repair, Quiet), ClusterError> {
    let mut sight = Sight::of(connection).await?;
    // Pods after pools: who has an address by then was recorded, or is not.
    let quiet = before.map(|(_, quiet)| quiet);
    let (residents, quiet) = residents::read(connection, quiet).await?;
    sight.world.residents = Some(residents);
    let plan = match before {
        None => repair::plan(&sight.world, &sight.unread),
        Some((first, _)) => repair::plan_again(&sight.world, &sight.unread, &first.findings),
    };
    Ok((check(&sight, &plan), plan, quiet))
}

/// What the objects of one look say. Pure.
fn check(sight: &Sight, plan: &Repair) -> Checked {
    let findings = plan.findings.iter().map(|finding| Finding {
        reason: finding.reason,
        message: finding.message.clone(),
        by: match finding.remedy {
            Remedy::Repair(_) => "repair",
            Remedy::Controller(_) => "controller",
            Remedy::Person(_) => "person",
        },
        remedy: finding.remedy.to_string(),
    });
    Checked::of(sight, findings.collect())
}

impl Checked {
    fn of(sight: &Sight, findings: Vec<Finding>) -> Self {
        let count = |kind| sight.unreadable.iter().filter(|o| o.kind == kind).count();
        Self {
            consistent: findings.is_empty(),
            subnets: sight.world.subnets.len() + count(names::KIND_SUBNET),
            pools: sight.world.pools.len() + count(names::KIND_POOL),
            quarantined: sight
                .world
                .pools
                .iter()
                .map(|p| p.records.quarantined().count().get())
                .sum(),
            not_admitted: sight
                .world
                .pools
                .iter()
                .filter(|pool| !pool.is_admitted() && !pool.terminating)
                .map(|pool| pool.name.to_string())
                .collect(),
            looked_at: sight.world.pools.iter().any(Pool::is_admitted)
                || sight.said.iter().any(|said| said.kind == names::KIND_POOL),
            findings,
            steps: vec![],
            repaired: false,
        }
    }
}

impl Report for Checked {
    fn text(&self, width: Option<usize>) -> String {
        let (subnets, pools) = (counted(self.subnets, "subnet"), counted(self.pools, "pool"));
        let mut objects = format!("{subnets}, {pools}");
        if self.quarantined > 0 {
            let quarantined = AddrCount::new(self.quarantined).in_words();
            objects = format!("{objects}; {quarantined} in quarantine");
        }
        if !self.not_admitted.is_empty() && !self.looked_at {
            objects =
                format!("{objects}; none is admitted yet: the controller has not looked at them");
        } else if !self.not_admitted.is_empty() {
            let names = self.not_admitted.join(", ");
            objects =
                format!("{objects}; not admitted, so without use: {names} (`ipam show` says why)");
        }
        let mended = if self.repaired { "repaired; " } else { "" };
        if self.consistent {
            return format!("{mended}consistent: {objects}\n");
        }
        let mut table = Table::new(&["FINDING", "WHAT, AND WHAT TO DO"]);
        for finding in &self.findings {
            let what = format!("{}. {}", finding.message, finding.remedy);
            table.row([finding.reason.to_owned(), what]);
        }
        let count = counted(self.findings.len(), "finding");
        let mut text = format!("{}\n{mended}{count} in {objects}\n", table.text(width));
        if !self.steps.is_empty() {
            text.push_str(
                "\nwith --repair --yes, each only if the object is still as it was read:\n",
            );
        }
        for step in &self.steps {
            text.push_str(&crate::cli::render::paragraph("- ", step, width));
        }
        text
    }
}

#[cfg(test)]
mod tests;
