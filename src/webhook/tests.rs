use std::convert::Infallible;

use http::Method;
use ipam::addr::Family;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use kube::core::DynamicObject;
use kube::core::admission::AdmissionReview;
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::api::{self, SpiderIPPool, SpiderSubnet, convert, names};

const RULES: Rules = Rules {
    families: Families {
        ipv4: true,
        ipv6: true,
    },
    subnets: true,
};

/// A cluster with our kinds and nothing of them.
async fn cluster() -> kubesim::Server {
    let server = kubesim::Server::new(3);
    let api: Api<CustomResourceDefinition> = Api::all(server.client("helm"));
    for definition in api::crd::definitions().unwrap() {
        api.create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    server
}

async fn put<K>(server: &kubesim::Server, object: Value)
where
    K: kube::Resource<DynamicType = ()> + serde::Serialize + serde::de::DeserializeOwned,
    K: Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    let api: Api<K> = Api::all(server.client("admin"));
    api.create(&PostParams::default(), &object).await.unwrap();
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": names::API_VERSION, "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}

/// A review as the API server writes it.
fn review(object: &Value, old: Option<&Value>) -> Value {
    let kind = object["kind"].as_str().unwrap();
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74", "name": object["metadata"]["name"],
            "kind": {"group": names::GROUP, "version": names::VERSION, "kind": kind},
            "resource": {"group": names::GROUP, "version": names::VERSION, "resource": "any"},
            "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
            "userInfo": {"username": "kubernetes-admin"},
            "object": object, "oldObject": old, "dryRun": false,
        }
    })
}

async fn post(client: Client, path: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .body(body.into())
        .unwrap();
    let response = router(client, RULES).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    (
        head.status,
        to_bytes(body, BODY_MAX).await.unwrap().to_vec(),
    )
}

/// What the webhook answers to a creation or an update.
async fn asked(client: Client, task: Task, object: &Value, old: Option<&Value>) -> Value {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| object["kind"] == kind.name())
        .unwrap();
    let body = review(object, old).to_string();
    let (code, answer) = post(client, &task.path(kind), body).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert_eq!(code, StatusCode::OK, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    // As the API server wants it: the form and the uid of the request.
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["response"]["uid"], "0c9a8d74");
    answer["response"].clone()
}

/// The object as it would be stored.
async fn filled(client: Client, object: &Value) -> Value {
    let answer = asked(client, Task::Fill, object, None).await;
    assert_eq!(answer["allowed"], true);
    let mut stored = object.clone();
    if answer["patch"].is_null() {
        return stored;
    }
    assert_eq!(answer["patchType"], "JSONPatch");
    let patch: Vec<u8> = serde_json::from_value(answer["patch"].clone()).unwrap_or_else(|_| {
        let bytes: k8s_openapi::ByteString =
            serde_json::from_value(answer["patch"].clone()).unwrap();
        bytes.0
    });
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut stored, &patch).unwrap();
    stored
}

fn refusal(answer: &Value) -> (&str, u64) {
    assert_eq!(answer["allowed"], false);
    let text = answer["status"]["message"].as_str().unwrap();
    (text, answer["status"]["code"].as_u64().unwrap())
}

/// An API server that never answers.
fn silent() -> Client {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_pool_that_overlaps_what_was_created_a_moment_ago_is_refused_in_known_words() {
    let server = cluster().await;
    let first = json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.20"]});
    put::<SpiderIPPool>(&server, object("SpiderIPPool", "a", &first)).await;
    let spec = json!({"ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.0.15-10.6.0.30"]});
    let new = object("SpiderIPPool", "b", &spec);
    let answer = asked(server.client("controller"), Task::Judge, &new, None).await;
    let wanted = "SpiderIPPool.spiderpool.spidernet.io \"b\" is invalid: spec.ips: Forbidden: \
                  overlap with IPPool a in IP ranges [10.6.0.15-10.6.0.20], total IP addresses of an \
                  IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'";
    assert_eq!(refusal(&answer), (wanted, 422));
    // A namesake is the API server's to refuse.
    let same = object("SpiderIPPool", "a", &spec);
    let answer = asked(server.client("controller"), Task::Judge, &same, None).await;
    assert_eq!(answer["allowed"], true, "{answer}");
}

/// What the webhook would have refused, stored without it: no Pod gets an address of it.
#[tokio::test]
async fn an_agent_refuses_what_a_webhook_would_have_refused() {
    let spec = json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.15-10.6.0.30"]});
    let mut stored = object("SpiderIPPool", "b", &spec);
    stored["metadata"]["uid"] = json!("u");
    let pool: SpiderIPPool = serde_json::from_value(stored).unwrap();
    let pool = convert::pool(&pool).unwrap();
    let pod = ipam::select::PodFacts {
        pod: ipam::name::PodName::new("shop", "web"),
        labels: std::collections::BTreeMap::new(),
        node: "n".into(),
        node_labels: Ok(std::collections::BTreeMap::new()),
        namespace_labels: Ok(std::collections::BTreeMap::new()),
        workload: ipam::name::WorkloadId {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            namespace: "shop".into(),
            name: "web".into(),
            uid: "u".into(),
        },
        attachment: ipam::attachment::Attachment::of(
            &"eth0".into(),
            &ipam::attachment::Networks::default(),
        ),
    };
    let refused = ipam::select::admit(&pool, Family::V4, &pod).unwrap_err();
    assert!(
        refused.to_string().contains("is not admitted yet"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_was_left_out_is_filled_in_and_the_rest_stays() {
    let server = cluster().await;
    let spec = json!({
        "subnet": "10.6.0.0/16", "ips": ["10.6.0.2-10.6.0.99"], "gateway": "10.6.0.1",
        "routes": [{"dst": "10.9.0.0/16", "gw": "10.6.0.1"}],
    });
    let subnet = filled(server.client("c"), &object("SpiderSubnet", "net4", &spec)).await;
    assert_eq!(subnet["spec"]["ipVersion"], 4);
    assert_eq!(
        subnet["metadata"]["labels"][names::label::SUBNET_CIDR],
        "10-6-0-0-16"
    );
    assert_eq!(subnet["metadata"]["finalizers"], json!([names::FINALIZER]));
    put::<SpiderSubnet>(&server, subnet).await;

    let bare =
        json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.12", "10.6.0.10-10.6.0.11"], "theirs": 1});
    let mut pool = object("SpiderIPPool", "p", &bare);
    pool["metadata"]["labels"] = json!({"mine": "yes"});
    let pool = filled(server.client("c"), &pool).await;
    let wanted = json!({
        "ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.12"],
        "gateway": "10.6.0.1", "routes": [{"dst": "10.9.0.0/16", "gw": "10.6.0.1"}], "theirs": 1,
    });
    assert_eq!(pool["spec"], wanted);
    assert_eq!(pool["metadata"]["labels"]["mine"], "yes");
    assert_eq!(
        pool["metadata"]["labels"][names::label::POOL_CIDR],
        "10-6-0-0-16"
    );
    assert_eq!(pool["metadata"]["finalizers"], json!([names::FINALIZER]));
    // An empty list of routes is a choice; what is whole is left alone.
    let own = json!({"subnet": "10.6.0.0/16", "routes": [], "gateway": "10.6.0.9"});
    let own = filled(server.client("c"), &object("SpiderIPPool", "q", &own)).await;
    assert_eq!(
        (&own["spec"]["routes"], &own["spec"]["gateway"]),
        (&json!([]), &json!("10.6.0.9"))
    );
    assert_eq!(filled(server.client("c"), &pool).await, pool);

    let reserved = object(
        "SpiderReservedIP",
        "r",
        &json!({"ips": ["fd00::2", "fd00::1"]}),
    );
    let reserved = filled(silent(), &reserved).await;
    assert_eq!(
        reserved["spec"],
        json!({"ipVersion": 6, "ips": ["fd00::1-fd00::2"]})
    );
}

#[tokio::test]
async fn mistakes_that_the_object_shows_alone_cost_no_question_to_the_api_server() {
    let two = json!({"subnet": "10.6.1.0/16"});
    let answer = asked(
        silent(),
        Task::Judge,
        &object("SpiderSubnet", "s", &two),
        None,
    )
    .await;
    let (text, code) = refusal(&answer);
    assert!(text.starts_with("SpiderSubnet.spiderpool.spidernet.io \"s\" is invalid: spec.subnet: Invalid value: \"10.6.1.0/16\": unformatted subnet"), "{text}");
    assert_eq!(code, 422);
    let spec = json!({"subnet": "10.6.0.0/24", "ips": ["10.6.0.1", "x", "10.7.0.1"]});
    let answer = asked(
        silent(),
        Task::Judge,
        &object("SpiderIPPool", "p", &spec),
        None,
    )
    .await;
    let (text, _) = refusal(&answer);
    assert!(
        text.contains(" is invalid: [spec.ips[1]: ") && text.ends_with(']'),
        "{text}"
    );
    // A change that concerns nobody else is judged alone, too.
    let spec = json!({"subnet": "10.6.0.0/24", "ips": ["10.6.0.1-10.6.0.9"]});
    let old = object("SpiderIPPool", "p", &spec);
    let mut new = old.clone();
    new["spec"]["nodeName"] = json!(["n1"]);
    let answer = asked(silent(), Task::Judge, &new, Some(&old)).await;
    assert_eq!(answer["allowed"], true, "{answer}");
}

#[tokio::test]
async fn what_is_being_deleted_changes_no_more_but_may_be_let_go() {
    let spec = json!({"subnet": "10.6.0.0/24"});
    let mut old = object("SpiderIPPool", "p", &spec);
    old["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    old["metadata"]["finalizers"] = json!([names::FINALIZER]);
    let mut new = old.clone();
    new["spec"]["disable"] = json!(true);
    let answer = asked(silent(), Task::Judge, &new, Some(&old)).await;
    let wanted = "spiderippools.spiderpool.spidernet.io \"p\" is forbidden: cannot update a terminating IPPool";
    assert_eq!(refusal(&answer), (wanted, 403));
    new["metadata"]["finalizers"] = json!([]);
    let answer = asked(silent(), Task::Judge, &new, Some(&old)).await;
    assert_eq!(answer["allowed"], true, "{answer}");
}

/// Such as from before its family was switched off.
#[tokio::test]
async fn an_object_without_a_network_that_can_be_read_changes_in_all_that_makes_it_no_worse() {
    for (kind, field) in [("SpiderIPPool", "disable"), ("SpiderSubnet", "theirs")] {
        let old = object(kind, "p", &json!({"subnet": "10.6.1.0/16"}));
        let mut new = old.clone();
        new["spec"][field] = json!(true);
        let answer = asked(silent(), Task::Judge, &new, Some(&old)).await;
        assert_eq!(answer["allowed"], true, "{answer}");
        new["spec"]["subnet"] = json!("10.7.1.0/16");
        let answer = asked(silent(), Task::Judge, &new, Some(&old)).await;
        assert!(refusal(&answer).0.contains("10.7.1.0/16"), "{answer}");
    }
}

/// Nobody can let go what can't be read, so it has to be mended first, and mending is a change.
#[tokio::test]
async fn what_is_being_deleted_and_cannot_be_read_may_be_mended() {
    let server = cluster().await;
    let cases = [
        ("SpiderIPPool", json!({"ips": ["10.6.0.300"]})),
        ("SpiderSubnet", json!({"ips": ["10.6.0.300"]})),
        // Not even of the kind's form.
        ("SpiderIPPool", json!({"ips": "10.6.0.3"})),
    ];
    for (kind, mut spec) in cases {
        spec["subnet"] = json!("10.6.0.0/24");
        let mut old = object(kind, "p", &spec);
        old["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        old["metadata"]["finalizers"] = json!([names::FINALIZER]);
        let mut new = old.clone();
        new["spec"]["ips"] = json!(["10.6.0.3"]);
        let answer = asked(server.client("c"), Task::Judge, &new, Some(&old)).await;
        assert_eq!(answer["allowed"], true, "{kind} {spec}: {answer}");
        // Another mistake is none the better.
        new["spec"]["ips"] = json!(["10.6.0.301"]);
        let answer = asked(server.client("c"), Task::Judge, &new, Some(&old)).await;
        assert!(refusal(&answer).0.contains("10.6.0.301"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_judged_gets_an_error_in_time_and_no_verdict() {
    let spec = json!({"subnet": "10.6.0.0/24"});
    let body = review(&object("SpiderIPPool", "p", &spec), None).to_string();
    let path = Task::Judge.path(Kind::Pool);
    let start = tokio::time::Instant::now();
    let (code, text) = post(silent(), &path, body.clone()).await;
    assert_eq!(
        (code, start.elapsed()),
        (StatusCode::SERVICE_UNAVAILABLE, JUDGE_WITHIN)
    );
    assert!(String::from_utf8_lossy(&text).contains("could not be judged within 4 s"));
    assert!(JUDGE_WITHIN.as_secs() < u64::try_from(publish::TIMEOUT_SECONDS).unwrap());
    // An API server without our kinds.
    let empty = kubesim::Server::new(1).client("controller");
    let (code, text) = post(empty, &path, body).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&text).contains("pools can't be listed"));
}

#[test]
fn a_body_is_read_or_refused_whatever_it_is() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let fine = |code: StatusCode| {
        [
            StatusCode::OK,
            StatusCode::BAD_REQUEST,
            StatusCode::SERVICE_UNAVAILABLE,
        ]
        .contains(&code)
    };
    let words = prop_oneof![
        Just("10.6.0.0/24".to_owned()),
        Just("::/0".to_owned()),
        Just("10.6.0.1-10.6.0.9".to_owned()),
        Just("255.255.255.255".to_owned()),
        Just("ffff::-ffff::ffff".to_owned()),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    let keys = prop_oneof![
        Just("ips".to_owned()),
        Just("subnet".to_owned()),
        Just("excludeIPs".to_owned()),
        Just("gateway".to_owned()),
        Just("routes".to_owned()),
        Just("dst".to_owned()),
        Just("gw".to_owned()),
        Just("ipVersion".to_owned()),
        Just("podAffinity".to_owned()),
        Just("matchLabels".to_owned()),
        Just("multusName".to_owned()),
        "[a-z]{1,4}",
    ];
    let value = leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(keys.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let all = (
        value.clone(),
        value.clone(),
        value,
        prop::collection::vec(any::<u8>(), 0..400),
        0_usize..6,
    );
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&all, |(spec, old, whole, bytes, place)| {
            let kind = Kind::ALL[place / 2];
            let task = if place % 2 == 0 {
                Task::Fill
            } else {
                Task::Judge
            };
            let new = object(kind.name(), "x", &spec);
            let old = object(kind.name(), "x", &old);
            let bodies = [
                review(&new, Some(&old)).to_string().into_bytes(),
                json!({"kind": "AdmissionReview", "request": whole})
                    .to_string()
                    .into_bytes(),
                bytes,
            ];
            for body in bodies {
                let path = task.path(kind);
                // What would need the cluster waits for it in vain, on paused time.
                let (code, _) = runtime.block_on(async { post(silent(), &path, body).await });
                prop_assert!(fine(code), "{code}");
            }
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn other_objects_and_operations_are_refused_by_path() {
    let spec = json!({"subnet": "10.6.0.0/24"});
    let mut body = review(&object("SpiderIPPool", "p", &spec), None);
    let (code, _) = post(silent(), &Task::Judge.path(Kind::Subnet), body.to_string()).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    body["request"]["operation"] = json!("DELETE");
    let (code, _) = post(silent(), &Task::Judge.path(Kind::Pool), body.to_string()).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let (code, _) = post(silent(), "/validate--v1-pod", body.to_string()).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    let huge = vec![b' '; BODY_MAX + 1];
    let (code, _) = post(silent(), &Task::Judge.path(Kind::Pool), huge).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
    let typed: AdmissionReview<DynamicObject> = serde_json::from_value(body).unwrap();
    assert!(typed.request.is_some());
}
