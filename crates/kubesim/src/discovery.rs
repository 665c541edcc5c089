//! What a client asks before anything else: which kinds there are, which version this is, whether
//! it is well.

use http::{Method, Response, header};
use serde_json::{Value, json};

use crate::body::ResponseBody;
use crate::kinds::{Kind, Kinds};
use crate::server::{plain, reply};

/// The version that is spoken.
const MINOR: &str = "34";
const GIT_VERSION: &str = "v1.34.4";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The answer, if the path is one of discovery.
pub(crate) fn answer(kinds: &Kinds, head: &http::request::Parts) -> Option<Response<ResponseBody>> {
    if head.method != Method::GET {
        return None;
    }
    let accept = head
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let aggregated = accept.split(',').any(|form| {
        form.contains("g=apidiscovery.k8s.io") && form.contains("v=v2") && !form.contains("v2beta1")
    });
    let path: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    let body = match path.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return Some(plain(200, "ok")),
        ["version"] => version(),
        ["api"] if aggregated => return Some(aggregate(kinds, true)),
        ["apis"] if aggregated => return Some(aggregate(kinds, false)),
        ["api"] => {
            json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
        }
        ["apis"] => group_list(kinds),
        ["api", version] => resources(kinds, "", version)?,
        ["apis", group] | ["apis", group, _] if !kinds.all().any(|kind| kind.group == *group) => {
            return Some(plain(404, "404 page not found\n"));
        }
        ["apis", group] => group_of(kinds, group)?,
        ["apis", group, version] => resources(kinds, group, version)?,
        _ => return None,
    };
    Some(reply(200, &body, &[]))
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// Groups in the order in which their first kind stands in the table.
fn groups(kinds: &Kinds) -> Vec<&str> {
    let mut groups = Vec::new();
    for kind in kinds.all() {
        if !groups.contains(&kind.group.as_str()) {
            groups.push(&kind.group);
        }
    }
    groups
}

fn versions<'a>(kinds: &'a Kinds, group: &str) -> Vec<&'a str> {
    let mut versions = Vec::new();
    for kind in kinds.all().filter(|kind| kind.group == group) {
        if !versions.contains(&kind.version.as_str()) {
            versions.push(&kind.version);
        }
    }
    versions
}

fn group_list(kinds: &Kinds) -> Value {
    let groups = groups(kinds).into_iter().filter(|group| !group.is_empty());
    let groups: Vec<Value> = groups
        .filter_map(|group| group_of(kinds, group))
        .map(|mut group| {
            if let Some(map) = group.as_object_mut() {
                map.remove("kind");
                map.remove("apiVersion");
            }
            group
        })
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group_of(kinds: &Kinds, group: &str) -> Option<Value> {
    let versions: Vec<Value> = versions(kinds, group)
        .into_iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": preferred,
    }))
}

/// An endpoint beside the object's own: its path, the kind it speaks, its verbs.
struct Extra {
    part: &'static str,
    group: String,
    version: String,
    kind: String,
    verbs: &'static [&'static str],
}

fn extras(kind: &Kind) -> Vec<Extra> {
    let of = |part, group: &str, version: &str, name: &str, verbs| Extra {
        part,
        group: group.to_owned(),
        version: version.to_owned(),
        kind: name.to_owned(),
        verbs,
    };
    let changes: &[&str] = &["get", "patch", "update"];
    let mut found = Vec::new();
    if kind.is_core("pods") {
        found.push(of("binding", "", "v1", "Binding", &["create"]));
        found.push(of("eviction", "policy", "v1", "Eviction", &["create"]));
        found.push(of("log", "", "v1", "Pod", &["get"]));
    }
    if kind.is_core("namespaces") {
        found.push(of("finalize", "", "v1", "Namespace", &["update"]));
    }
    if kind.scale.is_some() {
        found.push(of("scale", "autoscaling", "v1", "Scale", changes));
    }
    if kind.has_status {
        found.push(of(
            "status",
            &kind.group,
            &kind.version,
            &kind.kind,
            changes,
        ));
    }
    found
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut found = Vec::new();
    let here = kinds
        .all()
        .filter(|kind| kind.group == group && kind.version == version);
    for kind in here {
        let mut entry = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if let Some(map) = entry.as_object_mut() {
            if !kind.short_names.is_empty() {
                map.insert("shortNames".to_owned(), json!(kind.short_names));
            }
            if !kind.categories.is_empty() {
                map.insert("categories".to_owned(), json!(kind.categories));
            }
        }
        found.push(entry);
        for extra in extras(kind) {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, extra.part),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": extra.kind,
                "verbs": extra.verbs,
            });
            if extra.group != kind.group
                && let Some(map) = entry.as_object_mut()
            {
                map.insert("group".to_owned(), json!(extra.group));
                map.insert("version".to_owned(), json!(extra.version));
            }
            found.push(entry);
        }
    }
    if found.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": group_version,
        "resources": found,
    });
    // The core group's doesn't say it.
    if let Some(map) = list.as_object_mut().filter(|_| !group.is_empty()) {
        map.insert("apiVersion".to_owned(), json!("v1"));
    }
    Some(list)
}

fn aggregate(kinds: &Kinds, core: bool) -> Response<ResponseBody> {
    let groups = groups(kinds)
        .into_iter()
        .filter(|group| group.is_empty() == core);
    let items: Vec<Value> = groups.map(|group| aggregated_group(kinds, group)).collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    let mut response = reply(200, &body, &[]);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(AGGREGATED),
    );
    response
}

fn aggregated_group(kinds: &Kinds, group: &str) -> Value {
    let versions: Vec<Value> = versions(kinds, group)
        .into_iter()
        .map(|version| {
            let here = kinds
                .all()
                .filter(|kind| kind.group == group && kind.version == version);
            let resources: Vec<Value> = here.map(|kind| aggregated_resource(kind)).collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({})
    } else {
        json!({ "name": group })
    };
    json!({ "metadata": metadata, "versions": versions })
}

fn aggregated_resource(kind: &Kind) -> Value {
    // Of a built-in kind, the group and version are left out where they are its own.
    let response_kind = |group: &str, version: &str, name: &str| {
        let own = kind.builtin().is_some() && group == kind.group && version == kind.version;
        let (group, version) = if own { ("", "") } else { (group, version) };
        json!({ "group": group, "version": version, "kind": name })
    };
    let mut entry = json!({
        "resource": kind.plural,
        "responseKind": response_kind(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    let parts: Vec<Value> = extras(kind)
        .iter()
        .map(|extra| {
            json!({
                "subresource": extra.part,
                "responseKind": response_kind(&extra.group, &extra.version, &extra.kind),
                "verbs": extra.verbs,
            })
        })
        .collect();
    if let Some(map) = entry.as_object_mut() {
        if !kind.short_names.is_empty() {
            map.insert("shortNames".to_owned(), json!(kind.short_names));
        }
        if !kind.categories.is_empty() {
            map.insert("categories".to_owned(), json!(kind.categories));
        }
        if !parts.is_empty() {
            map.insert("subresources".to_owned(), json!(parts));
        }
    }
    entry
}
