//! `orbweaver controller`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use chrono::TimeDelta;
use clap::ArgAction;
use ipam::annotation::SizeRule;
use ipam::collect::{LostNodes, Policy};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admission::{self, AdmissionArguments, Serving, TlsArguments};
use super::{Common, MetricArguments, connection};
use crate::allocator::announce::{self, Identity};
use crate::api::names::{self, env};
use crate::config::Config;
use crate::controller::index::Features;
use crate::controller::{self, Endpoint, Listener, Options, Signals, gc};
use crate::kube_io::lease::{Announced, Durations, LeaderElector};
use crate::ports::{self, Health};

/// Where metrics are served unless a port is given.
const METRIC_PORT: u16 = 5721;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    metrics: MetricArguments,
    #[command(flatten)]
    admission: AdmissionArguments,
    #[command(flatten)]
    tls: TlsArguments,
    #[command(flatten)]
    allocator: AllocatorArguments,
    /// Whether there are metrics of each pool too: two series a pool.
    #[arg(long, env = env::ENABLED_DEBUG_METRIC, default_value_t = false, action = ArgAction::Set)]
    enabled_debug_metric: bool,
    /// Port of the probes.
    #[arg(long, env = env::HEALTH_PORT, default_value_t = 5720)]
    health_port: u16,
    #[command(flatten)]
    gc: GcArguments,
    /// Seconds that the lease lasts without renewal.
    #[arg(long, env = env::LEADER_DURATION, default_value_t = 15)]
    leader_duration: u64,
    /// Seconds after which a leader that could not renew steps down.
    #[arg(long, env = env::LEADER_RENEW_DEADLINE, default_value_t = 10)]
    leader_renew_deadline: u64,
    /// Seconds between two tries to take or renew the lease.
    #[arg(long, env = env::LEADER_RETRY_PERIOD, default_value_t = 2)]
    leader_retry_period: u64,
}

/// When addresses are taken back that no agent will release.
#[derive(Debug, Clone, clap::Args)]
struct GcArguments {
    /// Whether addresses of Pods that ended are taken back from nodes that have let go.
    #[arg(long, env = env::GC_ENABLED, default_value_t = true, action = ArgAction::Set)]
    gc_enabled: bool,
    /// Seconds from one look for such addresses to the next; two looks must agree.
    #[arg(long, env = env::GC_INTERVAL, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    gc_interval: u32,
    #[command(flatten)]
    policy: PolicyArguments,
}

/// Which of them may be taken back.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PolicyArguments {
    /// Seconds added to every grace period of Pods and nodes.
    #[arg(long, env = env::GC_DELAY, default_value_t = 0)]
    gc_delay: u32,
    /// Whether a node counts as lost that has long been unready and does not answer.
    #[arg(long, env = env::GC_LOST_NODES, default_value_t = true, action = ArgAction::Set)]
    gc_lost_nodes: bool,
}

impl PolicyArguments {
    /// For the core.
    pub(super) fn policy(&self) -> Policy {
        Policy {
            lost_nodes: if self.gc_lost_nodes {
                LostNodes::ByTime
            } else {
                LostNodes::ByWord
            },
            delay: TimeDelta::seconds(self.gc_delay.into()),
        }
    }

    /// For a person, whose controller may have other ones.
    pub(super) fn note(&self) -> String {
        format!(
            "judged as a controller does with --gc-delay {} and --gc-lost-nodes {}: give these if \
             yours differ (ipam.gc of the chart); with ipam.gc.enabled false it releases nothing",
            self.gc_delay, self.gc_lost_nodes
        )
    }
}

impl GcArguments {
    fn options(&self) -> gc::Options {
        gc::Options {
            on: self.gc_enabled.into(),
            interval: Duration::from_secs(self.gc_interval.into()),
            policy: self.policy.policy(),
            ask: gc::survey::Ask::Machines,
        }
    }
}

/// Where agents ask for addresses.
#[derive(Debug, clap::Args)]
struct AllocatorArguments {
    /// Address at which agents reach this process. Without it there is no allocator: agents write
    /// pools themselves.
    #[arg(long, env = env::ALLOCATOR_ADDRESS, requires = "agent_account")]
    allocator_address: Option<IpAddr>,
    /// Port of the allocator.
    #[arg(long, env = env::ALLOCATOR_PORT, default_value_t = 5723)]
    allocator_port: u16,
    /// Account that agents run under, system:serviceaccount:<namespace>:<name>.
    #[arg(long, env = env::AGENT_ACCOUNT)]
    agent_account: Option<String>,
}

impl AllocatorArguments {
    /// Opens the port, and says what the Lease is to say of it.
    ///
    /// Errors: the port is taken or forbidden; the certificate can't be made.
    async fn open(self) -> anyhow::Result<(Announced, Option<Endpoint>)> {
        let Self {
            allocator_address,
            allocator_port,
            agent_account,
        } = self;
        let (Some(address), Some(agents)) = (allocator_address, agent_account) else {
            return Ok((announce::no_annotations(), None));
        };
        let identity = Identity::new()?;
        let announced = identity.annotations(SocketAddr::new(address, allocator_port));
        let listener = ports::bind(allocator_port, "the allocator").await?;
        let endpoint = Endpoint {
            serve: Box::new(Listener { listener, identity }),
            agents,
        };
        Ok((announced, Some(endpoint)))
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    super::runtime()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        common,
        metrics: served,
        admission,
        tls,
        allocator,
        enabled_debug_metric,
        health_port,
        gc,
        leader_duration,
        leader_renew_deadline,
        leader_retry_period,
    } = arguments;
    let durations = Durations::new(
        Duration::from_secs(leader_duration),
        Duration::from_secs(leader_renew_deadline),
        Duration::from_secs(leader_retry_period),
    )?;
    let Common {
        config_path,
        pod_namespace,
        pod_name,
    } = common;
    let config = Config::load(config_path.as_deref())?;
    let shutdown = super::shutdown()?;
    let clients = connection::of_role().await?;
    let identity = pod_name
        .clone()
        .unwrap_or_else(|| format!("orbweaver-{:016x}", rand::random::<u64>()));
    let (ready, is_ready) = watch::channel(false);
    // The port is open: a long first list must not have the kubelet start it over.
    let (_, started) = watch::channel(true);
    let health = Health {
        started,
        ready: is_ready,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(ports::probes(health_port, health).await?);
    let mut registry = Registry::default();
    let metrics = controller::Metrics::register(&mut registry, enabled_debug_metric);
    served.serve(METRIC_PORT, registry, &mut tasks).await?;
    let elector = LeaderElector::new(
        clients.write.clone(),
        &pod_namespace,
        names::CONTROLLER_LEASE,
        &identity,
        durations,
    );
    let (announced, allocator) = allocator.open().await?;
    let elector = elector.announcing(announced);
    let (stop, stopped) = watch::channel(false);
    let (stop_work, work_stopped) = watch::channel(false);
    let leadership = elector.leadership();
    let part = admission::Part {
        clients: &clients,
        namespace: &pod_namespace,
        leadership: &leadership,
        stop: &work_stopped,
    };
    let webhooks = part.start(admission, tls, &config, &mut tasks).await?;
    let mut election = tokio::spawn(elector.run(stopped));
    let signals = Signals {
        leadership,
        ready,
        stop: work_stopped,
    };
    tasks.spawn(controller::run(
        Options {
            gc: gc.options(),
            ..options(&config, pod_name)
        },
        clients,
        metrics,
        signals,
        allocator,
    ));
    let ended = tokio::select! {
        biased;
        () = shutdown => {
            tracing::info!("stopping: passes end, then the lease is given back");
            stop_work.send_replace(true);
            finished(&mut tasks, webhooks).await;
            Ok(())
        }
        _ = tasks.join_next() => Err(anyhow!("a part of the controller ended")),
        _ = &mut election => bail!("the election ended"),
    };
    tasks.shutdown().await;
    stop.send_replace(true);
    election.await.context("the election ended badly")?;
    ended
}

/// Waits for what was told to stop: the controller, which bounds that itself, and the webhooks'
/// requests. Probes and metrics never end.
async fn finished(tasks: &mut JoinSet<()>, webhooks: Serving) {
    tokio::join!(tasks.join_next(), webhooks.ended());
}

/// What a controller is told at start; collection as it is by default.
pub(super) fn options(config: &Config, pod_name: Option<String>) -> Options {
    let Config {
        ipam_unix_socket_path: _,
        enable_ip_conflict_detection: _,
        enable_gateway_detection: _,
        enable_ipv4,
        enable_ipv6,
        enable_spider_subnet,
        enable_auto_pool_for_application,
        enable_stateful_set: _,
        enable_kubevirt_static_ip: _,
        spider_endpoints: _,
        early_binding: _,
        default_redundant_ip_number,
        third_party_controllers: _,
    } = config;
    Options {
        features: Features {
            ipv4: *enable_ipv4,
            ipv6: *enable_ipv6,
            subnets: (*enable_spider_subnet).into(),
            auto_pools: (*enable_auto_pool_for_application).into(),
        },
        keeps: config.keeps(),
        default_rule: SizeRule::Flexible(*default_redundant_ip_number),
        gc: gc::Options::default(),
        kinds: config.kinds(),
        early_binding: config.binds_early().into(),
        pod_name,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// How long a controller that does nothing takes to stop while a request to its webhooks lasts
    /// so many seconds, and whether the request came to its end.
    async fn stopping(request: u64) -> (Duration, bool) {
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let (mut told, answer) = (stopped.clone(), answered.clone());
        let service = async move {
            told.wait_for(|stop| *stop).await.unwrap();
            sleep(Duration::from_secs(request)).await;
            answer.store(true, Ordering::SeqCst);
            Ok(())
        };
        let (service, webhooks) = admission::watched(service, stopped.clone());
        tasks.spawn(service);
        let mut told = stopped;
        tasks.spawn(async move {
            told.wait_for(|stop| *stop).await.unwrap();
        });
        let start = Instant::now();
        stop.send_replace(true);
        finished(&mut tasks, webhooks).await;
        tasks.shutdown().await;
        (start.elapsed(), answered.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn a_controller_that_stops_lets_requests_to_its_webhooks_end_for_five_seconds() {
        let seconds = Duration::from_secs;
        assert_eq!(stopping(0).await, (seconds(0), true));
        assert_eq!(stopping(4).await, (seconds(4), true));
        assert_eq!(stopping(60).await, (seconds(5), false));
    }
}
