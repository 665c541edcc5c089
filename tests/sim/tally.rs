//! What came of all runs: what was violated, and what really happened in them.
//!
//! Owns: the figures and what is told of them. Invariant: a hunt that is large enough and in which
//! something never happened is a violation too, for it is blind there.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::fault::{self, Kind};
use crate::judge::Sight;
use crate::run::{Recipe, Report};
use crate::{say, twin};

/// Runs that are tried to make a failing list of faults shorter.
const SHRINK_TRIES: u32 = 60;
/// Violations that are told in full.
const TOLD: usize = 5;
/// How often it is said how far a hunt is.
const PROGRESS: usize = 10;
/// In so many runs of seeds everything must have happened.
const LARGE: usize = 500;

/// What a hunt is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The history of each run, for the process that compares them.
    Histories,
    /// Nothing more once something is found.
    First,
    /// Whatever there is, with its faults as they were given.
    AsGiven,
    /// Whatever there is, each with the fewest faults.
    Least,
}

/// What came of all runs.
pub(crate) struct Tally<'r> {
    recipes: &'r [Recipe],
    wanted: Wanted,
    began: Instant,
    requests: AtomicU64,
    violations: AtomicUsize,
    happened: Mutex<BTreeMap<Kind, u64>>,
    seen: Mutex<BTreeMap<Sight, u64>>,
    histories: Mutex<BTreeMap<usize, u64>>,
}

impl<'r> Tally<'r> {
    pub(crate) fn new(recipes: &'r [Recipe], wanted: Wanted) -> Self {
        Self {
            recipes,
            wanted,
            began: Instant::now(),
            requests: AtomicU64::default(),
            violations: AtomicUsize::default(),
            happened: Mutex::default(),
            seen: Mutex::default(),
            histories: Mutex::default(),
        }
    }

    /// How many runs violate something, and things that never happened.
    pub(crate) fn violations(&self) -> usize {
        self.violations.load(Ordering::SeqCst)
    }

    /// Runs one of them, unless there are no more, or no more is wanted.
    pub(crate) fn take(&self, number: usize) -> ControlFlow<()> {
        let Some(recipe) = self.recipes.get(number) else {
            return ControlFlow::Break(());
        };
        let report = recipe.run();
        if self.wanted == Wanted::Histories {
            say(&twin::line(number, report.hash));
            return ControlFlow::Continue(());
        }
        self.requests.fetch_add(report.requests, Ordering::SeqCst);
        add(&self.happened, &report.happened);
        add(&self.seen, &report.seen);
        if !report.violations.is_empty() {
            self.accuse(|| accuse(recipe, &report, self.wanted == Wanted::Least));
        }
        let done = {
            let mut histories = self.histories.lock().unwrap();
            histories.insert(number, report.hash);
            histories.len()
        };
        self.progress(done);
        match self.wanted {
            Wanted::First if self.violations() > 0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn progress(&self, done: usize) {
        let all = self.recipes.len();
        if all > PROGRESS && done.is_multiple_of(all.div_ceil(PROGRESS)) {
            let (violations, took) = (self.violations(), self.began.elapsed().as_secs());
            say(&format!(
                "{done} of {all} after {took} s, violations {violations}"
            ));
        }
    }

    /// Histories that are not what they were in the other process.
    pub(crate) fn compare(&self, other: &BTreeMap<usize, u64>) {
        for (number, hash) in &*self.histories.lock().unwrap() {
            let (recipe, there) = (&self.recipes[*number], other.get(number));
            if there != Some(hash) {
                let (name, seed) = (recipe.scenario.name, recipe.seed);
                let there = there.map_or("none".to_owned(), |hash| format!("{hash:016x}"));
                let what = format!("{name} seed {seed}: history {hash:016x} here, {there} there");
                self.accuse(|| say(&format!("{what}\n  {}", leave(recipe))));
            }
        }
    }

    fn accuse(&self, tell: impl FnOnce()) {
        if self.violations.fetch_add(1, Ordering::SeqCst) < TOLD {
            tell();
        }
    }

    /// Says what happened; the last line has the sums.
    pub(crate) fn tell(&self) {
        let happened = self.happened.lock().unwrap();
        for kind in Kind::ALL {
            self.count(kind.name(), happened.get(kind));
        }
        let seen = self.seen.lock().unwrap();
        for sight in Sight::ALL {
            self.count(sight, seen.get(sight));
        }
        let runs = self.recipes.len();
        let took = self.began.elapsed().as_secs_f64();
        let requests = self.requests.load(Ordering::SeqCst);
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
        let rate = runs as f64 / took;
        say(&format!(
            "{runs} runs in {took:.0} s, {rate:.1} a second; {requests} requests"
        ));
        let violations = self.violations();
        let faults: u64 = happened.values().sum();
        say(&format!(
            "seeds {} violations {violations} faults {faults}",
            self.of_seeds().count()
        ));
    }

    fn of_seeds(&self) -> impl Iterator<Item = &Recipe> {
        self.recipes.iter().filter(|recipe| !recipe.kept)
    }

    /// How often something happened. What a large hunt never saw it can't have judged.
    fn count(&self, name: impl Display, times: Option<&u64>) {
        let times = times.copied().unwrap_or(0);
        say(&format!("{times:>8} {name}"));
        let draws = self.of_seeds().filter(|recipe| recipe.crash_at.is_none());
        if times == 0 && draws.count() >= LARGE && self.wanted == Wanted::Least {
            self.accuse(|| say(&format!("{name} never happened: it is blind there")));
        }
    }
}

fn add<K: Copy + Ord>(sum: &Mutex<BTreeMap<K, u64>>, counts: &BTreeMap<K, u64>) {
    let mut sum = sum.lock().unwrap();
    for (key, times) in counts {
        *sum.entry(*key).or_default() += times;
    }
}

/// Says what is wrong with a run, and how little is needed for it.
fn accuse(recipe: &Recipe, report: &Report, shrinks: bool) {
    let mut lines = vec![format!("{} seed {}:", recipe.scenario.name, recipe.seed)];
    lines.extend(report.violations.iter().take(TOLD).cloned());
    let mut least = recipe.clone();
    if shrinks {
        least.faults = fault::shrink(recipe.faults.clone(), SHRINK_TRIES, |faults| {
            let part = Recipe {
                faults: faults.to_vec(),
                trace: false,
                ..recipe.clone()
            };
            !part.run().violations.is_empty()
        });
    }
    lines.extend(least.faults.iter().map(|fault| format!("  {fault}")));
    lines.push(leave(&least));
    say(&lines.join("\n  "));
}

/// Writes a recipe where a person finds it, and says how it is run again.
fn leave(recipe: &Recipe) -> String {
    let crash = recipe.crash_at.map_or(0, |(write, _)| write);
    let (name, seed) = (recipe.scenario.name, recipe.seed);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}-{crash}.recipe"));
    match std::fs::write(&file, recipe.to_string()) {
        Ok(()) => format!("make sim ARGS='--recipe {} --trace'", file.display()),
        Err(error) => format!("{recipe}\n{} can't be written: {error}", file.display()),
    }
}
