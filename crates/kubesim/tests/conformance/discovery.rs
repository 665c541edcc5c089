//! What both servers say of what they serve, as far as this one serves it.

use serde_json::{Value, json};

use super::reads::TABLE;
use super::script::Op;
use super::side::Side;

const OWN: &str = "spiderpool.spidernet.io/v2beta1";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Where the entries of a list have their names.
const NAMES: &[&str] = &[
    "/name",
    "/resource",
    "/metadata/name",
    "/version",
    "/subresource",
];

/// Asks both servers.
pub(crate) async fn compare(real: &Side, ours: &Side, differences: &mut Vec<String>) {
    let paths = [
        "/api",
        "/api/v1",
        "/apis",
        "/apis/apps",
        "/apis/apps/v1",
        "/apis/batch",
        "/apis/batch/v1",
        "/apis/coordination.k8s.io/v1",
        "/apis/policy/v1",
        "/apis/events.k8s.io/v1",
        "/apis/discovery.k8s.io/v1",
        "/apis/scheduling.k8s.io/v1",
        "/apis/apiextensions.k8s.io/v1",
        "/apis/admissionregistration.k8s.io/v1",
        "/apis/nowhere.io",
        "/apis/nowhere.io/v1",
        "/apis/apps/v7",
    ];
    for path in paths {
        let (theirs, mine) = asked(real, ours, path, "application/json").await;
        told(path, within(&theirs, &mine), differences);
    }
    for path in ["/api", "/apis"] {
        let (theirs, mine) = asked(real, ours, path, AGGREGATED).await;
        told(
            &format!("{path}, aggregated"),
            within(&theirs, &mine),
            differences,
        );
    }
    compare_columns(real, ours, differences).await;
    let group = OWN.split_once('/').map_or(OWN, |(group, _)| group);
    for path in [format!("/apis/{group}"), format!("/apis/{OWN}")] {
        let (mut theirs, mine) = asked(real, ours, &path, "application/json").await;
        // In no certain order on the real server.
        if let Some(Value::Array(resources)) = theirs.pointer_mut("/body/resources") {
            resources.sort_by_cached_key(|one| name(one).map(str::to_owned));
        }
        let same = theirs == mine;
        told(
            &path,
            if same {
                None
            } else {
                Some(format!("real {theirs}\n  ours {mine}"))
            },
            differences,
        );
    }
    let path = format!("/openapi/v3/apis/{OWN}");
    let (theirs, mine) = asked(real, ours, &path, "application/json").await;
    let schemas = |document: &Value| {
        let all = document
            .pointer("/components/schemas")
            .and_then(Value::as_object);
        let own = all
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.contains("spiderpool") && !name.ends_with("List"));
        json!(
            own.map(|(name, schema)| (name.clone(), schema.clone()))
                .collect::<serde_json::Map<_, _>>()
        )
    };
    told(
        &path,
        difference(&schemas(&theirs), &schemas(&mine)),
        differences,
    );
}

/// The columns of every kind that ours serves, with their descriptions those of our own.
async fn compare_columns(real: &Side, ours: &Side, differences: &mut Vec<String>) {
    let (_, groups) = ours.send_for(&Op::get("/apis"), "application/json").await;
    let versions = groups["groups"].as_array().into_iter().flatten();
    let mut roots: Vec<String> = versions
        .flat_map(|group| group["versions"].as_array().into_iter().flatten())
        .filter_map(|version| version["groupVersion"].as_str())
        .map(|version| format!("/apis/{version}"))
        .collect();
    roots.push("/api/v1".to_owned());
    for root in roots {
        let (_, resources) = ours.send_for(&Op::get(&root), "application/json").await;
        for resource in resources["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().unwrap_or_default();
            if name.contains('/') {
                continue;
            }
            let path = format!("{root}/{name}");
            let (theirs, mine) = asked(real, ours, &path, TABLE).await;
            let own = path.contains(OWN);
            let columns = |answer: &Value| {
                let mut columns = answer.pointer("/body/columnDefinitions").cloned();
                let each = columns.as_mut().and_then(Value::as_array_mut);
                for column in each.into_iter().flatten().filter(|_| !own) {
                    column["description"].take();
                }
                columns.unwrap_or_default()
            };
            let columns = difference(&columns(&theirs), &columns(&mine));
            told(&format!("columns of {path}"), columns, differences);
        }
    }
}

async fn asked(real: &Side, ours: &Side, path: &str, accept: &str) -> (Value, Value) {
    let op = Op::get(path);
    let (theirs, mine) = tokio::join!(real.send_for(&op, accept), ours.send_for(&op, accept));
    let clean = |(code, mut body): (u16, Value)| {
        strip(&mut body);
        json!({ "code": code, "body": body })
    };
    (clean(theirs), clean(mine))
}

/// Takes away what is the server's own: hashes and addresses.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| key != "storageVersionHash" && key != "serverAddressByClientCIDRs");
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

fn told(path: &str, difference: Option<String>, differences: &mut Vec<String>) {
    differences.extend(difference.map(|text| format!("{path}: {text}")));
}

fn difference(theirs: &Value, mine: &Value) -> Option<String> {
    let mut text = String::new();
    super::tell_difference("", theirs, mine, &mut text);
    Some(text).filter(|text| !text.is_empty())
}

fn name(entry: &Value) -> Option<&str> {
    // The core group has none.
    let core = entry.get("versions").map(|_| "");
    let found = NAMES.iter().find_map(|at| entry.pointer(at));
    found.and_then(Value::as_str).or(core)
}

/// The first thing that ours has and theirs has not, entries of lists found by their names.
fn within(theirs: &Value, mine: &Value) -> Option<String> {
    match (theirs, mine) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = a
                .keys()
                .find(|key| *key != "subresources" && !b.contains_key(*key));
            if let Some(key) = missing {
                return Some(format!("ours lacks {key} = {} of {mine}", a[key]));
            }
            b.iter().find_map(|(key, inner)| {
                a.get(key).map_or_else(
                    || Some(format!("only ours has {key} in {mine}")),
                    |other| within(other, inner),
                )
            })
        }
        (Value::Array(a), Value::Array(b)) if b.iter().all(|one| name(one).is_some()) => {
            b.iter().find_map(|one| {
                let found = a.iter().find(|other| name(other) == name(one));
                found.map_or_else(
                    || Some(format!("only ours has {one}")),
                    |other| within(other, one),
                )
            })
        }
        _ => (theirs != mine).then(|| format!("real {theirs}, ours {mine}")),
    }
}
