//! The socket's HTTP: what is answered before, and beside, any question of addresses.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

async fn node() -> (Node, TempDir) {
    let dir = temp();
    (Node::start(&World::with_shop(), dir.path()).await, dir)
}

fn request(method: &str, path: &str, media_type: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media_type)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_reaches_no_operation_is_answered_as_the_original_s_framework_does() {
    let (node, _dir) = node().await;
    let json_type = "application/json";
    let table = [
        (
            "GET",
            "/v1/x",
            json_type,
            "",
            404,
            404,
            "path /v1/x was not found",
        ),
        (
            "PUT",
            "/v1/ipam/ip",
            json_type,
            "",
            405,
            405,
            "method PUT is not allowed, but [DELETE,POST] are",
        ),
        (
            "POST",
            "/v1/ipam/ip",
            "text/plain",
            "{}",
            415,
            415,
            "unsupported media type \"text/plain\", only [application/json] are allowed",
        ),
        (
            "GET",
            "/v1/workloadendpoint?podName=a",
            json_type,
            "",
            422,
            602,
            "podNamespace in query is required",
        ),
    ];
    for (method, path, media_type, body, status, code, message) in table {
        let (got, value) = node.send(request(method, path, media_type, body)).await;
        assert_eq!(got, status, "{method} {path}");
        assert_eq!(value, json!({"code": code, "message": message}));
    }
    let (status, value) = node
        .send(request("POST", "/v1/ipam/ip", json_type, "{"))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let text = value["message"].as_str().unwrap();
    assert!(
        text.starts_with("parsing ipamAddArgs body from \"\" failed, because "),
        "{text}"
    );
    let mut whole = args("a", "u", "eth0", "s");
    whole.as_object_mut().unwrap().remove("podUID");
    let (status, value) = node.call(Operation::PostIpamIp, &whole).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        value,
        json!({"code": 602, "message": "podUID in body is required"})
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_method_names_the_others_in_the_header_too() {
    let (node, _dir) = node().await;
    let request = request("PUT", "/v1/ipam/ip", "application/json", "");
    let response = node.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::ALLOW], "DELETE,POST");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_is_not_read() {
    let (node, _dir) = node().await;
    let long = "x".repeat(65 * 1024);
    let (status, _) = node
        .send(request("POST", "/v1/ipam/ip", "application/json", &long))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn small_operations_answer() {
    let (node, _dir) = node().await;
    for operation in [Operation::GetIpamHealthy, Operation::PostIpamIps] {
        let answer = node.call(operation, &json!({})).await;
        assert_eq!(answer, (StatusCode::OK, Value::Null));
    }
    let gone = args("a", "u", "eth0", "s");
    let answer = node.call(Operation::DeleteIpamIps, &gone).await;
    assert_eq!(
        answer,
        (StatusCode::OK, Value::Null),
        "nothing is known of it"
    );
}

#[tokio::test(start_paused = true)]
async fn health_is_told_while_every_place_is_taken() {
    let (node, _dir) = node().await;
    node.world.slow_down(Duration::from_secs(100));
    let queries = (0..1000).map(|n| {
        let query = format!("/v1/workloadendpoint?podNamespace=shop&podName=a-{n}");
        node.send(request("GET", &query, "application/json", ""))
    });
    let asked = Instant::now();
    let (_, healthy) = tokio::join!(join_all(queries), async {
        pass(1).await;
        node.call(Operation::GetIpamHealthy, &Value::Null).await;
        asked.elapsed()
    });
    assert_eq!(healthy, Duration::from_secs(1));
    assert!(
        asked.elapsed() > Duration::from_secs(2),
        "nobody had to wait"
    );
}

#[tokio::test(start_paused = true)]
async fn the_probes_of_the_contract_are_not_implemented_on_the_socket() {
    let (node, _dir) = node().await;
    let answer = node
        .send(request(
            "GET",
            "/v1/runtime/startup",
            "application/json",
            "",
        ))
        .await;
    let text = "operation runtime.GetRuntimeStartup has not yet been implemented";
    assert_eq!(answer, (StatusCode::NOT_IMPLEMENTED, json!(text)));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_written_is_told_all_the_same_while_its_pod_is_here() {
    let (world, dir) = (World::with_shop(), temp());
    let node = Node::writing(EndpointMode::Never, &world, dir.path()).await;
    world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = world.pod("a", &uses(&["p"]));
    node.add("a", &uid, "s1").await;
    pass(60).await;
    assert_eq!(world.all("spiderendpoints"), Vec::<Value>::new());
    let query = "/v1/workloadendpoint?podNamespace=shop&podName=a";
    let ask = || node.send(request("GET", query, "application/json", ""));
    let (status, told) = ask().await;
    assert_eq!((status, &told["podUID"]), (StatusCode::OK, &json!(uid)));
    assert_eq!(told["interfaces"][0]["ipv4"], "172.18.41.40/24");
    world.delete("pods", "shop", "a");
    pass(60).await;
    assert_eq!(ask().await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_told_by_query_or_body_as_soon_as_addresses_are_given() {
    let (node, _dir) = node().await;
    let query = "/v1/workloadendpoint?podNamespace=shop&podName=a";
    let ask = || node.send(request("GET", query, "application/json", ""));
    assert_eq!(
        ask().await,
        (
            StatusCode::NOT_FOUND,
            json!("SpiderEndpoint not found for pod shop/a")
        )
    );
    node.world.pool("p", "172.18.41.40-172.18.41.43");
    let uid = node.world.pod("a", &uses(&["p"]));
    node.world.lose("spiderendpoints");
    node.add("a", &uid, "s1").await;
    pass(60).await;
    node.world.heal();
    let before = ask().await;
    assert_eq!(node.world.all("spiderendpoints"), Vec::<Value>::new());
    pass(31).await;
    assert_eq!(
        node.world.all("spiderendpoints").len(),
        1,
        "it is tried for as long as needed"
    );
    let (status, told) = ask().await;
    assert_eq!(before, (status, told.clone()));
    assert_eq!(status, StatusCode::OK);
    assert_eq!(told["podUID"], json!(uid));
    let interfaces = json!([{"interface": "eth0", "ipv4": "172.18.41.40/24", "ipv4Pool": "p"}]);
    assert_eq!(told["interfaces"], interfaces);
    let body = json!({"podNamespace": "shop", "podName": "a"});
    let by_body = node.call(Operation::GetWorkloadendpoint, &body).await;
    assert_eq!(by_body, (status, told));
}

/// The recorded exchanges, each a request line, its body, and the status and body of the reply.
fn recorded() -> Vec<(String, Value, u16, Value)> {
    let text = include_str!("../../../crates/cni/tests/golden/agent-http.txt");
    let value = |text: &str| {
        let text = text.trim();
        if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(text).unwrap()
        }
    };
    text.split(">>> request\n")
        .skip(1)
        .map(|exchange| {
            let (request, response) = exchange.split_once("<<< response\n").unwrap();
            let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
            let (status, answer) = response.split_once("\n\n").unwrap();
            let code = status.split(' ').nth(1).unwrap().parse().unwrap();
            let line = head.lines().next().unwrap().to_owned();
            (line, value(body), code, value(answer))
        })
        .collect()
}

/// The world in which the exchanges were recorded, as far as they show it.
fn recorded_world(exchanges: &[(String, Value, u16, Value)]) -> World {
    let world = World::new();
    world.put("namespaces", json!({"metadata": {"name": "default"}}));
    let spec = json!({"subnet": "172.18.41.0/24", "ips": ["172.18.41.40-172.18.41.43"],
        "podAffinity": {"matchLabels": {"app": "static"}}});
    world.put(
        "spiderippools",
        json!({"metadata": {"name": "static-ipv4-ippool"}, "spec": spec}),
    );
    let rs = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": true,
        "uid": "ae2674eb-5f1b-4c74-b541-974f82a69288"}]);
    let meta = json!({"name": "web-595d5f456d", "namespace": "default", "uid": "rs", "ownerReferences": rs});
    world.put("replicasets", json!({"metadata": meta}));
    for (_, body, _, _) in exchanges {
        let Some(name) = body["podName"].as_str().filter(|name| *name != "nosuch") else {
            continue;
        };
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-595d5f456d",
            "uid": "rs", "controller": true}]);
        let (annotations, label, owners) = if name.starts_with("web") {
            let subnet = json!({"ipv4": ["net4"], "ipv6": ["net6"]}).to_string();
            (json!({"ipam.spidernet.io/subnet": subnet}), "web", owner)
        } else {
            let label = if name.starts_with("static") {
                "static"
            } else {
                "wrong"
            };
            (uses(&["static-ipv4-ippool"]), label, json!([]))
        };
        let meta = json!({"name": name, "namespace": "default", "uid": body["podUID"],
            "labels": {"app": label}, "annotations": annotations, "ownerReferences": owners});
        let spec = json!({"nodeName": "n1", "containers": []});
        world.put("pods", json!({"metadata": meta, "spec": spec}));
    }
    world
}

/// The two auto pools that the sixth exchange found.
fn make_auto_pools(world: &World) {
    let pools = [
        ("4", "172.18.41.0/24", "172.18.41.44", "172.18.41.1", "net4"),
        ("6", "fd00:41::/112", "fd00:41::60", "fd00:41::1", "net6"),
    ];
    for (version, subnet, ip, gateway, owner) in pools {
        let labels = json!({
            "ipam.spidernet.io/interface": "eth0",
            "ipam.spidernet.io/ip-version": format!("IPv{version}"),
            "ipam.spidernet.io/owner-application-gv": "apps_v1",
            "ipam.spidernet.io/owner-application-kind": "Deployment",
            "ipam.spidernet.io/owner-application-name": "web",
            "ipam.spidernet.io/owner-application-namespace": "default",
            "ipam.spidernet.io/owner-application-uid": "ae2674eb-5f1b-4c74-b541-974f82a69288",
            "ipam.spidernet.io/owner-spider-subnet": owner,
        });
        let routes = if version == "4" {
            json!([{"dst": "10.50.0.0/16", "gw": "172.18.41.2"}])
        } else {
            Value::Null
        };
        let spec = json!({"subnet": subnet, "ips": [ip], "gateway": gateway, "routes": routes});
        let name = format!("auto{version}-web-eth0-d5597");
        world.put(
            "spiderippools",
            json!({"metadata": {"name": name, "labels": labels}, "spec": spec}),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_requests_get_the_recorded_answers() {
    let dir = temp();
    let exchanges = recorded();
    assert_eq!(exchanges.len(), 7);
    let node = Node::start(&recorded_world(&exchanges), dir.path()).await;
    for (number, (line, body, code, answer)) in exchanges.into_iter().enumerate() {
        if number == 5 {
            make_auto_pools(&node.world);
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let got = node
            .send(request(method, path, "application/json", &body))
            .await;
        let (status, mut said) = got;
        // The original's words come first; what to do may follow.
        if let (Some(text), Some(known)) = (said.as_str(), answer.as_str())
            && text.starts_with(&format!("{known}: "))
        {
            said = answer.clone();
        }
        let expected = (StatusCode::from_u16(code).unwrap(), answer);
        assert_eq!((status, said), expected, "exchange {number}: {line}");
    }
}

/// Whatever comes in as a body, the agent answers JSON with a status of the contract, and goes on.
#[tokio::test(start_paused = true)]
async fn any_body_gets_an_answer_of_the_contract() {
    let (node, _dir) = node().await;
    let mut runner = TestRunner::deterministic();
    let whole = json!({"containerID": "c", "ifName": "eth0", "netNamespace": "/n", "podName": "a",
        "podNamespace": "shop", "podUID": "u", "isReleaseConflictIPs": true,
        "conflicts": [{"address": "172.18.41.40", "ifName": "eth0", "ipPool": "p", "mac": "m"}]});
    let keys: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
    let values = [
        "null",
        "true",
        "7",
        "\"\"",
        "\"../../x\"",
        "\"\u{fffd}\"",
        "[]",
        "[{}]",
        "{}",
    ];
    let near = (
        prop::sample::select(keys),
        prop::sample::select(values.to_vec()),
    );
    let near = near.prop_map(move |(key, value)| {
        let mut body = whole.clone();
        body[key] = serde_json::from_str(value).unwrap();
        body.to_string().into_bytes()
    });
    let bodies = prop_oneof![2 => near, 1 => prop::collection::vec(any::<u8>(), 0..96)];
    let calls = [
        ("POST", "/v1/ipam/ip"),
        ("DELETE", "/v1/ipam/ip"),
        ("DELETE", "/v1/ipam/ips"),
        ("GET", "/v1/workloadendpoint?podName=a"),
    ];
    for _ in 0..256 {
        let body = bodies.new_tree(&mut runner).unwrap().current();
        for (method, path) in calls {
            let request = Request::builder().method(method).uri(path);
            let request = request.body(Body::from(body.clone())).unwrap();
            let (status, answer) = node.send(request).await;
            let known = [200, 400, 404, 422, 500, 521, 522].contains(&status.as_u16());
            assert!(known, "{method} {path}: {status} {answer}");
        }
    }
    assert!(
        node.world.calls("PUT").is_empty(),
        "nothing was given or taken"
    );
}
