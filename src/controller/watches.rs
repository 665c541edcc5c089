//! What is watched, and what each change wakes.
//!
//! Owns: one watch a kind that is always there, and the way from a change to the index. Never does:
//! plan, or write. Kinds that an operator names are watched by `others.rs`.
//! Invariant: an object that can't be read is never taken for one that is gone.

use std::fmt::Debug;
use std::sync::Arc;

use ipam::name::Uid;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube_runtime::watcher;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::workload::{self, Seen, Workload};
use super::{Context, index};
use crate::api::{SpiderIPPool, SpiderReservedIP, SpiderSubnet};
use crate::kube_io::cache::{Cache, Change, Held};
use crate::kube_io::tasks::start;

/// Ends when the first list of a watch is complete.
pub(super) type Synced = futures::future::BoxFuture<'static, ()>;

/// Starts every watch; the futures end when the lists are complete.
pub(super) fn watch_all(ctx: &Arc<Context>, tasks: &mut JoinSet<()>) -> Vec<Synced> {
    let subnets = {
        let ctx = ctx.clone();
        move |change: &Change<SpiderSubnet>| {
            ctx.wake(ctx.index.subnet(&change.key.name, change.new.object()));
            ctx.strays.notify_one();
        }
    };
    let pools = {
        let ctx = ctx.clone();
        move |change: &Change<SpiderIPPool>| {
            ctx.kept.pool(change);
            if let Some(early) = &ctx.early {
                early.pool(&ctx.index, change);
            }
            ctx.wake(match &change.new {
                Held::Unreadable(pool) => ctx.index.unreadable_pool(pool),
                Held::Object(_) | Held::Nothing => {
                    ctx.index.pool(&change.key.name, change.new.object())
                }
            });
            ctx.strays.notify_one();
        }
    };
    let reserved = {
        let ctx = ctx.clone();
        move |change: &Change<SpiderReservedIP>| {
            // One that can't be read reserves what it did: nobody asked for less.
            if let Held::Unreadable(_) = change.new {
                return;
            }
            let (dirty, errors) = ctx.index.reserved(&change.key.name, change.new.object());
            for error in errors {
                tracing::error!(name = %change.key, error = %error, "reservation can't be read");
            }
            ctx.wake(dirty);
        }
    };
    let pods = {
        let ctx = ctx.clone();
        move |change: &Change<Pod>| {
            let (old, new) = (change.old.uid(), change.new.uid());
            // The name has another Pod now, or none: one that can't be read is there as it was.
            if let Some(gone) = old.filter(|_| old != new) {
                ctx.wake(ctx.index.pod(&Uid::from(gone), None));
            }
            if let (Some(uid), Some(pod)) = (new, change.new.object()) {
                ctx.wake(ctx.index.pod(&Uid::from(uid), Some(pod)));
                if let Some(early) = &ctx.early {
                    early.pod(pod);
                }
            }
        }
    };
    let sets = {
        let ctx = ctx.clone();
        move |change: &Change<StatefulSet>| ctx.kept.set(change)
    };
    ctx.kept.sets.on_change(sets);
    vec![
        watch_kind(ctx, tasks, ctx.writer.subnets.clone(), subnets, whole),
        watch_kind(ctx, tasks, ctx.writer.pools.clone(), pools, whole),
        watch_kind(ctx, tasks, Cache::new(), reserved, whole),
        watch_kind(ctx, tasks, ctx.pods.clone(), pods, index::trim_pod),
        watch_workloads::<Deployment>(ctx, tasks, Cache::new()),
        watch_workloads(ctx, tasks, ctx.sight.replica_sets.clone()),
        watch_workloads(ctx, tasks, ctx.kept.sets.clone()),
        watch_workloads::<DaemonSet>(ctx, tasks, Cache::new()),
        watch_workloads(ctx, tasks, ctx.sight.jobs.clone()),
        watch_workloads::<CronJob>(ctx, tasks, Cache::new()),
    ]
}

/// Keeps an object as it is.
fn whole<K>(_: &mut K) {}

fn watch_kind<K>(
    ctx: &Arc<Context>,
    tasks: &mut JoinSet<()>,
    cache: Cache<K>,
    on_change: impl Fn(&Change<K>) + Send + Sync + 'static,
    trim: fn(&mut K),
) -> Synced
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    cache.on_change(on_change);
    let api: Api<DeserializeGuard<K>> = Api::all(ctx.clients.read.clone());
    let watch = cache.clone().run(api, watcher::Config::default(), trim);
    start(tasks, watch);
    Box::pin(async move { cache.synced().await })
}

fn watch_workloads<W>(ctx: &Arc<Context>, tasks: &mut JoinSet<()>, cache: Cache<W>) -> Synced
where
    W: Workload + Resource<DynamicType = ()>,
    W: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let on_change = {
        let ctx = ctx.clone();
        move |change: &Change<W>| {
            workload(&ctx, change, |object| {
                workload::seen(object, ctx.default_rule)
            });
        }
    };
    watch_kind(ctx, tasks, cache, on_change, workload::trim)
}

/// A workload appeared, changed or went; `seen` reads it.
pub(super) fn workload<W: Resource>(
    ctx: &Context,
    change: &Change<W>,
    seen: impl FnOnce(&W) -> Seen,
) {
    let (old, new) = (change.old.uid(), change.new.uid());
    if let Some(gone) = old.filter(|_| old != new) {
        ctx.wake(ctx.index.workload(&Uid::from(gone), None));
    }
    match &change.new {
        Held::Nothing => {}
        Held::Unreadable(_) => {
            let uid = Uid::from(new.unwrap_or_default());
            ctx.wake(ctx.index.unreadable_workload(&uid));
        }
        Held::Object(workload) => took(ctx, seen(workload)),
    }
}

/// A workload is as it is `seen`.
pub(super) fn took(ctx: &Context, seen: Seen) {
    let uid = seen.id.uid.clone();
    ctx.complain(&seen);
    let shown_to = ctx.index.shown_to(&seen);
    ctx.wake(ctx.index.workload(&uid, Some(seen)));
    if let Some(above) = shown_to {
        ctx.complain(&above);
    }
}
