//! Simulation: whole clusters in one thread, on virtual time, every choice from one seed.
//!
//! The controllers and agents are the product's own, unchanged; `crates/kubesim` is the rest of the
//! cluster. What is between them, and so can go wrong, is here: `net`, `node`, `nemesis`. A run is a
//! `scenario` and a list of `fault`s; `judge` looks at every revision, `goal` at what is left.
//!
//! ```text
//! make sim SEEDS=50000 SEED_START=1                   a night; the last line says what came of it
//! make sim ARGS='--scenario grow --seed 7 --trace'    one run, with all that happens in it
//! make sim ARGS='--recipe FILE --trace'               the same of what a violation left behind
//! ```
//!
//! A violation leaves a recipe: scenario, seed, and the fewest faults that still show it. Once it is
//! mended, the recipe goes into `found/`, with words about what was wrong; each hunt of all scenarios
//! begins with those.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for tests, which says what it finds"
)]

mod cluster;
mod discipline;
mod fault;
mod goal;
mod judge;
mod lines;
mod nemesis;
mod net;
mod node;
mod original;
mod run;
mod scenario;
mod tally;
mod twin;
mod user;

use std::cell::RefCell;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sha2::{Digest as _, Sha256};

use cluster::Size;
use run::Recipe;
use scenario::Scenario;
use tally::{Tally, Wanted};
use twin::Twin;

/// Fewest writes of a scenario in which a process dies after each.
const WRITES_MIN: usize = 15;
/// Where recipes are kept.
const KEPT: &str = "tests/sim/found";

#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 4)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    seed_start: u64,
    /// Run each in two processes, and compare their histories.
    #[arg(long)]
    twice: bool,
    /// Print the histories, for the process that compares them.
    #[arg(long, hide = true)]
    twin: bool,
    /// Runs at once; as many as the machine can if it is not said.
    #[arg(long)]
    threads: Option<usize>,
    /// Crash after every write of the scenarios that are marked for it, instead.
    #[arg(long)]
    exhaustive: bool,
    /// One scenario, and with `--seed` one run.
    #[arg(long)]
    scenario: Option<String>,
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// The run that a file says, as a violation leaves one.
    #[arg(long, conflicts_with_all = ["scenario", "seed"])]
    recipe: Option<PathBuf>,
    /// Print all that happens.
    #[arg(long)]
    trace: bool,
    /// Stop at the first violation; what mutants are hunted with.
    #[arg(long)]
    first: bool,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
    }));
    let arguments = Arguments::parse();
    match recipes(&arguments).and_then(|recipes| hunt(&arguments, &recipes)) {
        Ok(violations) => ExitCode::from(u8::from(violations > 0)),
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// Carries the recipes out and says what came of it: how many violate something.
fn hunt(arguments: &Arguments, recipes: &[Recipe]) -> Result<usize, String> {
    let mut twin = None;
    if arguments.twice && !arguments.twin {
        twin = Some(Twin::start().map_err(|error| format!("no second process: {error}"))?);
    }
    let tally = Tally::new(recipes, wanted(arguments));
    run_all(arguments, &tally);
    if let Some(twin) = twin {
        let other = twin.histories();
        tally.compare(&other.map_err(|error| format!("the second process: {error}"))?);
    }
    if !arguments.twin {
        tally.tell();
    }
    Ok(tally.violations())
}

fn wanted(arguments: &Arguments) -> Wanted {
    if arguments.twin {
        Wanted::Histories
    } else if arguments.first {
        Wanted::First
    } else if arguments.recipe.is_some() {
        Wanted::AsGiven
    } else {
        Wanted::Least
    }
}

fn run_all(arguments: &Arguments, tally: &Tally) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let processes = if arguments.twice { 2 } else { 1 };
    let threads = arguments.threads.unwrap_or(processors / processes).max(1);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while tally
                    .take(next.fetch_add(1, Ordering::SeqCst))
                    .is_continue()
                {}
            });
        }
    });
}

/// What is to be run.
fn recipes(arguments: &Arguments) -> Result<Vec<Recipe>, String> {
    if let Some(file) = &arguments.recipe {
        let recipe = Recipe {
            trace: arguments.trace,
            ..read(file)?
        };
        return Ok(vec![recipe]);
    }
    let wanted = arguments.scenario.as_deref().map(scenario::named);
    let wanted = wanted.transpose()?;
    if arguments.exhaustive {
        return exhaustive(wanted, arguments.twin);
    }
    let of = |seed| wanted.map_or_else(|| Recipe::of_seed(seed), |one| Recipe::of(one, seed));
    let Some(seed) = arguments.seed else {
        let seeds = arguments.seed_start..arguments.seed_start + arguments.seeds;
        let kept = if wanted.is_none() {
            kept()?
        } else {
            Vec::new()
        };
        return Ok(kept.into_iter().chain(seeds.map(of)).collect());
    };
    Ok(vec![Recipe {
        trace: arguments.trace,
        ..of(seed)
    }])
}

/// What once showed something wrong, in the order of their names: it is run before all else.
fn kept() -> Result<Vec<Recipe>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    let unread = |error| format!("{}: {error}", folder.display());
    let files = std::fs::read_dir(&folder).map_err(unread)?;
    let files = files
        .map(|file| Ok(file?.path()))
        .collect::<io::Result<_>>();
    let mut files: Vec<PathBuf> = files.map_err(unread)?;
    files.sort();
    let recipes = files.iter().map(|file| {
        Ok(Recipe {
            kept: true,
            ..read(file)?
        })
    });
    recipes.collect()
}

fn read(file: &Path) -> Result<Recipe, String> {
    let named = |error: &dyn Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    text.parse().map_err(|error: String| named(&error))
}

/// A crash after each write of the undisturbed runs, its answer heard and lost; and in two larger
/// clusters, whose leader allocates or binds early too, where a scenario has them, one of the two.
///
/// Errors: a scenario makes too few writes to be worth it.
fn exhaustive(wanted: Option<&'static Scenario>, silent: bool) -> Result<Vec<Recipe>, String> {
    let all = scenario::ALL.iter().filter(|scenario| scenario.exhaustive);
    let all = all.filter(|scenario| wanted.is_none_or(|wanted| wanted.name == scenario.name));
    let mut recipes = Vec::new();
    let led = |early: bool| {
        move |size: Size| {
            size.allocator && size.early == early && size.controllers == 2 && size.nodes == 3
        }
    };
    for (scenario, of) in all.flat_map(|scenario| {
        let led = [first(scenario, led(false)), first(scenario, led(true))];
        let clusters = [Some(0)].into_iter().chain(led).flatten();
        clusters.map(move |seed| (scenario, seed))
    }) {
        let plain = Recipe::undisturbed(scenario, of);
        let writes = plain.run().writes;
        if !silent {
            say(&format!(
                "{} in the cluster of seed {of}: {writes} writes",
                scenario.name
            ));
        }
        if writes < WRITES_MIN {
            let name = scenario.name;
            return Err(format!(
                "{name} makes {writes} writes, {WRITES_MIN} are wanted"
            ));
        }
        recipes.push(plain.clone());
        for write in 1..=writes {
            let both = [false, true].into_iter();
            let answers = both.filter(|lost| of == 0 || *lost == write.is_multiple_of(2));
            recipes.extend(answers.map(|lost| Recipe {
                crash_at: Some((write, lost)),
                ..plain.clone()
            }));
        }
    }
    Ok(recipes)
}

/// The first seed but zero whose cluster is so: none where the scenario never has it so.
fn first(scenario: &Scenario, is_so: impl Fn(Size) -> bool) -> Option<u64> {
    (1..1_000).find(|seed| is_so(scenario::size(scenario, *seed)))
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The panics of this thread since the last call.
pub(crate) fn panics() -> Vec<String> {
    PANICS.take()
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// A seed of its own for `name`: a draw more in one stream shifts no other. The same with every
/// compiler, so that a seed that found something finds it again.
pub(crate) fn seed_of(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(name)
        .finalize();
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The stream of `name`.
pub(crate) fn stream(seed: u64, name: &str) -> StdRng {
    StdRng::seed_from_u64(seed_of(seed, name))
}
