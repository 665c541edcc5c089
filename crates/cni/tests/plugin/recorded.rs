//! The original's exchanges, replayed: our plugin asks the same of the
//! original's agent and says the same to the runtime.

use std::path::Path;

use cni::plugin::{Invocation, Outcome, run};
use cni::{
    IpamAddArgs, IpamAddResponse, IpamDelArgs, Operation, WorkloadEndpointStatus, error_body,
    parse_body,
};
use serde_json::Value;

use crate::support::{Answer, Exchange, FakeAgent, FakeHost, exchanges, ok, printed};

fn golden(line: &str, status: u16) -> Vec<Exchange> {
    let all = exchanges();
    assert_eq!(all.len(), 7, "the golden file is read whole");
    all.into_iter()
        .filter(|e| e.request.line.starts_with(line) && e.status == status)
        .collect()
}

/// The call that made the original's plugin send a recorded request.
fn invocation(command: &str, version: &str, exchange: &Exchange) -> Invocation {
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};\
         K8S_POD_UID={}",
        exchange.field("podNamespace"),
        exchange.field("podName"),
        exchange.field("containerID"),
        exchange.field("podUID"),
    );
    let env = [
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", exchange.field("containerID")),
        ("CNI_NETNS", exchange.field("netNamespace")),
        ("CNI_IFNAME", exchange.field("ifName")),
        ("CNI_ARGS", args),
    ];
    let stdin = format!(
        r#"{{"cniVersion":"{version}","name":"macvlan-cni-default","type":"macvlan","master":"e2e0","ipam":{{"type":"spiderpool"}}}}"#
    );
    Invocation {
        env: env.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
        stdin: stdin.into_bytes(),
    }
}

/// Replays a recorded exchange after the recorded health check.
fn replay(command: &str, version: &str, exchange: &Exchange) -> (Outcome, FakeAgent) {
    let reply = Answer::Reply(exchange.status, exchange.reply_body.clone());
    let agent = FakeAgent::new([ok(""), reply]);
    let outcome = run(
        &invocation(command, version, exchange),
        &FakeHost::default(),
        &agent,
    );
    (outcome, agent)
}

/// A body as the original writes it.
fn line<T: serde::Serialize>(value: &T) -> String {
    format!("{}\n", serde_json::to_string(value).unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn our_requests_are_those_of_the_original_to_the_byte() {
    for exchange in exchanges() {
        let command = match exchange.request.line.as_str() {
            "POST /v1/ipam/ip HTTP/1.1" => "ADD",
            "DELETE /v1/ipam/ip HTTP/1.1" => "DEL",
            _ => continue,
        };
        let (_, agent) = replay(command, "0.4.0", &exchange);
        let seen = agent.seen.borrow();
        let [health, request] = seen.as_slice() else {
            panic!("{seen:?}")
        };
        assert_eq!(
            (health.method.as_str(), health.target.as_str()),
            ("GET", "/v1/ipam/healthy")
        );
        assert_eq!(health.body, None);
        assert_eq!(
            format!("{} {} HTTP/1.1", request.method, request.target),
            exchange.request.line
        );
        let body = String::from_utf8(request.body.clone().unwrap()).unwrap();
        assert_eq!(body, exchange.request.body);
    }
}

#[test]
fn recorded_bodies_go_through_our_types_and_come_out_the_same() {
    let mut bodies = 0;
    for exchange in exchanges() {
        let Exchange {
            request,
            status,
            reply_body,
            ..
        } = &exchange;
        let sent = request.body.as_bytes();
        match request.line.as_str() {
            "POST /v1/ipam/ip HTTP/1.1" => {
                let args: IpamAddArgs = parse_body(sent).unwrap();
                assert_eq!(line(&args), request.body);
            }
            "DELETE /v1/ipam/ip HTTP/1.1" => {
                let args: IpamDelArgs = parse_body(sent).unwrap();
                assert_eq!(line(&args), request.body);
            }
            other => assert_eq!(other, "GET /v1/ipam/healthy HTTP/1.1"),
        }
        bodies += 1;
        if *status == 500 {
            let text: String = serde_json::from_str(reply_body).unwrap();
            assert_eq!(&error_body(&text), reply_body);
        } else if !reply_body.is_empty() {
            let reply: IpamAddResponse = serde_json::from_str(reply_body).unwrap();
            // The original writes `gw` before `ifName` in a route, as we do,
            // and everything else in alphabetical order.
            assert_eq!(line(&reply), *reply_body);
        }
    }
    assert_eq!(bodies, 7);
}

/// The recorded reply to the dual-stack Pod, its routes in the order in which
/// the original's agent repeats them to a later ADD of the same Pod, which is
/// what `plugin.txt` was recorded with.
fn dual_stack_repeated() -> Exchange {
    let mut exchange = golden("POST", 200)
        .into_iter()
        .find(|e| e.reply_body.contains("fd00:41::60"))
        .unwrap();
    let mut reply: IpamAddResponse = serde_json::from_str(&exchange.reply_body).unwrap();
    reply.routes.as_mut().unwrap().rotate_left(1);
    exchange.reply_body = serde_json::to_string(&reply).unwrap();
    exchange
}

#[test]
fn a_result_of_1_0_0_is_that_of_the_original_to_the_byte() {
    let (outcome, _) = replay("ADD", "1.0.0", &dual_stack_repeated());
    assert!(outcome.succeeded);
    assert_eq!(
        outcome.stdout,
        printed("ADD, dual-stack Pod of Deployment web, cniVersion 1.0.0")
    );
}

#[test]
fn older_results_are_those_of_the_original_and_name_the_family_too() {
    for version in ["0.3.1", "0.4.0"] {
        let (outcome, _) = replay("ADD", version, &dual_stack_repeated());
        let mut ours = json(&outcome.stdout);
        let mut families = Vec::new();
        for ip in ours.get_mut("ips").and_then(Value::as_array_mut).unwrap() {
            families.push(ip.as_object_mut().unwrap().remove("version").unwrap());
        }
        assert_eq!(families, ["4", "6"]);
        let case = format!("ADD, dual-stack Pod of Deployment web, cniVersion {version}");
        assert_eq!(ours, json(printed(&case)));
    }
}

#[test]
fn refusals_are_told_in_the_words_of_the_original() {
    for (pod, case) in [
        (
            "wrong-static-ippool-deploy-68b877bcc-qk2wv",
            "ADD refused: wrong-static-ippool-deploy",
        ),
        ("nosuch", "ADD, unknown Pod"),
    ] {
        let recorded = golden("POST", 500);
        let exchange = recorded.iter().find(|e| e.field("podName") == pod).unwrap();
        let (outcome, _) = replay("ADD", "0.4.0", exchange);
        assert!(!outcome.succeeded);
        let mut ours = json(&outcome.stdout);
        let version = ours.as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(version, Some("0.4.0".into()), "the specification wants it");
        assert_eq!(ours, json(printed(case)));
    }
}

#[test]
fn a_release_is_as_silent_as_the_originals() {
    let recorded = golden("DELETE", 200);
    let (outcome, _) = replay("DEL", "0.4.0", recorded.first().unwrap());
    assert_eq!(
        outcome,
        Outcome {
            stdout: String::new(),
            succeeded: true
        }
    );
    assert_eq!(printed("DEL of a living Pod (releases nothing)"), "");
    assert_eq!(printed("CHECK"), "");
}

#[test]
fn versions_are_those_of_the_original_and_1_1_0() {
    let theirs = json(printed("VERSION"));
    let stdin = br#"{"cniVersion":"1.0.0"}"#.to_vec();
    let env = [("CNI_COMMAND".into(), "VERSION".into())].into();
    let agent = FakeAgent::new([]);
    let ours = run(&Invocation { env, stdin }, &FakeHost::default(), &agent);
    let mut ours = json(&ours.stdout);
    let supported = ours
        .get_mut("supportedVersions")
        .and_then(Value::as_array_mut)
        .unwrap();
    assert_eq!(supported.pop(), Some("1.1.0".into()));
    assert_eq!(ours, theirs);
}

#[test]
fn an_endpoint_as_the_contract_describes_it_reads_and_writes() {
    let text = r#"{"interfaces":[{"interface":"eth0","ipv4":"10.6.0.4/16","ipv4Gateway":"10.6.0.1","ipv4Pool":"p4","mac":"0a:1b:2c:3d:4e:5f","vlan":7}],"node":"n","podName":"web-0","podNamespace":"shop","podUID":"u"}"#;
    let endpoint: WorkloadEndpointStatus = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&endpoint).unwrap(), text);
    assert_eq!(
        Operation::GetWorkloadendpoint.full_path(),
        "/v1/workloadendpoint"
    );
    assert_eq!(
        Path::new(cni::DEFAULT_SOCKET).file_name().unwrap(),
        "spiderpool.sock"
    );
}
