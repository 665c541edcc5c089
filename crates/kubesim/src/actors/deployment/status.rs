//! The status of a Deployment: what `kubectl get` and `kubectl rollout status` read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Rollout, available, size};
use crate::actors::plan::{Pass, Plan};

/// `progressDeadlineSeconds` that means there is none.
const NO_DEADLINE: i32 = i32::MAX;
/// The same where nobody says.
const DEADLINE: i32 = 600;
const PROGRESSING: &str = "Progressing";
/// Reason of [`PROGRESSING`] once every Pod is of the present template and serves.
const DONE: &str = "NewReplicaSetAvailable";

/// Whether every Pod is of the present template and serves.
pub(super) fn complete(rollout: &Rollout<'_>) -> bool {
    done(rollout, &counts(rollout))
}

fn done(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let wanted = rollout.wanted();
    let counts = [
        status.updated_replicas,
        status.replicas,
        status.available_replicas,
    ];
    counts
        .iter()
        .all(|count| count.unwrap_or_default() == wanted)
}

impl Rollout<'_> {
    /// Adds the step of writing the status, if it changes, and the time of the deadline.
    pub(super) fn status(&self, pass: &Pass<'_>, plan: &mut Plan) {
        let mut status = counts(self);
        let mut conditions = self.known_conditions();
        let now = pass.now;
        set(&mut conditions, self.availability(&status), now);
        if let Some(progress) = self.progress(&status, now) {
            set(&mut conditions, progress, now);
        }
        self.failure(&mut conditions, now);
        if let Some(left) = self.deadline(&conditions, now) {
            plan.again_in(left);
        }
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status.conditions = Some(conditions);
        let after = Deployment {
            status: Some(status),
            ..self.deployment.clone()
        };
        plan.status(self.deployment, after);
    }

    fn known_conditions(&self) -> Vec<DeploymentCondition> {
        let status = self.deployment.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.clone());
        conditions.unwrap_or_default()
    }

    fn availability(&self, status: &DeploymentStatus) -> DeploymentCondition {
        let least = self.wanted() - self.may_miss();
        if status.available_replicas.unwrap_or_default() >= least {
            let message = "Deployment has minimum availability.";
            condition("Available", true, "MinimumReplicasAvailable", message)
        } else {
            let message = "Deployment does not have minimum availability.";
            condition("Available", false, "MinimumReplicasUnavailable", message)
        }
    }

    /// How the roll-out goes on, where there is news.
    fn progress(&self, status: &DeploymentStatus, now: Timestamp) -> Option<DeploymentCondition> {
        let told = |done: bool, reason: &str, rest: &str| {
            let name = self.new.as_ref().and_then(|set| set.metadata.name.clone());
            let what = name.map_or_else(
                || {
                    format!(
                        "Deployment {:?}",
                        self.deployment.metadata.name.as_deref().unwrap_or("")
                    )
                },
                |name| format!("ReplicaSet {name:?}"),
            );
            Some(condition(
                PROGRESSING,
                done,
                reason,
                &format!("{what} {rest}"),
            ))
        };
        let known = self.known_conditions();
        let known = known.iter().find(|c| c.type_ == PROGRESSING);
        let settled = status.replicas == status.updated_replicas
            && known.is_some_and(|c| c.reason.as_deref() == Some(DONE));
        if settled {
            return None;
        }
        if done(self, status) {
            return told(true, DONE, "has successfully progressed.");
        }
        let before = self.deployment.status.clone().unwrap_or_default();
        // What was done is begun anew: from here on the deadline counts.
        if known.is_none_or(|c| c.reason.as_deref() == Some(DONE)) {
            return told(true, "NewReplicaSetCreated", "is progressing.");
        }
        if moved(&before, status) {
            return told(true, "ReplicaSetUpdated", "is progressing.");
        }
        if self.deadline(known.map(std::slice::from_ref)?, now) == Some(Duration::ZERO) {
            return told(
                false,
                "ProgressDeadlineExceeded",
                "has timed out progressing.",
            );
        }
        None
    }

    /// How long the roll-out may still stand still; `None` where it doesn't matter.
    fn deadline(&self, conditions: &[DeploymentCondition], now: Timestamp) -> Option<Duration> {
        let spec = self.deployment.spec.as_ref()?;
        let limit = spec.progress_deadline_seconds.unwrap_or(DEADLINE);
        let known = conditions.iter().find(|c| c.type_ == PROGRESSING)?;
        let halted = spec.paused.unwrap_or_default();
        if limit == NO_DEADLINE
            || halted
            || known.status != "True"
            || known.reason.as_deref() == Some(DONE)
        {
            return None;
        }
        let since = known.last_update_time.as_ref()?.0;
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let limit = Duration::from_secs(u64::try_from(limit).unwrap_or_default());
        Some(limit.saturating_sub(passed))
    }

    /// Carries a set's refusal over to the Deployment.
    fn failure(&self, conditions: &mut Vec<DeploymentCondition>, now: Timestamp) {
        let told = |set: &ReplicaSet| {
            let conditions = set.status.as_ref()?.conditions.as_ref()?;
            conditions
                .iter()
                .find(|c| c.type_ == "ReplicaFailure")
                .cloned()
        };
        match self.all().filter_map(told).last() {
            Some(failed) => {
                let message = failed.message.unwrap_or_default();
                let reason = failed.reason.unwrap_or_default();
                set(
                    conditions,
                    condition("ReplicaFailure", true, &reason, &message),
                    now,
                );
            }
            None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        }
    }
}

/// Whether more Pods are new, gone, ready or available than before.
fn moved(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or_default();
    let old = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(now.updated_replicas) > count(before.updated_replicas)
        || old(now) < old(before)
        || count(now.ready_replicas) > count(before.ready_replicas)
        || count(now.available_replicas) > count(before.available_replicas)
}

fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let some = |count: i32| (count > 0).then_some(count);
    let pods = |set: &ReplicaSet| set.status.as_ref().map_or(0, |s| s.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.ready_replicas);
    let serving: i32 = rollout.all().map(available).sum();
    let asked: i32 = rollout.all().map(size).sum();
    let before = rollout.deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(rollout.all().map(pods).sum()),
        updated_replicas: some(rollout.new.as_ref().map_or(0, pods)),
        ready_replicas: some(rollout.all().filter_map(ready).sum()),
        available_replicas: some(serving),
        unavailable_replicas: some(asked - serving),
        collision_count: before.and_then(|s| s.collision_count),
        ..DeploymentStatus::default()
    }
}

fn condition(of_type: &str, holds: bool, reason: &str, message: &str) -> DeploymentCondition {
    DeploymentCondition {
        type_: of_type.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// Puts a condition there, with its times. News of progress count as an update each time.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition, now: Timestamp) {
    let at = conditions.iter().position(|c| c.type_ == new.type_);
    let known = at.map(|at| conditions.remove(at));
    let same = |a: &DeploymentCondition| a.status == new.status && a.reason == new.reason;
    if new.type_ != PROGRESSING && known.as_ref().is_some_and(same) {
        conditions.extend(known);
        return;
    }
    let stays = known.filter(|known| known.status == new.status);
    let since = stays.and_then(|known| known.last_transition_time);
    new.last_transition_time = since.or(Some(Time(now)));
    new.last_update_time = Some(Time(now));
    conditions.push(new);
}
