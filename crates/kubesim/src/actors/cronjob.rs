//! The `CronJob` controller: a `Job` at each time of a schedule.
//!
//! Owns: which time is due, what happens where the last Job still runs, and which Jobs are kept.
//! Never does: time zones other than UTC, which it says. Where to read next: `cronjob/schedule.rs`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::job;
use super::plan::{Note, Pass, Plan, Write, reference};
use super::pods;
use super::runner::Actor;
use super::world::{Key, World};

mod schedule;

use self::schedule::Schedule;

/// Annotation of a Job: the time it is for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Jobs that are kept, where nobody says: that succeeded, and that failed.
const HISTORY: (i32, i32) = (3, 1);
/// Most missed times that are looked at; a clock that jumped must not keep us for long.
const MISSED_MAX: usize = 100;

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "cronjob-controller",
    concerns: |_, change| change.concerns("CronJob").into_iter().collect(),
    plan,
};

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(cron) = world.cron_jobs.get(key) else {
        return plan;
    };
    let Some(spec) = &cron.spec else { return plan };
    let mut jobs: Vec<&Job> = world.jobs.owned_by(cron).collect();
    jobs.sort_by_key(|job| (job.metadata.creation_timestamp.clone(), Key::of(*job)));
    let (ended, active): (Vec<&Job>, Vec<&Job>) = jobs
        .into_iter()
        .partition(|job| job::finished(job).is_some());
    forget(spec, &ended, &mut plan);
    let mut after = cron.clone();
    let status = after.status.get_or_insert_default();
    let references: Vec<_> = active.iter().map(|job| reference(*job)).collect();
    status.active = Some(references).filter(|all| !all.is_empty());
    let completed = |job: &&Job| job.status.as_ref().and_then(|s| s.completion_time.clone());
    status.last_successful_time = ended.iter().filter_map(completed).max();
    let last = status.last_schedule_time.clone();
    if spec.suspend != Some(true) && cron.metadata.deletion_timestamp.is_none() {
        let since = last.or_else(|| cron.metadata.creation_timestamp.clone());
        let since = since.map_or(pass.now, |t| t.0);
        if let Some(due) = due(cron, spec, since, pass.now, &mut plan) {
            let is_there = |job: &&Job| Key::of(*job).name == name(cron, due);
            let made = ended.iter().chain(&active).any(is_there)
                || start(cron, spec, &active, due, &mut plan);
            if made {
                status.last_schedule_time = Some(Time(due));
            }
        }
    }
    plan.status(cron, after);
    plan
}

/// The latest time of the schedule that has come and is not too long ago.
fn due(
    cron: &CronJob,
    spec: &CronJobSpec,
    since: Timestamp,
    now: Timestamp,
    plan: &mut Plan,
) -> Option<Timestamp> {
    if let Some(zone) = spec
        .time_zone
        .as_deref()
        .filter(|zone| !matches!(*zone, "UTC" | "Etc/UTC"))
    {
        let message = format!("invalid timeZone: {zone:?}: only UTC is known here");
        plan.note(Note::warning(cron, "UnknownTimeZone", message));
        return None;
    }
    let Some(schedule) = Schedule::parse(&spec.schedule) else {
        let message = format!("unparseable schedule: {:?}", spec.schedule);
        plan.note(Note::warning(cron, "UnparseableSchedule", message));
        return None;
    };
    if let Some(next) = schedule.after(now) {
        plan.again_in(Duration::try_from(next.duration_since(now)).unwrap_or_default());
    }
    let deadline = spec.starting_deadline_seconds.map(|limit| {
        now.saturating_sub(jiff::SignedDuration::from_secs(limit))
            .unwrap_or(since)
    });
    let since = deadline.map_or(since, |deadline| deadline.max(since));
    let mut times = std::iter::successors(schedule.after(since), |time| schedule.after(*time));
    let missed: Vec<Timestamp> = times
        .by_ref()
        .take_while(|t| *t <= now)
        .take(MISSED_MAX)
        .collect();
    missed.last().copied()
}

/// Makes the Job for `due`, unless the last one is in its way. Whether it is made.
fn start(
    cron: &CronJob,
    spec: &CronJobSpec,
    active: &[&Job],
    due: Timestamp,
    plan: &mut Plan,
) -> bool {
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency \
                           policy is Forbid";
            plan.note(Note::normal(cron, "JobAlreadyActive", message.to_owned()));
            return false;
        }
        Some("Replace") => {
            for job in active {
                plan.then(Write::Delete((*job).clone().into()));
                let message = format!("Deleted job {}", Key::of(*job).name);
                plan.note(Note::normal(cron, "SuccessfulDelete", message));
            }
        }
        _ => {}
    }
    let name = name(cron, due);
    let ours = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = ours.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), due.to_string());
    let job = Job {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: cron.metadata.namespace.clone(),
            labels: ours.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![pods::controlled_by(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    };
    plan.then(Write::Create(job.into()));
    plan.note(Note::normal(
        cron,
        "SuccessfulCreate",
        format!("Created job {name}"),
    ));
    true
}

/// The name says the minute, so that a time has one Job however often it is tried.
fn name(cron: &CronJob, due: Timestamp) -> String {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", due.as_second() / 60)
}

/// Deletes the oldest Jobs that ended, of each kind.
fn forget(spec: &CronJobSpec, ended: &[&Job], plan: &mut Plan) {
    let succeeded = |job: &&&Job| {
        job.status
            .as_ref()
            .is_some_and(|s| s.completion_time.is_some())
    };
    let (good, bad): (Vec<&Job>, Vec<&Job>) = ended.iter().partition(|job| succeeded(job));
    let limits = [
        (
            good,
            spec.successful_jobs_history_limit.unwrap_or(HISTORY.0),
        ),
        (bad, spec.failed_jobs_history_limit.unwrap_or(HISTORY.1)),
    ];
    for (jobs, limit) in limits {
        let surplus = jobs
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or_default());
        for job in jobs.into_iter().take(surplus) {
            plan.then(Write::Delete(job.clone().into()));
        }
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests {
    use serde_json::{Value, json};

    use super::super::pods::tests::owner;
    use super::super::runner::stream;
    use super::super::world::Object;
    use super::*;

    fn cron(spec: Value) -> CronJob {
        let mut cron: CronJob = owner("tick");
        let mut whole = json!({"schedule": "*/5 * * * *", "jobTemplate": {}});
        for (name, value) in spec.as_object().unwrap() {
            whole[name] = value.clone();
        }
        cron.spec = Some(serde_json::from_value(whole).unwrap());
        cron.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        cron
    }

    fn planned(world: &World, second: i64) -> Plan {
        let mut pass = Pass {
            now: Timestamp::from_second(second).unwrap(),
            rng: &mut stream(1, "cron"),
            refused: None,
        };
        plan(world, &Key::new("ns", "tick"), &mut pass)
    }

    fn made(plan: &Plan) -> Vec<String> {
        let names = plan.writes().into_iter().filter_map(|write| match write {
            Write::Create(Object::Job(job)) => Some(Key::of(job.as_ref()).name),
            _ => None,
        });
        names.collect()
    }

    fn running(cron: &CronJob) -> Job {
        let mut job: Job = owner("tick-0");
        job.metadata.owner_references = Some(vec![pods::controlled_by(cron)]);
        job
    }

    #[test]
    fn a_job_is_made_at_its_time_and_of_missed_ones_only_the_last() {
        let world = World::default().with(cron(json!({})));
        let early = planned(&world, 299);
        assert_eq!(
            (made(&early), early.again),
            (vec![], Some(Duration::from_secs(1)))
        );
        assert_eq!(made(&planned(&world, 300)), ["tick-5"]);
        assert_eq!(made(&planned(&world, 1000)), ["tick-15"]);
    }

    #[test]
    fn a_time_that_is_too_long_ago_is_let_go() {
        let world = World::default().with(cron(json!({"startingDeadlineSeconds": 10})));
        assert_eq!(made(&planned(&world, 305)), ["tick-5"]);
        assert_eq!(made(&planned(&world, 311)), Vec::<String>::new());
    }

    #[test]
    fn what_still_runs_is_awaited_or_replaced() {
        let forbid = cron(json!({"concurrencyPolicy": "Forbid"}));
        let world = World::default().with(running(&forbid)).with(forbid);
        assert_eq!(made(&planned(&world, 300)), Vec::<String>::new());
        let replace = cron(json!({"concurrencyPolicy": "Replace"}));
        let world = World::default().with(running(&replace)).with(replace);
        let plan = planned(&world, 300);
        assert_eq!(made(&plan), ["tick-5"]);
        assert!(
            plan.writes()
                .iter()
                .any(|w| matches!(w, Write::Delete(Object::Job(_))))
        );
    }
}
