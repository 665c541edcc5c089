//! What a scenario is, and how a list of them is run: one after the other on one cluster, watched
//! by the [`Judge`], with logs kept of each that fails.

use std::fmt;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::judge::Judge;
use crate::paths::Paths;
use crate::product::{self, Admission};
use crate::progress::{say, show};
use crate::scenarios::ALL;
use crate::scenarios::rights::{self, Rights};
use crate::{host, logs, wait};

/// Something the product must do, tried on a real cluster.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// How the chart is installed before, and the judge watches; `None` if it is not about the
    /// product.
    pub product: Option<Admission>,
    /// Addresses that two Pods are to have at one time, as those of a machine that is moved live.
    pub shared: &'static [&'static str],
    /// The scenario itself. It leaves nothing behind if it succeeds.
    pub run: fn(&Cluster) -> Result<()>,
}

/// How to run scenarios.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// Fail if a scenario was skipped
    #[arg(long)]
    pub no_skip: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    pub keep: bool,
}

/// Why a scenario could not be tried; the only error that is no failure.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error of a scenario that this machine lacks something for.
pub fn skip(why: impl Into<String>) -> anyhow::Error {
    Skip(why.into()).into()
}

/// Those of `all` with these names, in its order; every one if no name is given.
pub fn chosen<'a>(all: &'a [Scenario], names: &[String]) -> Result<Vec<&'a Scenario>> {
    for name in names {
        let known = all.iter().any(|scenario| scenario.name == name);
        ensure!(known, "no scenario is called {name}: `e2e list` names them");
    }
    let wanted =
        |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(all.iter().filter(wanted).collect())
}

/// Outcomes, counted.
#[derive(Debug, Default)]
struct Tally {
    passed: Vec<&'static str>,
    /// With why, so that the last lines of a long log tell.
    failed: Vec<(&'static str, String)>,
    skipped: Vec<(&'static str, String)>,
}

/// Runs scenarios. Errors: one failed, or one was skipped and that is not allowed.
pub fn run(paths: &Paths, scenarios: &[&Scenario], options: Options) -> Result<()> {
    let mut tally = Tally::default();
    let mut stage = Stage {
        paths,
        cluster: None,
        used: Rights::new(),
    };
    let missing = host::missing_capability();
    for scenario in scenarios {
        wait::ensure_going_on()?;
        wait::see_machine();
        let start = Instant::now();
        say(format_args!(
            "scenario {}: {}",
            scenario.name, scenario.about
        ));
        let outcome = match &missing {
            Some(why) => Err(skip(why.as_str())),
            None => perform(scenario, stage.cluster()?),
        };
        // What was cut short tells nothing about the product.
        wait::ensure_going_on()?;
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                say(format_args!(
                    "scenario {} passed in {took:.1} s",
                    scenario.name
                ));
                tally.passed.push(scenario.name);
            }
            Err(error) if error.is::<Skip>() => {
                say(format_args!(
                    "scenario {} SKIPPED: {error:#}",
                    scenario.name
                ));
                tally.skipped.push((scenario.name, format!("{error:#}")));
            }
            Err(error) => {
                say(format_args!(
                    "scenario {} FAILED after {took:.1} s: {error:#}",
                    scenario.name
                ));
                tally.failed.push((scenario.name, format!("{error:#}")));
                stage.clear(scenario.name, options)?;
            }
        }
    }
    let used = stage.end(options)?;
    show(&tally);
    tally.verdict(options)?;
    // A part of the scenarios makes use of a part of the rights.
    if scenarios.len() == ALL.len() {
        rights::ensure_used(paths, &used)?;
    }
    Ok(())
}

/// The cluster that scenarios share.
struct Stage<'a> {
    paths: &'a Paths,
    cluster: Option<Cluster>,
    /// What the product's accounts made use of on clusters that are gone.
    used: Rights,
}

impl Stage<'_> {
    /// The cluster that is up, or a new one. Without one, no scenario can be tried.
    fn cluster(&mut self) -> Result<&Cluster> {
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => Cluster::open(self.paths)?,
        };
        Ok(self.cluster.insert(cluster))
    }

    /// Keeps the logs of a failure. The next scenario gets a cluster without its remains, unless
    /// the cluster is to be looked at.
    fn clear(&mut self, name: &str, options: Options) -> Result<()> {
        let Some(cluster) = self.cluster.take() else {
            return Ok(());
        };
        let to = self.paths.failure(name);
        logs::keep(&cluster, &to);
        say(format_args!("logs are in {}", to.display()));
        if cluster.is_kept() || options.keep {
            self.cluster = Some(cluster);
            return Ok(());
        }
        self.note_rights(&cluster)?;
        cluster.end()
    }

    /// Returns which rights were used.
    fn end(mut self, options: Options) -> Result<Rights> {
        if let Some(cluster) = self.cluster.take() {
            self.note_rights(&cluster)?;
            if options.keep {
                cluster.keep()?;
            } else {
                cluster.end()?;
            }
        }
        Ok(self.used)
    }

    fn note_rights(&mut self, cluster: &Cluster) -> Result<()> {
        let used = cluster.audit().rights_used(&product::accounts())?;
        for (user, rights) in used {
            self.used.entry(user).or_default().extend(rights);
        }
        Ok(())
    }
}

fn perform(scenario: &Scenario, cluster: &Cluster) -> Result<()> {
    let Some(admission) = scenario.product else {
        return (scenario.run)(cluster); // Nobody to judge.
    };
    product::ensure(cluster, admission)?;
    let judge = Judge::start(cluster)?;
    (scenario.run)(cluster)?;
    judge.end(scenario.shared)
}

impl Tally {
    /// Fails if a scenario failed, or was skipped although that is not allowed.
    fn verdict(&self, options: Options) -> Result<()> {
        ensure!(
            self.failed.is_empty(),
            "{} scenarios failed",
            self.failed.len()
        );
        ensure!(
            self.skipped.is_empty() || !options.no_skip,
            "skipping is not allowed here"
        );
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, which) in [("failed", &self.failed), ("skipped", &self.skipped)] {
            for (name, why) in which {
                writeln!(f, "{what}: {name}: {why}")?;
            }
        }
        let (passed, failed, skipped) = (self.passed.len(), self.failed.len(), self.skipped.len());
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")?;
        write!(f, "ran {}, skipped {skipped}", passed + failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &'static str) -> Scenario {
        Scenario {
            name,
            about: "",
            product: None,
            shared: &[],
            run: |_| Ok(()),
        }
    }

    #[test]
    fn names_choose_scenarios_in_their_own_order() {
        let all = [scenario("a"), scenario("b"), scenario("c")];
        let names = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let chosen = chosen(&all, &names)?;
            anyhow::Ok(
                chosen
                    .iter()
                    .map(|scenario| scenario.name)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(names(&["c", "a"]).unwrap(), ["a", "c"]);
        assert_eq!(names(&[]).unwrap(), ["a", "b", "c"]);
        assert!(names(&["d"]).unwrap_err().to_string().contains("e2e list"));
    }

    #[test]
    fn a_skip_is_told_from_a_failure_and_fails_only_where_forbidden() {
        assert!(skip("no macvlan").is::<Skip>());
        let tally = Tally {
            skipped: vec![("a", "no macvlan".to_owned())],
            ..Tally::default()
        };
        let allowed = Options {
            no_skip: false,
            keep: false,
        };
        assert!(tally.verdict(allowed).is_ok());
        assert!(
            tally
                .verdict(Options {
                    no_skip: true,
                    ..allowed
                })
                .is_err()
        );
        let tally = Tally {
            failed: vec![("a", "two Pods have one address".to_owned())],
            ..Tally::default()
        };
        assert!(tally.verdict(allowed).is_err());
        let said = tally.to_string();
        assert!(
            said.starts_with("failed: a: two Pods have one address\n"),
            "{said}"
        );
    }
}
