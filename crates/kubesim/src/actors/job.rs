//! The `Job` controller: Pods that come to an end, until enough have.
//!
//! Owns: how many run, what counts, and when the whole has succeeded or failed. Never does: success
//! and failure policies beyond counts, limits by index.
//! Invariant: a Pod counts once. It keeps a finalizer until its uid stands in the status
//! (`uncountedTerminatedPods`), and is added to the counts after the finalizer is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Note, Pass, Plan, Write};
use super::pods;
use super::replicaset::{created, deleted};
use super::runner::Actor;
use super::world::{Key, World};

/// The finalizer that keeps a Pod until it is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The index of a Pod, as label and annotation.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Failures that are borne where the Job doesn't say.
const BACKOFF_LIMIT: i32 = 6;
/// First and longest pause after a Pod that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// The actor.
pub(crate) const ACTOR: Actor = Actor {
    name: "job-controller",
    concerns: |_, change| change.concerns("Job").into_iter().collect(),
    plan,
};

/// A Job at one moment.
struct Seen<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: Vec<&'a Pod>,
    active: Vec<&'a Pod>,
}

fn plan(world: &World, key: &Key, pass: &mut Pass<'_>) -> Plan {
    let mut plan = Plan::default();
    let Some(job) = world.jobs.get(key) else {
        return plan;
    };
    let Some(spec) = &job.spec else { return plan };
    let pods: Vec<&Pod> = world.pods.owned_by(job).collect();
    let active = pods
        .iter()
        .copied()
        .filter(|pod| pods::active(pod))
        .collect();
    let seen = Seen {
        job,
        spec,
        pods,
        active,
    };
    if let Some(end) = finished(job) {
        for pod in &seen.pods {
            release(pod, &mut plan);
        }
        seen.expire(end, pass.now, &mut plan);
        return plan;
    }
    let mut status = job.status.clone().unwrap_or_default();
    let counted = seen.count(&mut status);
    if job.metadata.deletion_timestamp.is_none() {
        seen.manage(&mut status, pass, &mut plan);
    }
    status.active = Some(pods::count(&seen.active, |_| true)).filter(|n| *n > 0);
    status.ready = Some(pods::count(&seen.active, |pod| pods::ready(pod)));
    status.terminating = Some(pods::count(&seen.pods, |pod| {
        pods::terminating(pod) && !pods::finished(pod)
    }));
    let after = Job {
        status: Some(status),
        ..job.clone()
    };
    plan.status(job, after);
    // Only now is it safe to let the Pods go: their uids are in the status.
    for pod in counted {
        release(pod, &mut plan);
    }
    plan
}

/// When the Job ended, if it has.
pub(crate) fn finished(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let end =
        |c: &&JobCondition| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True";
    let end = conditions.iter().find(end)?;
    end.last_transition_time.as_ref().map(|t| t.0)
}

fn tracked(pod: &Pod) -> bool {
    pod.metadata
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == TRACKING)
}

/// Adds the step of taking the Job's finalizer off.
fn release(pod: &Pod, plan: &mut Plan) {
    if tracked(pod) {
        let mut free = pod.clone();
        if let Some(finalizers) = &mut free.metadata.finalizers {
            finalizers.retain(|name| name != TRACKING);
        }
        plan.then(Write::Replace(free.into()));
    }
}

fn index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

fn count_of(number: Option<i32>, uncounted: Option<&Vec<String>>) -> i32 {
    let waiting = uncounted.map_or(0, Vec::len);
    number.unwrap_or_default() + i32::try_from(waiting).unwrap_or(i32::MAX)
}

/// Pods that succeeded and that failed, those included whose finalizer is still there.
fn counts(status: &JobStatus) -> (i32, i32) {
    let waiting = status.uncounted_terminated_pods.as_ref();
    (
        count_of(status.succeeded, waiting.and_then(|w| w.succeeded.as_ref())),
        count_of(status.failed, waiting.and_then(|w| w.failed.as_ref())),
    )
}

impl Seen<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Brings the counts up to date; the Pods whose finalizer may go once that is written.
    fn count(&self, status: &mut JobStatus) -> Vec<&Pod> {
        let waiting = status.uncounted_terminated_pods.take().unwrap_or_default();
        let held: BTreeSet<&str> = self
            .pods
            .iter()
            .filter(|pod| tracked(pod))
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let settle = |uids: Option<Vec<String>>, number: &mut Option<i32>| {
            let uids = uids.unwrap_or_default();
            let (still, free): (Vec<_>, Vec<_>) = uids
                .into_iter()
                .partition(|uid| held.contains(uid.as_str()));
            let sum = number.unwrap_or_default() + i32::try_from(free.len()).unwrap_or_default();
            *number = Some(sum).filter(|n| *n > 0);
            still
        };
        let mut succeeded = settle(waiting.succeeded, &mut status.succeeded);
        let mut failed = settle(waiting.failed, &mut status.failed);
        let mut done = indexes(status.completed_indexes.as_deref());
        let mut counted = Vec::new();
        for pod in self
            .pods
            .iter()
            .copied()
            .filter(|p| tracked(p) && !pods::active(p))
        {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let success = pods::phase(pod) == "Succeeded";
            done.extend(index(pod).filter(|_| success));
            let list = if success { &mut succeeded } else { &mut failed };
            if !list.contains(&uid) {
                list.push(uid);
            }
            counted.push(pod);
        }
        if self.is_indexed() {
            status.completed_indexes = Some(told(&done));
        }
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: Some(succeeded).filter(|uids| !uids.is_empty()),
            failed: Some(failed).filter(|uids| !uids.is_empty()),
        });
        counted
    }

    fn manage(&self, status: &mut JobStatus, pass: &mut Pass<'_>, plan: &mut Plan) {
        if self.spec.suspend == Some(true) {
            status.start_time = None;
            set(
                status,
                condition("Suspended", "JobSuspended", "Job suspended"),
                pass.now,
            );
            return self.delete(self.active.len(), plan);
        }
        if let Some(conditions) = &mut status.conditions {
            conditions.retain(|c| c.type_ != "Suspended");
        }
        status.start_time.get_or_insert(Time(pass.now));
        if let Some(failure) = self.failure(status, pass.now, plan) {
            return self.end(failure, "FailureTarget", "Failed", status, pass.now, plan);
        }
        let (succeeded, failed) = counts(status);
        let live = i32::try_from(self.active.len()).unwrap_or(i32::MAX);
        let done = match self.spec.completions {
            Some(wanted) => succeeded >= wanted,
            None => succeeded > 0 && live == 0,
        };
        if done {
            let reason = (
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            );
            return self.end(
                reason,
                "SuccessCriteriaMet",
                "Complete",
                status,
                pass.now,
                plan,
            );
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => parallelism.min(completions - succeeded),
            None if succeeded > 0 => live.min(parallelism),
            None => parallelism,
        };
        if live > wanted {
            return self.delete(usize::try_from(live - wanted).unwrap_or_default(), plan);
        }
        match self.pause(failed, pass.now) {
            Some(pause) if live < wanted => plan.again_in(pause),
            _ => self.create(wanted - live, status, pass, plan),
        }
    }

    /// Why the Job has failed, if it has.
    fn failure(
        &self,
        status: &JobStatus,
        now: Timestamp,
        plan: &mut Plan,
    ) -> Option<(&'static str, &'static str)> {
        let (_, failed) = counts(status);
        if failed > self.spec.backoff_limit.unwrap_or(BACKOFF_LIMIT) {
            return Some((
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            ));
        }
        let limit = u64::try_from(self.spec.active_deadline_seconds?).unwrap_or_default();
        let since = status.start_time.as_ref()?.0;
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match Duration::from_secs(limit).checked_sub(passed) {
            None | Some(Duration::ZERO) => Some((
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            )),
            Some(left) => {
                plan.again_in(left);
                None
            }
        }
    }

    /// Ends the Job: first what still runs, then the word that it is over.
    fn end(
        &self,
        (reason, message): (&str, &'static str),
        first: &str,
        last: &str,
        status: &mut JobStatus,
        now: Timestamp,
        plan: &mut Plan,
    ) {
        self.delete(self.active.len(), plan);
        set(status, condition(first, reason, message), now);
        let waiting = status.uncounted_terminated_pods.as_ref();
        let waits = waiting.is_some_and(|w| w.succeeded.is_some() || w.failed.is_some());
        if waits || !self.active.is_empty() {
            return;
        }
        set(status, condition(last, reason, message), now);
        if last == "Complete" {
            status.completion_time = Some(Time(now));
            plan.note(Note::normal(
                self.job,
                "Completed",
                "Job completed".to_owned(),
            ));
        } else {
            plan.note(Note::warning(
                self.job,
                "BackoffLimitExceeded",
                message.to_owned(),
            ));
        }
    }

    fn delete(&self, surplus: usize, plan: &mut Plan) {
        // Those that got least far go first.
        let mut ranked = self.active.clone();
        ranked.sort_by_key(|pod| (pods::node(pod).is_some(), pods::ready(pod)));
        for pod in ranked.into_iter().take(surplus) {
            plan.then(Write::Delete(pod.clone().into()));
            plan.note(deleted(self.job, pod));
        }
    }

    /// How long to wait after the last failure.
    fn pause(&self, failed: i32, now: Timestamp) -> Option<Duration> {
        let failures = self.pods.iter().filter(|pod| pods::phase(pod) == "Failed");
        let states = failures
            .flat_map(|pod| {
                pod.status
                    .iter()
                    .flat_map(|s| s.container_statuses.iter().flatten())
            })
            .filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
        let last = states.map(|t| t.0).max()?;
        let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
        let doubled = 1_u32 << (failed - 1).clamp(0, 16);
        let pause = BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1);
        pause.checked_sub(passed).filter(|left| !left.is_zero())
    }

    fn create(&self, missing: i32, status: &JobStatus, pass: &mut Pass<'_>, plan: &mut Plan) {
        let name = self.job.metadata.name.as_deref().unwrap_or_default();
        let mut free = self.free_indexes(status);
        for _ in 0..missing {
            let index = if self.is_indexed() {
                free.pop_first()
            } else {
                None
            };
            if self.is_indexed() && index.is_none() {
                return;
            }
            let prefix = index.map_or_else(|| name.to_owned(), |index| format!("{name}-{index}"));
            let mut pod = pods::generated(self.job, &self.spec.template, &prefix, pass.rng);
            pod.metadata
                .finalizers
                .get_or_insert_default()
                .push(TRACKING.to_owned());
            let uid = self.job.metadata.uid.clone().unwrap_or_default();
            for label in ["batch.kubernetes.io/controller-uid", "controller-uid"] {
                pods::label(&mut pod.metadata, label, &uid);
            }
            for label in ["batch.kubernetes.io/job-name", "job-name"] {
                pods::label(&mut pod.metadata, label, name);
            }
            if let Some(index) = index {
                pods::label(&mut pod.metadata, INDEX, &index.to_string());
                let annotations = pod.metadata.annotations.get_or_insert_with(BTreeMap::new);
                annotations.insert(INDEX.to_owned(), index.to_string());
            }
            let told = created(self.job, &pod);
            plan.then(Write::Create(pod.into()));
            plan.note(told);
        }
    }

    fn free_indexes(&self, status: &JobStatus) -> BTreeSet<i32> {
        let mut free: BTreeSet<i32> = (0..self.spec.completions.unwrap_or_default()).collect();
        for done in indexes(status.completed_indexes.as_deref()) {
            free.remove(&done);
        }
        for taken in self.active.iter().filter_map(|pod| index(pod)) {
            free.remove(&taken);
        }
        free
    }

    /// Deletes a Job that ended, once its time is over.
    fn expire(&self, end: Timestamp, now: Timestamp, plan: &mut Plan) {
        let Some(ttl) = self.spec.ttl_seconds_after_finished else {
            return;
        };
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or_default());
        let passed = Duration::try_from(now.duration_since(end)).unwrap_or_default();
        match ttl.checked_sub(passed) {
            Some(left) if !left.is_zero() => plan.again_in(left),
            _ => plan.then(Write::Delete(self.job.clone().into())),
        }
    }
}

/// `0-2,4` as numbers.
fn indexes(text: Option<&str>) -> BTreeSet<i32> {
    let parts = text.unwrap_or_default().split(',');
    let ranges = parts.filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
    });
    ranges.flatten().collect()
}

/// Numbers as `0-2,4`.
fn told(indexes: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

fn condition(of_type: &str, reason: &str, message: &str) -> JobCondition {
    JobCondition {
        type_: of_type.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..JobCondition::default()
    }
}

fn set(status: &mut JobStatus, mut new: JobCondition, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions
        .iter()
        .any(|c| c.type_ == new.type_ && c.status == new.status)
    {
        return;
    }
    new.last_probe_time = Some(Time(now));
    new.last_transition_time = Some(Time(now));
    conditions.push(new);
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests;
