//! Random scripts: requests, with blanks for what only a server knows.
//!
//! `$uid`, `$rv`, `$stale` and `$next` in a request stand for the uid and version that this side
//! saw last of the object of the path, for a version before, and for the last continue token;
//! `$head` and `$then` for the version of the last list that was looked at, and of one before.

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::subnets;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) content_type: &'static str,
    pub(crate) body: Option<Value>,
}

impl Op {
    /// A GET of a path.
    pub(crate) fn get(path: &str) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            query: Vec::new(),
            content_type: PLAIN,
            body: None,
        }
    }

    /// The same, with more of a query.
    pub(crate) fn with(mut self, query: &[(&'static str, &str)]) -> Self {
        let more = query
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        self.query.extend(more);
        self
    }
}

/// A kind that scripts are about.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each by its name, in a table"
)]
pub(crate) struct Subject {
    pub(crate) root: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
    pub(crate) custom: bool,
    pub(crate) status: bool,
    pub(crate) scale: bool,
    pub(crate) body: fn(&mut StdRng) -> Value,
    /// A change of the spec, as a merge patch.
    pub(crate) change: fn(&mut StdRng) -> Value,
    pub(crate) new_status: fn(&mut StdRng) -> Value,
}

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
pub(crate) const PLAIN: &str = "application/json";

pub(crate) const NAMES: &[&str] = &["a", "b", "c"];
pub(crate) const NAMESPACES: &[&str] = &["default", "other"];

pub(crate) fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

pub(crate) fn one_in(rng: &mut StdRng, n: u32) -> bool {
    rng.random_range(0..n) == 0
}

fn nothing(_: &mut StdRng) -> Value {
    json!({})
}

fn pod_spec(rng: &mut StdRng) -> Value {
    let image = *pick(
        rng,
        &["busybox", "busybox:1", "busybox:latest", "r.io/x/y:2"],
    );
    let mut container = json!({ "name": "c", "image": image });
    if one_in(rng, 3) {
        container["ports"] =
            json!([{ "containerPort": 80 }, { "containerPort": 81, "protocol": "UDP" }]);
    }
    if one_in(rng, 3) {
        container["resources"] = json!({ "limits": { "cpu": "1000m", "memory": "0.5Gi" } });
    }
    if one_in(rng, 4) {
        container["readinessProbe"] = json!({ "httpGet": { "port": 80 } });
    }
    if one_in(rng, 4) {
        container["env"] =
            json!([{ "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]);
    }
    let mut spec = json!({ "containers": [container] });
    if one_in(rng, 4) {
        spec["volumes"] = json!([{ "name": "v" }, { "name": "w", "configMap": { "name": "c" } }]);
    }
    spec
}

fn pod(rng: &mut StdRng) -> Value {
    let mut spec = pod_spec(rng);
    if one_in(rng, 2) {
        spec["nodeName"] = json!("n1");
    }
    json!({ "spec": spec })
}

fn workload(rng: &mut StdRng) -> Value {
    let mut template = json!({ "metadata": { "labels": { "app": "x" } }, "spec": pod_spec(rng) });
    if one_in(rng, 12) {
        template["metadata"]["labels"] = json!({ "app": "y" });
    }
    let mut spec = json!({ "selector": { "matchLabels": { "app": "x" } }, "template": template });
    if one_in(rng, 3) {
        spec["replicas"] = json!(rng.random_range(0..4));
    }
    if one_in(rng, 15) {
        spec["replicas"] = json!(-1);
    }
    if one_in(rng, 20) {
        spec["selector"] = Value::Null;
    }
    json!({ "spec": spec })
}

fn stateful_set(rng: &mut StdRng) -> Value {
    let mut set = workload(rng);
    set["spec"]["serviceName"] = json!("s");
    set
}

fn daemon_set(rng: &mut StdRng) -> Value {
    let mut set = workload(rng);
    set["spec"].as_object_mut().unwrap().remove("replicas");
    set
}

fn job(rng: &mut StdRng) -> Value {
    let mut spec = json!({ "template": { "spec": pod_spec(rng) } });
    spec["template"]["spec"]["restartPolicy"] = json!("Never");
    if one_in(rng, 2) {
        spec["completions"] = json!(rng.random_range(1..4));
        spec["parallelism"] = json!(2);
    }
    json!({ "spec": spec })
}

fn cron_job(rng: &mut StdRng) -> Value {
    let mut job = job(rng);
    let job = job["spec"].take();
    json!({ "spec": { "schedule": "*/5 * * * *", "jobTemplate": { "spec": job } } })
}

fn config_map(rng: &mut StdRng) -> Value {
    let mut map = json!({ "data": { "a": rng.random_range(0..3).to_string() } });
    if one_in(rng, 12) {
        map["immutable"] = json!(true);
    }
    map
}

fn secret(rng: &mut StdRng) -> Value {
    if one_in(rng, 2) {
        json!({ "stringData": { "a": "x" } })
    } else {
        json!({ "data": { "a": "eA==" } })
    }
}

fn lease(rng: &mut StdRng) -> Value {
    json!({ "spec": {
        "holderIdentity": *pick(rng, &["h1", "h2"]),
        "leaseDurationSeconds": *pick(rng, &[10, 15, 0]),
        "renewTime": "2026-11-22T10:00:00.123456Z",
    } })
}

fn node(rng: &mut StdRng) -> Value {
    let mut node = json!({ "spec": {} });
    if one_in(rng, 2) {
        node["spec"] = json!({ "unschedulable": true, "podCIDR": "10.1.0.0/24" });
    }
    node
}

fn pool(rng: &mut StdRng) -> Value {
    let mut spec = json!({ "subnet": *pick(rng, &["10.6.0.0/16", "10.6.0.0/16", "10.6.0.0/16", "fd00::/64", "zz"]) });
    if one_in(rng, 2) {
        spec["ips"] = json!(*pick(
            rng,
            &[
                &["10.6.0.1-10.6.0.9"][..],
                &["10.6.0.1", "10.6.0.7"][..],
                &["a b"][..]
            ]
        ));
    }
    if one_in(rng, 3) {
        spec["ipVersion"] = json!(*pick(rng, &[4, 4, 4, 6, 7]));
    }
    if one_in(rng, 4) {
        spec["gateway"] = pick(
            rng,
            &[
                json!("10.6.0.254"),
                json!("x y"),
                json!(5),
                json!("fd00::1"),
            ],
        )
        .clone();
    }
    if one_in(rng, 6) {
        spec["unknown"] = json!({ "a": 1 });
    }
    if one_in(rng, 6) {
        spec["disable"] = Value::Null;
    }
    if one_in(rng, 12) {
        return json!({});
    }
    json!({ "spec": spec })
}

fn pool_status(rng: &mut StdRng) -> Value {
    json!({ "totalIPCount": *pick(rng, &[1, 2, -1]), "allocatedIPs": "{}", "more": 5 })
}

fn endpoint(rng: &mut StdRng) -> Value {
    json!({ "status": { "ownerControllerType": *pick(rng, &["Pod", "StatefulSet"]), "extra": { "x": rng.random_range(0..2) } } })
}

fn replicas(rng: &mut StdRng) -> Value {
    json!({ "spec": { "replicas": rng.random_range(0..4) } })
}

fn workload_status(rng: &mut StdRng) -> Value {
    json!({ "replicas": rng.random_range(0..3), "observedGeneration": 1 })
}

const PLAIN_SUBJECT: Subject = Subject {
    root: "/api/v1",
    plural: "",
    namespaced: true,
    custom: false,
    status: false,
    scale: false,
    body: nothing,
    change: nothing,
    new_status: nothing,
};
const APPS: Subject = Subject {
    root: "/apis/apps/v1",
    status: true,
    scale: true,
    body: workload,
    change: replicas,
    new_status: workload_status,
    ..PLAIN_SUBJECT
};
const POOLS: Subject = Subject {
    root: "/apis/spiderpool.spidernet.io/v2beta1",
    custom: true,
    ..PLAIN_SUBJECT
};

/// So many of them are what [`next`] draws from; [`next_pool`] draws from the others.
const DRAWN_FIRST: usize = 14;

/// All of them.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject {
        plural: "configmaps",
        body: config_map,
        change: |rng| json!({ "data": { "a": rng.random_range(0..3).to_string(), "b": *pick(rng, &[json!("1"), Value::Null]) } }),
        ..PLAIN_SUBJECT
    },
    Subject {
        plural: "secrets",
        body: secret,
        change: |_| json!({ "data": { "b": "eQ==" } }),
        ..PLAIN_SUBJECT
    },
    Subject {
        plural: "pods",
        status: true,
        body: pod,
        change: |rng| json!({ "spec": { "activeDeadlineSeconds": rng.random_range(5..8) } }),
        new_status: |rng| json!({ "phase": *pick(rng, &["Pending", "Running", "Succeeded"]), "podIP": "10.0.0.1" }),
        ..PLAIN_SUBJECT
    },
    Subject {
        plural: "nodes",
        namespaced: false,
        status: true,
        body: node,
        change: |rng| json!({ "spec": { "unschedulable": one_in(rng, 2) } }),
        new_status: |_| json!({ "capacity": { "cpu": "2000m", "memory": "1024Mi" }, "conditions": [{ "type": "Ready", "status": "True" }] }),
        ..PLAIN_SUBJECT
    },
    Subject {
        plural: "serviceaccounts",
        ..PLAIN_SUBJECT
    },
    Subject {
        plural: "deployments",
        ..APPS
    },
    Subject {
        plural: "replicasets",
        ..APPS
    },
    Subject {
        plural: "statefulsets",
        body: stateful_set,
        ..APPS
    },
    Subject {
        plural: "daemonsets",
        scale: false,
        body: daemon_set,
        change: |_| json!({ "spec": { "minReadySeconds": 3 } }),
        new_status: |_| json!({ "observedGeneration": 1, "numberReady": 1, "currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1 }),
        ..APPS
    },
    Subject {
        root: "/apis/batch/v1",
        plural: "jobs",
        status: true,
        body: job,
        change: |rng| json!({ "spec": { "parallelism": rng.random_range(1..4) } }),
        new_status: |_| json!({ "active": 1 }),
        ..PLAIN_SUBJECT
    },
    Subject {
        root: "/apis/batch/v1",
        plural: "cronjobs",
        status: true,
        body: cron_job,
        change: |rng| json!({ "spec": { "suspend": one_in(rng, 2) } }),
        new_status: |_| json!({ "lastScheduleTime": "2026-11-22T10:00:00Z" }),
        ..PLAIN_SUBJECT
    },
    Subject {
        root: "/apis/coordination.k8s.io/v1",
        plural: "leases",
        body: lease,
        change: |rng| json!({ "spec": { "holderIdentity": *pick(rng, &["h1", "h2"]) } }),
        ..PLAIN_SUBJECT
    },
    Subject {
        plural: "spiderippools",
        namespaced: false,
        status: true,
        body: pool,
        change: |rng| json!({ "spec": { "disable": one_in(rng, 2) } }),
        new_status: pool_status,
        ..POOLS
    },
    Subject {
        plural: "spiderendpoints",
        body: endpoint,
        change: |rng| json!({ "status": { "more": rng.random_range(0..3) } }),
        ..POOLS
    },
    Subject {
        plural: "spidersubnets",
        namespaced: false,
        status: true,
        body: subnets::subnet,
        change: subnets::change,
        new_status: subnets::status,
        ..POOLS
    },
    Subject {
        plural: "spiderreservedips",
        namespaced: false,
        body: subnets::reserved,
        change: subnets::change_reserved,
        ..POOLS
    },
];

impl Subject {
    /// Where those of a namespace are listed.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        if self.namespaced {
            format!("{}/namespaces/{namespace}/{}", self.root, self.plural)
        } else {
            format!("{}/{}", self.root, self.plural)
        }
    }

    /// Where all of them are listed.
    pub(crate) fn everywhere(&self) -> String {
        format!("{}/{}", self.root, self.plural)
    }

    fn typed(&self, mut body: Value) -> Value {
        if self.custom {
            let kind = match self.plural {
                "spiderippools" => "SpiderIPPool",
                "spidersubnets" => "SpiderSubnet",
                "spiderreservedips" => "SpiderReservedIP",
                _ => "SpiderEndpoint",
            };
            body["apiVersion"] = json!(self.root.trim_start_matches("/apis/"));
            body["kind"] = json!(kind);
        }
        body
    }
}

/// The next request of a script.
pub(crate) fn next(rng: &mut StdRng) -> Op {
    next_of(rng, &SUBJECTS[..DRAWN_FIRST])
}

/// A request about a subnet or a reserved address.
pub(crate) fn next_pool(rng: &mut StdRng) -> Op {
    next_of(rng, &SUBJECTS[DRAWN_FIRST..])
}

fn next_of(rng: &mut StdRng, subjects: &[Subject]) -> Op {
    let subject = pick(rng, subjects);
    let rare: &[&str] = &["doomed", "nowhere"];
    let namespaces_here = if one_in(rng, 40) { rare } else { NAMESPACES };
    let namespace = *pick(rng, namespaces_here);
    let name = *pick(rng, NAMES);
    let collection = subject.collection(namespace);
    let path = format!("{collection}/{name}");
    let op = |method, path: &str, content_type, body| Op {
        method,
        path: path.to_owned(),
        query: Vec::new(),
        content_type,
        body,
    };
    match rng.random_range(0..100) {
        0..24 => create(rng, subject, &collection, name),
        24..32 => op("GET", &path, PLAIN, None),
        32..42 => list(rng, subject, &collection),
        42..56 => put(rng, subject, &path, name),
        56..68 => patch(rng, subject, &path),
        68..76 if subject.status => status(rng, subject, &path, name),
        76..80 if subject.scale => scale(rng, &path),
        80..82 if subject.plural == "pods" => {
            let body = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": { "kind": "Node", "name": "n2" } });
            op("POST", &format!("{path}/binding"), PLAIN, Some(body))
        }
        82..84 if !one_in(rng, 3) => namespaces(rng),
        84..98 => delete(rng, &path),
        _ => {
            let mut op = op("DELETE", &collection, PLAIN, None);
            op.query.push((
                "labelSelector",
                (*pick(rng, &["tier=x", "tier in (y,z)"])).to_owned(),
            ));
            op
        }
    }
}

/// Server-side apply by one of two managers, of objects that nobody writes otherwise: what those own
/// who never applied, only the real server knows.
pub(crate) fn apply(rng: &mut StdRng) -> Op {
    let (namespace, name) = (*pick(rng, NAMESPACES), "applied");
    let (root, plural, body) = if one_in(rng, 2) {
        let mut data = json!({});
        for key in ["a", "b", "c"] {
            if one_in(rng, 2) {
                data[key] = json!(*pick(rng, &["1", "2"]));
            }
        }
        if data == json!({}) {
            // Whose an empty map is depends on how the server compares it to none.
            data["a"] = json!("1");
        }
        let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data });
        ("/api/v1", "configmaps", body)
    } else {
        let mut containers = Vec::new();
        for name in ["c", "d"] {
            if containers.is_empty() || one_in(rng, 2) {
                let mut container =
                    json!({ "name": name, "image": *pick(rng, &["busybox:1", "busybox:2"]) });
                if one_in(rng, 2) {
                    let variable = json!({ "name": *pick(rng, &["X", "Y"]), "value": *pick(rng, &["1", "2"]) });
                    container["env"] = json!([variable]);
                }
                containers.push(container);
            }
        }
        let template = json!({ "metadata": { "labels": { "app": "x" } }, "spec": { "containers": containers } });
        let mut spec =
            json!({ "selector": { "matchLabels": { "app": "x" } }, "template": template });
        if one_in(rng, 2) {
            spec["replicas"] = json!(rng.random_range(1..3));
        }
        let body = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": spec });
        ("/apis/apps/v1", "deployments", body)
    };
    let path = format!("{root}/namespaces/{namespace}/{plural}/{name}");
    if one_in(rng, 12) {
        return Op {
            method: "DELETE",
            path,
            query: Vec::new(),
            content_type: PLAIN,
            body: None,
        };
    }
    let mut query = vec![("fieldManager", (*pick(rng, &["m1", "m2"])).to_owned())];
    if one_in(rng, 3) {
        query.push(("force", "true".to_owned()));
    }
    let mut body = body;
    body["metadata"] = json!({ "name": name });
    if one_in(rng, 3) {
        body["metadata"]["labels"] = json!({ "tier": *pick(rng, &["x", "y"]) });
    }
    Op {
        method: "PATCH",
        path,
        query,
        content_type: APPLY,
        body: Some(body),
    }
}

fn decorated(rng: &mut StdRng, mut body: Value) -> Value {
    let mut labels = json!({});
    if one_in(rng, 2) {
        labels["tier"] = json!(*pick(rng, &["x", "y", "z"]));
    }
    if one_in(rng, 25) {
        labels["bad key!"] = json!("v");
    }
    if one_in(rng, 25) {
        labels["k"] = json!("bad value!");
    }
    let meta = body
        .as_object_mut()
        .unwrap()
        .entry("metadata")
        .or_insert(json!({}));
    meta["labels"] = labels;
    if one_in(rng, 4) {
        meta["finalizers"] = json!(*pick(
            rng,
            &[&["x.io/one"][..], &["x.io/one", "x.io/two"][..]]
        ));
    }
    if one_in(rng, 30) {
        meta["finalizers"] = json!(["!"]);
    }
    if one_in(rng, 5) {
        meta["annotations"] = json!({ "note": rng.random_range(0..3).to_string() });
    }
    if one_in(rng, 8) {
        let mut owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "11111111-1111-4111-8111-111111111111" });
        if one_in(rng, 3) {
            owner["uid"] = json!("");
        }
        meta["ownerReferences"] = json!([owner]);
    }
    body
}

fn create(rng: &mut StdRng, subject: &Subject, collection: &str, name: &str) -> Op {
    let body = (subject.body)(rng);
    let mut body = subject.typed(decorated(rng, body));
    if subject.plural == "jobs" {
        // A Job without labels is read with those of its Pods and stored with them at its next
        // update, be it an equal one: the one write of the real server that changes nothing.
        body["metadata"]["labels"]["tier"] = json!("x");
    }
    let mut query = Vec::new();
    body["metadata"]["name"] = json!(name);
    match rng.random_range(0..30) {
        0 => body["metadata"]["name"] = json!("Bad_Name"),
        1 => body["metadata"]["name"] = json!("-x"),
        2 | 3 => {
            body["metadata"].as_object_mut().unwrap().remove("name");
            body["metadata"]["generateName"] = json!("g-");
            // The order of random names is random.
            query.push(("dryRun", "All".to_owned()));
        }
        4 => {
            body["metadata"].as_object_mut().unwrap().remove("name");
        }
        5 => body["metadata"]["namespace"] = json!("elsewhere"),
        6 => body["metadata"]["resourceVersion"] = json!("5"),
        7 => {
            body["nonsense"] = json!(1);
            query.push(("fieldValidation", "Strict".to_owned()));
        }
        8 => query.push(("dryRun", "All".to_owned())),
        9 => body["status"] = (subject.new_status)(rng),
        10 => body["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        // Rules are looked at in an object of another kind even if its values are of wrong types, and
        // say so in the words of their evaluator.
        11 if subnets::has_right_types(&body) => body["kind"] = json!("Wrong"),
        _ => {}
    }
    Op {
        method: "POST",
        path: collection.to_owned(),
        query,
        content_type: PLAIN,
        body: Some(body),
    }
}

fn put(rng: &mut StdRng, subject: &Subject, path: &str, name: &str) -> Op {
    let body = (subject.body)(rng);
    let mut body = subject.typed(decorated(rng, body));
    body["metadata"]["name"] = json!(name);
    match rng.random_range(0..8) {
        0 => {}
        1 => body["metadata"]["resourceVersion"] = json!("$stale"),
        2 => body["metadata"]["uid"] = json!("22222222-2222-4222-8222-222222222222"),
        3 => {
            body["metadata"]["uid"] = json!("$uid");
            body["metadata"]["resourceVersion"] = json!("$rv");
        }
        _ => body["metadata"]["resourceVersion"] = json!("$rv"),
    }
    if one_in(rng, 20) {
        body["metadata"]["name"] = json!("another");
    }
    if one_in(rng, 12) {
        body["metadata"]["managedFields"] = json!([{}]);
    }
    Op {
        method: "PUT",
        path: path.to_owned(),
        query: Vec::new(),
        content_type: PLAIN,
        body: Some(body),
    }
}

fn patch(rng: &mut StdRng, subject: &Subject, path: &str) -> Op {
    let label = pick(rng, &[json!("x"), json!("y"), Value::Null]).clone();
    let meta = match rng.random_range(0..8) {
        0 => json!({ "finalizers": null }),
        1 => json!({ "finalizers": ["x.io/new"] }),
        2 => json!({ "labels": { "tier": label }, "resourceVersion": "$stale" }),
        3 => json!({ "labels": { "tier": label }, "resourceVersion": "$rv" }),
        4 => json!({ "annotations": { "note": "p" }, "uid": "$uid" }),
        5 => json!({ "name": "another" }),
        _ => json!({ "labels": { "tier": label } }),
    };
    let merge = if one_in(rng, 2) {
        (subject.change)(rng)
    } else {
        json!({ "metadata": meta })
    };
    let (content_type, body) = match rng.random_range(0..8) {
        0 => (
            JSON_PATCH,
            json!([{ "op": "add", "path": "/metadata/labels", "value": { "tier": label } }]),
        ),
        1 => (
            JSON_PATCH,
            json!([{ "op": "test", "path": "/metadata/uid", "value": "no" }]),
        ),
        2 => (
            JSON_PATCH,
            json!([{ "op": "remove", "path": "/metadata/finalizers" }]),
        ),
        3 | 4 => (STRATEGIC, merge),
        _ => (MERGE, merge),
    };
    Op {
        method: "PATCH",
        path: path.to_owned(),
        query: Vec::new(),
        content_type,
        body: Some(body),
    }
}

/// Of a custom object, nothing but the status: the rest would change only `managedFields`.
fn status(rng: &mut StdRng, subject: &Subject, path: &str, name: &str) -> Op {
    let status = (subject.new_status)(rng);
    let path = format!("{path}/status");
    if subject.custom {
        let body = Some(json!({ "status": status }));
        return Op {
            method: "PATCH",
            path,
            query: Vec::new(),
            content_type: MERGE,
            body,
        };
    }
    if one_in(rng, 3) {
        let body = (subject.body)(rng);
        let mut body = subject.typed(decorated(rng, body));
        body["metadata"]["name"] = json!(name);
        body["metadata"]["resourceVersion"] = json!(*pick(rng, &["$rv", "$rv", "$stale"]));
        body["status"] = status;
        if body["metadata"]["finalizers"] == json!(["!"]) {
            // How much is wrong with it depends on the kind.
            body["metadata"]["finalizers"].take();
        }
        if subject.plural == "jobs" && body["metadata"]["labels"] == json!({}) {
            // Now and then the real server answers as if those of the template were not filled in.
            body["metadata"]["labels"] = json!({ "tier": "s" });
        }
        return Op {
            method: "PUT",
            path,
            query: Vec::new(),
            content_type: PLAIN,
            body: Some(body),
        };
    }
    let mut body = json!({ "status": status });
    if !subject.custom && one_in(rng, 3) {
        body["metadata"] = json!({ "labels": { "tier": "s" }, "annotations": { "by": "status" } });
    }
    if one_in(rng, 3) {
        body["spec"] = (subject.change)(rng)["spec"].take();
    }
    Op {
        method: "PATCH",
        path,
        query: Vec::new(),
        content_type: MERGE,
        body: Some(body),
    }
}

fn scale(rng: &mut StdRng, path: &str) -> Op {
    let path = format!("{path}/scale");
    if one_in(rng, 2) {
        return Op {
            method: "GET",
            path,
            query: Vec::new(),
            content_type: PLAIN,
            body: None,
        };
    }
    // Never what it is: each PATCH of a scale is a revision there, if only of `managedFields`.
    let replicas = if one_in(rng, 8) {
        -1
    } else {
        rng.random_range(10..1_000)
    };
    let body = json!({ "spec": { "replicas": replicas } });
    Op {
        method: "PATCH",
        path,
        query: Vec::new(),
        content_type: MERGE,
        body: Some(body),
    }
}

fn list(rng: &mut StdRng, subject: &Subject, collection: &str) -> Op {
    let mut query = Vec::new();
    match rng.random_range(0..12) {
        0..3 => query.push(("limit", rng.random_range(1..3).to_string())),
        3 | 4 => {
            query.push(("limit", "1".to_owned()));
            query.push(("continue", "$next".to_owned()));
        }
        5 => query.push((
            "labelSelector",
            (*pick(
                rng,
                &[
                    "tier",
                    "tier=x",
                    "tier!=x",
                    "tier in (x,y)",
                    "!tier",
                    "tier notin (x)",
                    "a==",
                    "x,,",
                ],
            ))
            .to_owned(),
        )),
        6 => query.push((
            "fieldSelector",
            (*pick(
                rng,
                &[
                    "metadata.name=a",
                    "metadata.name!=a",
                    "metadata.namespace=other",
                    "spec.nodeName=n1",
                    "status.phase=Pending",
                    "nope=1",
                    "nope",
                ],
            ))
            .to_owned(),
        )),
        7 => query.push(("limit", "x".to_owned())),
        9 => query.push(("resourceVersionMatch", "Exact".to_owned())),
        _ => {}
    }
    // The real server keeps things of its own in kube-system.
    let is_ours = !matches!(subject.plural, "leases" | "configmaps" | "serviceaccounts");
    let path = if is_ours && one_in(rng, 3) {
        subject.everywhere()
    } else {
        collection.to_owned()
    };
    Op {
        method: "GET",
        path,
        query,
        content_type: PLAIN,
        body: None,
    }
}

fn delete(rng: &mut StdRng, path: &str) -> Op {
    let body = match rng.random_range(0..14) {
        0 => Some(json!({ "preconditions": { "uid": "$uid" } })),
        1 => Some(json!({ "preconditions": { "uid": "no" } })),
        2 => Some(json!({ "preconditions": { "resourceVersion": "$rv" } })),
        3 => Some(json!({ "preconditions": { "resourceVersion": "$stale" } })),
        4 => Some(json!({ "propagationPolicy": "Foreground" })),
        5 => Some(json!({ "propagationPolicy": "Orphan" })),
        6 => Some(json!({ "propagationPolicy": "Background" })),
        7 => Some(json!({ "gracePeriodSeconds": 0 })),
        8 => Some(json!({ "gracePeriodSeconds": 5 })),
        9 => Some(json!({ "propagationPolicy": "Sometimes" })),
        10 => Some(json!({ "dryRun": ["All"] })),
        _ => None,
    };
    Op {
        method: "DELETE",
        path: path.to_owned(),
        query: Vec::new(),
        content_type: PLAIN,
        body,
    }
}

fn namespaces(rng: &mut StdRng) -> Op {
    let name = *pick(rng, &["doomed", "other", "spare"]);
    let body =
        json!({ "metadata": { "name": name, "labels": { "tier": *pick(rng, &["x", "y"]) } } });
    let at = format!("/api/v1/namespaces/{name}");
    let op = |method, path: String, body| Op {
        method,
        path,
        query: Vec::new(),
        content_type: PLAIN,
        body,
    };
    match rng.random_range(0..6) {
        0 => op("POST", "/api/v1/namespaces".to_owned(), Some(body)),
        1 => op("PUT", at, Some(body)),
        2 if name == "doomed" => op("DELETE", at, None),
        3 => op("DELETE", "/api/v1/namespaces/kube-system".to_owned(), None),
        _ => op("GET", at, None),
    }
}
