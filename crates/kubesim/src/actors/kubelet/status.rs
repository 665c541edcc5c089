//! What a kubelet tells of a Pod: the statuses of its life, pure.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Where a Pod is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// No sandbox yet.
    Creating,
    /// A sandbox with addresses, and containers that start.
    Starting(Vec<IpAddr>),
    /// All containers run and are ready.
    Running {
        /// The Pod's addresses.
        addresses: Vec<IpAddr>,
        /// When the containers started.
        since: Timestamp,
    },
    /// The containers ended and wait to be started again.
    Crashed {
        /// The Pod's addresses.
        addresses: Vec<IpAddr>,
        /// With what.
        exit: Exit,
    },
    /// The containers ended for good.
    Ended {
        /// The Pod's addresses.
        addresses: Vec<IpAddr>,
        /// With what.
        exit: Exit,
    },
}

/// How the containers ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exit {
    /// The exit code.
    pub(super) code: i32,
    /// When they started.
    pub(super) from: Timestamp,
    /// When they ended.
    pub(super) to: Timestamp,
}

impl Exit {
    fn reason(&self) -> &'static str {
        if self.code == 0 { "Completed" } else { "Error" }
    }

    fn terminated(&self) -> ContainerStateTerminated {
        ContainerStateTerminated {
            exit_code: self.code,
            reason: Some(self.reason().to_owned()),
            started_at: Some(Time(self.from)),
            finished_at: Some(Time(self.to)),
            ..ContainerStateTerminated::default()
        }
    }
}

/// The status of `pod` on a node with these addresses, after `restarts` of its containers.
pub(super) fn status(
    pod: &Pod,
    host: &[IpAddr],
    stage: &Stage,
    restarts: i32,
    now: Timestamp,
) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let containers = pod.spec.as_ref().map(|s| s.containers.clone());
    let containers = containers.unwrap_or_default();
    let addresses = match stage {
        Stage::Creating => &[][..],
        Stage::Starting(addresses)
        | Stage::Running { addresses, .. }
        | Stage::Crashed { addresses, .. }
        | Stage::Ended { addresses, .. } => addresses,
    };
    let phase = match stage {
        Stage::Creating | Stage::Starting(_) => "Pending",
        Stage::Running { .. } | Stage::Crashed { .. } => "Running",
        Stage::Ended { exit, .. } if exit.code == 0 => "Succeeded",
        Stage::Ended { .. } => "Failed",
    };
    let told = containers
        .iter()
        .map(|c| container(c, stage, restarts, &before))
        .collect();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(&before, stage, &containers, now)),
        host_ip: host.first().map(ToString::to_string),
        host_ips: Some(
            host.iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        pod_ip: addresses.first().map(ToString::to_string),
        pod_ips: (!addresses.is_empty()).then(|| {
            addresses
                .iter()
                .map(|ip| PodIP { ip: ip.to_string() })
                .collect()
        }),
        start_time: before.start_time.or(Some(Time(now))),
        container_statuses: Some(told),
        qos_class: before.qos_class,
        observed_generation: before.observed_generation,
        ..PodStatus::default()
    }
}

fn container(
    container: &Container,
    stage: &Stage,
    restarts: i32,
    before: &PodStatus,
) -> ContainerStatus {
    let waiting = |reason: &str, message: Option<&str>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: message.map(str::to_owned),
        }),
        ..ContainerState::default()
    };
    let mut known = before.container_statuses.iter().flatten();
    let known = known.find(|c| c.name == container.name);
    let mut last = known.and_then(|c| c.last_state.clone());
    let present = match stage {
        Stage::Creating | Stage::Starting(_) => waiting("ContainerCreating", None),
        Stage::Running { since, .. } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(*since)),
            }),
            ..ContainerState::default()
        },
        Stage::Crashed { exit, .. } => {
            last = Some(ended(exit));
            waiting(
                "CrashLoopBackOff",
                Some("back-off restarting failed container"),
            )
        }
        Stage::Ended { exit, .. } => ended(exit),
    };
    let running = matches!(stage, Stage::Running { .. });
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        ready: running,
        started: Some(running),
        restart_count: restarts,
        state: Some(present),
        last_state: last,
        ..ContainerStatus::default()
    }
}

fn ended(exit: &Exit) -> ContainerState {
    ContainerState {
        terminated: Some(exit.terminated()),
        ..ContainerState::default()
    }
}

fn conditions(
    before: &PodStatus,
    stage: &Stage,
    containers: &[Container],
    now: Timestamp,
) -> Vec<PodCondition> {
    let running = matches!(stage, Stage::Running { .. });
    let sandbox = !matches!(stage, Stage::Creating | Stage::Ended { .. });
    let done = matches!(stage, Stage::Ended { exit, .. } if exit.code == 0);
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let unready = (
        if done {
            "PodCompleted"
        } else {
            "ContainersNotReady"
        },
        (!done).then(|| format!("containers with unready status: [{}]", names.join(" "))),
    );
    let ready = if running { None } else { Some(unready) };
    let known = before.conditions.clone().unwrap_or_default();
    let facts = [
        ("PodReadyToStartContainers", sandbox, None),
        ("Initialized", true, None),
        ("Ready", running, ready.clone()),
        ("ContainersReady", running, ready),
        ("PodScheduled", true, None),
    ];
    let ours = facts.map(|(of_type, holds, why)| {
        let status = if holds { "True" } else { "False" };
        let since = known
            .iter()
            .find(|c| c.type_ == of_type && c.status == status);
        let since = since.and_then(|c| c.last_transition_time.clone());
        let (reason, message) = why.map_or((None, None), |(r, m)| (Some(r.to_owned()), m));
        PodCondition {
            type_: of_type.to_owned(),
            status: status.to_owned(),
            reason,
            message,
            last_transition_time: since.or(Some(Time(now))),
            ..PodCondition::default()
        }
    });
    // Others' conditions (a disruption, say) stay.
    let others = known
        .iter()
        .filter(|c| !ours.iter().any(|o| o.type_ == c.type_));
    ours.iter().chain(others).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: &PodStatus) -> (String, Timestamp) {
        let mut all = status.conditions.iter().flatten();
        let ready = all.find(|c| c.type_ == "Ready").unwrap();
        (
            ready.status.clone(),
            ready.last_transition_time.as_ref().unwrap().0,
        )
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let mut pod = pod();
        let host = ["10.0.0.1".parse().unwrap()];
        pod.status = Some(status(&pod, &host, &Stage::Creating, 0, at(1)));
        let ip: IpAddr = "10.1.0.1".parse().unwrap();
        pod.status = Some(status(&pod, &host, &Stage::Starting(vec![ip]), 0, at(2)));
        assert_eq!(ready(pod.status.as_ref().unwrap()), ("False".into(), at(1)));
        let running = Stage::Running {
            addresses: vec![ip],
            since: at(3),
        };
        let told = status(&pod, &host, &running, 0, at(3));
        assert_eq!(ready(&told), ("True".into(), at(3)));
        assert_eq!(told.pod_ip.as_deref(), Some("10.1.0.1"));
        assert_eq!(told.start_time, Some(Time(at(1))));
    }

    #[test]
    fn a_pod_that_ended_says_how() {
        let exit = Exit {
            code: 3,
            from: at(1),
            to: at(2),
        };
        let told = status(
            &pod(),
            &[],
            &Stage::Ended {
                addresses: vec![],
                exit,
            },
            0,
            at(2),
        );
        assert_eq!(told.phase.as_deref(), Some("Failed"));
        let state = told.container_statuses.unwrap()[0].state.clone().unwrap();
        assert_eq!(state.terminated.unwrap().reason.as_deref(), Some("Error"));
    }
}
