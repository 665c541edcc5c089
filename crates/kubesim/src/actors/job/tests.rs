use serde_json::{Value, json};

use super::super::pods::tests::owner;
use super::super::runner::stream;
use super::super::world::Object;
use super::*;

fn job(spec: Value) -> Job {
    let mut job: Job = owner("batch");
    let mut whole = json!({"template": {"spec": {"containers": [{"name": "main"}]}}});
    for (name, value) in spec.as_object().unwrap() {
        whole[name] = value.clone();
    }
    job.spec = Some(serde_json::from_value(whole).unwrap());
    job
}

struct Run {
    world: World,
    rng: rand_chacha::ChaCha8Rng,
    second: i64,
}

impl Run {
    fn of(job: Job) -> Self {
        Self {
            world: World::default().with(job),
            rng: stream(1, "job"),
            second: 0,
        }
    }

    fn job(&self) -> &Job {
        self.world.jobs.all().next().unwrap()
    }

    fn live(&self) -> Vec<Key> {
        self.world
            .pods
            .all()
            .filter(|p| pods::active(p))
            .map(Key::of)
            .collect()
    }

    /// Plans and carries out until nothing is planned any more.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.second += 1;
            let mut pass = Pass {
                now: Timestamp::from_second(self.second).unwrap(),
                rng: &mut self.rng,
                refused: None,
            };
            let plan = plan(&self.world, &Key::new("ns", "batch"), &mut pass);
            if plan.steps.is_empty() {
                return;
            }
            for write in plan.writes() {
                let world = std::mem::take(&mut self.world);
                self.world = match write.clone() {
                    Write::Create(Object::Pod(mut pod)) => {
                        pod.metadata.uid = pod.metadata.name.clone();
                        world.with(*pod)
                    }
                    Write::Replace(Object::Pod(pod)) => world.with(*pod),
                    Write::ReplaceStatus(Object::Job(job)) => world.with(*job),
                    Write::Delete(Object::Pod(pod)) => world.without_pod(&Key::of(pod.as_ref())),
                    _ => world,
                };
            }
        }
        panic!("it never ends");
    }

    /// Ends the first Pod that runs.
    fn finish(&mut self, phase: &str) {
        let key = self.live().remove(0);
        let mut pod = self.world.pods.get(&key).unwrap().clone();
        pod.status.get_or_insert_default().phase = Some(phase.into());
        self.world = std::mem::take(&mut self.world).with(pod);
    }

    fn ends_as(&self) -> Option<String> {
        let conditions = self.job().status.clone()?.conditions?;
        let last = conditions.last()?;
        Some(format!(
            "{}: {}",
            last.type_,
            last.reason.clone().unwrap_or_default()
        ))
    }
}

#[test]
fn as_many_run_as_are_missing_and_each_counts_once() {
    let mut run = Run::of(job(json!({"parallelism": 2, "completions": 3})));
    run.settle();
    for (live, succeeded) in [(2, 1), (1, 2), (0, 3)] {
        run.finish("Succeeded");
        run.settle();
        let status = run.job().status.clone().unwrap();
        assert_eq!(
            (run.live().len(), status.succeeded),
            (live, Some(succeeded))
        );
    }
    assert_eq!(
        run.ends_as().as_deref(),
        Some("Complete: CompletionsReached")
    );
    assert!(run.world.pods.all().all(|pod| !tracked(pod)));
}

#[test]
fn too_many_failures_end_it_and_what_still_runs() {
    let mut run = Run::of(job(
        json!({"parallelism": 2, "completions": 5, "backoffLimit": 1}),
    ));
    run.settle();
    run.finish("Failed");
    run.settle();
    run.finish("Failed");
    run.settle();
    assert_eq!(
        run.ends_as().as_deref(),
        Some("Failed: BackoffLimitExceeded")
    );
    assert_eq!(run.live(), []);
}

#[test]
fn indexes_are_each_done_once() {
    let mut run = Run::of(job(json!({
        "parallelism": 2, "completions": 3, "completionMode": "Indexed"})));
    run.settle();
    run.finish("Succeeded");
    run.settle();
    run.finish("Failed");
    run.settle();
    let status = run.job().status.clone().unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0"));
    let taken: BTreeSet<i32> = run
        .world
        .pods
        .all()
        .filter(|p| pods::active(p))
        .filter_map(index)
        .collect();
    assert_eq!(taken, BTreeSet::from([1, 2]));
}

#[test]
fn one_that_is_suspended_runs_nothing() {
    let mut run = Run::of(job(json!({"suspend": true})));
    run.settle();
    assert_eq!(run.live(), []);
    assert_eq!(run.ends_as().as_deref(), Some("Suspended: JobSuspended"));
}

#[test]
fn indexes_are_written_as_ranges() {
    let set = BTreeSet::from([0, 1, 2, 4, 6, 7]);
    assert_eq!(told(&set), "0-2,4,6,7");
    assert_eq!(indexes(Some("0-2,4,6,7")), set);
    assert_eq!(indexes(Some("")), BTreeSet::new());
}
