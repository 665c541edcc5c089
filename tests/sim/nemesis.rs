//! The nemesis: carries out a list of faults.
//!
//! Owns: what each kind does to the cluster, its healing, and the count of those that met something
//! at once. Never does: choose anything.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use orbweaver::api::SpiderIPPool;
use orbweaver::api::names::{self, label};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::fault::{Fault, Kind};
use crate::user::{PERSON, User};

/// Pause between two writes of a storm.
const STORM_PAUSE: Duration = Duration::from_millis(15);
/// A process is down for at least this long.
const DOWN: Duration = Duration::from_millis(200);

/// Carries out `faults`, and ends once the last is over.
pub(crate) async fn run(user: &User, faults: &[Fault]) {
    let start = Instant::now();
    let all = faults.iter().map(|fault| async move {
        sleep_until(start + Duration::from_millis(fault.at)).await;
        user.cluster().judge.note(&format!("fault {fault}"));
        strike(user, fault).await;
    });
    futures::future::join_all(all).await;
}

/// Ends whatever lasts, and starts whoever is down.
pub(crate) fn heal(user: &User) {
    let cluster = user.cluster();
    cluster.judge.note("healed");
    cluster.net.heal();
    cluster.lines.heal();
    cluster.all_lead(false);
    for node in cluster.node_names() {
        if let Some(plugin) = cluster.plugin(&node) {
            plugin.heal();
        }
    }
    for process in cluster.all() {
        cluster.begin(&process);
    }
}

pub(crate) async fn strike(user: &User, fault: &Fault) {
    let (cluster, lasting, target) = (user.cluster(), fault.lasting(), fault.target.as_str());
    let number: usize = target.parse().unwrap_or_default();
    match fault.kind {
        Kind::Crash => bounce(user, &[target.to_owned()], lasting).await,
        Kind::CrashWiped => {
            cluster.kill(target);
            if let Some(plugin) = target
                .strip_prefix("agent-")
                .and_then(|n| cluster.plugin(n))
            {
                plugin.disk.wipe();
            }
            bounce(user, &[target.to_owned()], lasting).await;
        }
        Kind::KubeletCrash => bounce(user, &[format!("kubelet-{target}")], lasting).await,
        Kind::PowerOff => {
            cluster.power_off(target);
            let processes = [format!("kubelet-{target}"), format!("agent-{target}")];
            bounce(user, &processes, lasting).await;
        }
        Kind::NodeCut | Kind::Outage | Kind::WebhookDown => {
            for process in all_met(user, fault) {
                cluster.net.inflict(&process, fault.kind, lasting);
            }
            return; // counted where it meets a request
        }
        Kind::Compact => {
            cluster.server.compact(cluster.server.revision());
            for process in cluster.all() {
                cluster.net.inflict(&process, Kind::WatchClose, lasting);
            }
        }
        Kind::Storm => storm(user, lasting).await,
        Kind::StealLease if !steal(user).await => return,
        Kind::StealLease => {}
        Kind::TwoLeaders => {
            cluster.all_lead(true);
            sleep(lasting).await;
            cluster.all_lead(false);
            if cluster.size.controllers < 2 {
                return;
            }
        }
        Kind::ClockStep => {
            let off = SignedDuration::try_from(lasting).unwrap_or_default();
            let off = if number.is_multiple_of(2) { off } else { -off };
            let machines = cluster.product();
            if let Some(at) = number.checked_rem(machines.len()) {
                cluster.set_clock(&machines[at], off);
            }
        }
        Kind::AddReplyLost
        | Kind::AddGivenUp
        | Kind::DelReplyLost
        | Kind::DelLate
        | Kind::LinkStays => {
            if let Some(plugin) = cluster.plugin(target) {
                plugin.arm(fault.kind, lasting);
            }
            return; // counted where it meets a call
        }
        Kind::LineCut | Kind::LineSilent | Kind::LineReplyLost => {
            cluster.lines.inflict(target, fault.kind, lasting);
            return; // counted where it meets a request
        }
        Kind::ForceDelete | Kind::DeletePod => {
            let by_force = fault.kind == Kind::ForceDelete;
            if user.delete_pod(number, by_force).await.is_none() {
                return;
            }
        }
        Kind::ShrinkPool | Kind::DeletePool => {
            let Some(pool) = auto_pool(user, number).await else {
                return;
            };
            let name = pool.name_any();
            match pool.spec.ips.as_deref() {
                _ if fault.kind == Kind::DeletePool => user.delete_pool(&name).await,
                Some([first, ..]) => {
                    let first = first.split('-').next().unwrap_or_default();
                    user.resize_pool(&name, &[first]).await;
                }
                Some([]) | None => return,
            }
        }
        kind => {
            cluster.net.inflict(target, kind, lasting);
            return; // counted where it meets a request
        }
    }
    cluster.judge.happened(fault.kind);
}

/// Whom a fault meets that meets several.
fn all_met(user: &User, fault: &Fault) -> Vec<String> {
    let cluster = user.cluster();
    match fault.kind {
        Kind::NodeCut => ["kubelet", "agent"]
            .map(|process| format!("{process}-{}", fault.target))
            .into(),
        Kind::WebhookDown => [cluster.product(), vec![PERSON.to_owned()]].concat(),
        _ => cluster.all(),
    }
}

async fn bounce(user: &User, processes: &[String], lasting: Duration) {
    for process in processes {
        user.cluster().kill(process);
    }
    sleep(DOWN + lasting).await;
    for process in processes {
        user.cluster().begin(process);
    }
}

async fn auto_pool(user: &User, number: usize) -> Option<SpiderIPPool> {
    let mut pools = user.list_pools().await;
    pools.retain(|pool| pool.labels().contains_key(label::OWNER_NAME));
    let at = number.checked_rem(pools.len())?;
    Some(pools.swap_remove(at))
}

/// Somebody who writes every pool at the version just read, again and again.
async fn storm(user: &User, lasting: Duration) {
    let api = user.pools();
    let end = Instant::now() + lasting;
    let mut count = 0;
    while Instant::now() < end {
        for mut pool in user.list_pools().await {
            if user.cluster().net.turns_away(PERSON) {
                break;
            }
            count += 1;
            let mark = format!("storm-{count}");
            pool.annotations_mut()
                .insert("example.org/storm".to_owned(), mark);
            // Losing is as good as winning.
            let _ = api
                .replace(&pool.name_any(), &PostParams::default(), &pool)
                .await;
        }
        sleep(STORM_PAUSE).await;
    }
}

/// False where there is no Lease yet: nothing to steal.
async fn steal(user: &User) -> bool {
    let api: Api<Lease> = Api::namespaced(user.cluster().client("thief"), "kube-system");
    let patch = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 5}});
    let params = PatchParams::default();
    let stolen = api
        .patch(names::CONTROLLER_LEASE, &params, &Patch::Merge(patch))
        .await;
    stolen.is_ok()
}
