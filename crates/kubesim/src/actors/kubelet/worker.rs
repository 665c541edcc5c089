//! The life of one Pod on its node.
//!
//! ```text
//! sandbox ─ ADD ─┬─ fails ── Event, DEL, pause ── a new sandbox
//!                └─ addresses ── run ─┬─ containers end ── start again, or ended ─┐
//!                                     └─ deleted, or gone ────────────────────────┴─ stop
//! stop: containers ── DEL until it succeeds ── status ── delete with grace 0 ── DEL once more
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::time::sleep;

use super::status::{Exit, Stage, status};
use super::{Kubelet, PodId, Sandbox, Told};
use crate::Clock as _;
use crate::actors::plan::{Note, reference};
use crate::actors::pods;
use crate::actors::runner::answered;

/// Annotation: seconds after which the containers end by themselves.
pub(super) const RUN_SECONDS: &str = "kubesim/run-seconds";
/// Annotation: what they end with; 0 where it is absent.
pub(super) const EXIT_CODE: &str = "kubesim/exit-code";
/// What a container that was killed ends with: SIGKILL's number beyond 128.
const KILLED: i32 = 137;
/// Longest run of a Pod that ends and doesn't say when.
const RUN_MAX: Duration = Duration::from_secs(5);
/// Pause after a write that failed.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before containers that ended are started again.
const RESTART_MAX: Duration = Duration::from_secs(300);
/// Grace period of a Pod that doesn't say.
const GRACE: i64 = 30;

/// Why a Pod is not to run any longer.
fn is_over(pod: Option<&Arc<Pod>>) -> bool {
    pod.is_none_or(|pod| !pods::active(pod))
}

/// Waits until the Pod is deleted, or gone, or was ended by somebody.
async fn over(told: &mut Told) {
    // Fails only if the kubelet itself is gone, and then this task is too.
    let _ = told.wait_for(|pod| is_over(pod.as_ref())).await;
}

impl Kubelet {
    /// Leads a Pod through its life; ends when nothing of it is left.
    pub(super) async fn work(self, id: PodId, mut told: Told) {
        let mut worker = Worker {
            kubelet: self,
            id,
            restarts: 0,
        };
        if !is_over(told.borrow().as_ref())
            && let Some(addresses) = worker.sandbox(&mut told).await
        {
            let ended = worker.run(&addresses, &mut told).await;
            worker.stop(&addresses, ended, &mut told).await;
        } else {
            let known = worker.kubelet.machine.get(&worker.id.uid);
            let addresses = known.map(|s| s.addresses).unwrap_or_default();
            worker.stop(&addresses, None, &mut told).await;
        }
        worker.collect().await;
    }
}

struct Worker {
    kubelet: Kubelet,
    id: PodId,
    restarts: i32,
}

impl Worker {
    fn now(&self) -> Timestamp {
        self.kubelet.clock.now()
    }

    /// A sandbox with its addresses; `None` when the Pod is over before it has one.
    async fn sandbox(&mut self, told: &mut Told) -> Option<Vec<IpAddr>> {
        let pod = told.borrow().clone()?;
        if pod
            .spec
            .as_ref()
            .is_some_and(|s| s.host_network == Some(true))
        {
            return Some(self.kubelet.node.addresses.clone());
        }
        if let Some(known) = self.kubelet.machine.get(&self.id.uid) {
            if !known.addresses.is_empty() {
                return Some(known.addresses);
            }
            // Begun by a kubelet that crashed: nobody heard what became of it.
            self.tear_down(&known.id).await;
        }
        self.tell(told, &Stage::Creating).await;
        loop {
            let mut sandbox = Sandbox {
                pod: self.id.clone(),
                id: self.kubelet.sandbox_id(),
                addresses: Vec::new(),
            };
            self.kubelet.machine.keep(sandbox.clone());
            let network = self.kubelet.network.clone();
            let outcome = tokio::select! {
                biased;
                () = over(told) => return None,
                outcome = network.add(&self.id, &sandbox.id) => outcome,
            };
            match outcome {
                Ok(addresses) => {
                    sandbox.addresses.clone_from(&addresses);
                    self.kubelet.machine.keep(sandbox);
                    return Some(addresses);
                }
                Err(error) => {
                    let message = format!(
                        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to \
                         setup network for sandbox {:?}: {error}",
                        sandbox.id
                    );
                    self.warn(told, "FailedCreatePodSandBox", message).await;
                    self.tear_down(&sandbox.id).await;
                }
            }
            let retry = self.kubelet.node.timings.retry;
            tokio::select! {
                biased;
                () = over(told) => return None,
                () = sleep(retry + self.kubelet.chance(retry / 2)) => {}
            }
        }
    }

    /// One DEL, as the runtime does when it gives a sandbox up. Its failure matters to nobody: what
    /// is left is collected later.
    async fn tear_down(&self, sandbox: &str) {
        let network = self.kubelet.network.clone();
        if let Err(error) = network.del(&self.id, sandbox).await {
            tracing::debug!(pod = %self.id, sandbox, error, "sandbox not torn down");
        }
    }

    /// Runs the containers until they end for good or the Pod is over; then `None`.
    async fn run(&mut self, addresses: &[IpAddr], told: &mut Told) -> Option<Exit> {
        let addresses = addresses.to_vec();
        self.tell(told, &Stage::Starting(addresses.clone())).await;
        loop {
            let pod = told.borrow().clone()?;
            let life = life(&pod, || self.kubelet.chance(RUN_MAX));
            tokio::select! {
                biased;
                () = over(told) => return None,
                () = sleep(self.kubelet.node.timings.start) => {}
            }
            let since = self.now();
            self.tell_start(&pod).await;
            let running = Stage::Running {
                addresses: addresses.clone(),
                since,
            };
            self.tell(told, &running).await;
            let ends = async {
                match life.length {
                    Some(length) => sleep(length).await,
                    None => std::future::pending().await,
                }
            };
            let doubts = told.clone();
            tokio::select! {
                biased;
                () = over(told) => return None,
                () = ends => {}
                () = self.insist(doubts, &running) => {}
            }
            let exit = Exit {
                code: life.code,
                from: since,
                to: self.now(),
            };
            if !life.restarts {
                return Some(exit);
            }
            let crashed = Stage::Crashed {
                addresses: addresses.clone(),
                exit,
            };
            self.tell(told, &crashed).await;
            let factor = 1_u32 << self.restarts.clamp(0, 16);
            self.restarts += 1;
            let pause = self
                .kubelet
                .node
                .timings
                .restart
                .saturating_mul(factor)
                .min(RESTART_MAX);
            tokio::select! {
                biased;
                () = over(told) => return None,
                () = sleep(pause) => {}
            }
        }
    }

    /// Ends what runs, gives the addresses back, says so, and lets the object go.
    async fn stop(&mut self, addresses: &[IpAddr], ended: Option<Exit>, told: &mut Told) {
        let from = self.now();
        if ended.is_none() && !addresses.is_empty() {
            self.kill(told).await;
        }
        self.give_back(told).await;
        let exit = ended.unwrap_or(Exit {
            code: KILLED,
            from,
            to: self.now(),
        });
        let already = told
            .borrow()
            .as_ref()
            .is_some_and(|pod| pods::finished(pod));
        if !already {
            let addresses = addresses.to_vec();
            self.tell(told, &Stage::Ended { addresses, exit }).await;
        }
        let goes = |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pods::terminating(pod));
        // Fails only with the kubelet.
        let _ = told.wait_for(goes).await;
        self.let_go(told).await;
    }

    async fn kill(&self, told: &Told) {
        let pod = told.borrow().clone();
        let grace = pod.as_ref().map_or(GRACE, |pod| {
            let asked = pod.metadata.deletion_grace_period_seconds;
            let spec = pod
                .spec
                .as_ref()
                .and_then(|s| s.termination_grace_period_seconds);
            asked.or(spec).unwrap_or(GRACE)
        });
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
        if let Some(pod) = &pod {
            for container in containers(pod) {
                let message = format!("Stopping container {container}");
                self.note(pod, Some(&container), "Killing", message).await;
            }
        }
        sleep(self.kubelet.node.timings.stop.min(grace)).await;
    }

    /// DEL until it succeeds.
    async fn give_back(&self, told: &Told) {
        let Some(sandbox) = self.kubelet.machine.get(&self.id.uid) else {
            return;
        };
        let network = self.kubelet.network.clone();
        while let Err(error) = network.del(&self.id, &sandbox.id).await {
            let message = format!(
                "error killing pod: failed to \"KillPodSandbox\" for {:?} with \
                 KillPodSandboxError: \"rpc error: code = Unknown desc = failed to destroy \
                 network for sandbox \\\"{}\\\": {error}\"",
                self.id.uid, sandbox.id
            );
            self.warn(told, "FailedKillPod", message).await;
            let retry = self.kubelet.node.timings.retry;
            sleep(retry + self.kubelet.chance(retry / 2)).await;
        }
    }

    /// The last delete; afterwards the object is gone, but for others' finalizers.
    async fn let_go(&self, told: &mut Told) {
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), &self.id.namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.id.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        while told.borrow().is_some() {
            match api.delete(&self.id.name, &params).await {
                Ok(_) => return,
                Err(error) if answered(&error, 404) || answered(&error, 409) => return,
                Err(error) => {
                    tracing::debug!(pod = %self.id, %error, "not deleted; trying again");
                    sleep(WRITE_PAUSE).await;
                }
            }
        }
    }

    /// Tears the sandbox down once more some time later, as a runtime does when it removes it.
    async fn collect(&self) {
        let Some(sandbox) = self.kubelet.machine.get(&self.id.uid) else {
            return;
        };
        let within = self.kubelet.node.timings.collect;
        sleep(self.kubelet.chance(within)).await;
        self.tear_down(&sandbox.id).await;
        self.kubelet.machine.forget(&self.id.uid);
    }

    /// Writes the Pod's status, until it is written or there is no such Pod any more.
    async fn tell(&self, told: &Told, stage: &Stage) {
        let api: Api<Pod> = Api::namespaced(self.kubelet.client.clone(), &self.id.namespace);
        loop {
            let Some(pod) = told.borrow().clone() else {
                return;
            };
            let host = &self.kubelet.node.addresses;
            let status = status(&pod, host, stage, self.restarts, self.now());
            let patch = Patch::Merge(json!({
                "metadata": { "uid": self.id.uid },
                "status": status,
            }));
            let params = PatchParams::default();
            match api.patch_status(&self.id.name, &params, &patch).await {
                Ok(_) => return,
                Err(error) if answered(&error, 404) || answered(&error, 409) => return,
                Err(error) => {
                    tracing::debug!(pod = %self.id, %error, "status not told; trying again");
                    sleep(WRITE_PAUSE).await;
                }
            }
        }
    }

    /// Says again that the Pod runs whenever somebody else says that it is not ready, as the node
    /// lifecycle does while the node is silent. Ends with the kubelet.
    async fn insist(&self, mut told: Told, running: &Stage) {
        while told.changed().await.is_ok() {
            let is_doubted = |pod: &Arc<Pod>| pods::phase(pod) == "Running" && !pods::ready(pod);
            if told.borrow_and_update().as_ref().is_some_and(is_doubted) {
                self.tell(&told, running).await;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn tell_start(&self, pod: &Pod) {
        let spec = pod.spec.clone().unwrap_or_default();
        for container in spec.containers {
            let (name, image) = (container.name, container.image.unwrap_or_default());
            for (reason, message) in [
                (
                    "Pulled",
                    format!("Container image {image:?} already present on machine"),
                ),
                ("Created", format!("Created container: {name}")),
                ("Started", format!("Started container {name}")),
            ] {
                self.note(pod, Some(&name), reason, message).await;
            }
        }
    }

    async fn note(
        &self,
        pod: &Pod,
        container: Option<&str>,
        reason: &'static str,
        message: String,
    ) {
        let mut about = reference(pod);
        about.field_path = container.map(|name| format!("spec.containers{{{name}}}"));
        let note = Note {
            about,
            warning: false,
            reason,
            message,
        };
        self.kubelet.events.tell(note, self.now()).await;
    }

    async fn warn(&self, told: &Told, reason: &'static str, message: String) {
        let pod = told.borrow().clone();
        if let Some(pod) = pod {
            let note = Note::warning(pod.as_ref(), reason, message);
            self.kubelet.events.tell(note, self.now()).await;
        }
    }
}

fn containers(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.iter().flat_map(|s: &PodSpec| s.containers.iter());
    spec.map(|c| c.name.clone()).collect()
}

/// How long the containers of a Pod live, and what comes then.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    /// For ever, where there is none.
    length: Option<Duration>,
    code: i32,
    restarts: bool,
}

fn life(pod: &Pod, chance: impl FnOnce() -> Duration) -> Life {
    let annotation = |name: &str| {
        pod.metadata
            .annotations
            .as_ref()?
            .get(name)?
            .parse::<u32>()
            .ok()
    };
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    let code = annotation(EXIT_CODE).and_then(|code| i32::try_from(code).ok());
    let code = code.unwrap_or_default();
    let always = policy.is_none_or(|policy| policy == "Always");
    let given = annotation(RUN_SECONDS).map(|s| Duration::from_secs(u64::from(s)));
    Life {
        length: if always {
            given
        } else {
            given.or_else(|| Some(chance()))
        },
        code,
        restarts: always || (policy == Some("OnFailure") && code != 0),
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "literals read best in place")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(policy: &str, annotations: Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "p", "annotations": annotations},
            "spec": {"containers": [], "restartPolicy": policy},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn lives(pod: &Pod) -> (Option<u64>, i32, bool) {
        let life = life(pod, || Duration::from_secs(3));
        (life.length.map(|l| l.as_secs()), life.code, life.restarts)
    }

    #[test]
    fn pods_live_as_their_policy_and_annotations_say() {
        assert_eq!(lives(&pod("Always", json!({}))), (None, 0, true));
        assert_eq!(lives(&pod("Never", json!({}))), (Some(3), 0, false));
        let told = json!({RUN_SECONDS: "9", EXIT_CODE: "2"});
        assert_eq!(lives(&pod("Never", told.clone())), (Some(9), 2, false));
        assert_eq!(lives(&pod("OnFailure", told.clone())), (Some(9), 2, true));
        assert_eq!(lives(&pod("Always", told)), (Some(9), 2, true));
    }
}
