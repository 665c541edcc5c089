//! Addresses that others have and gateways that are silent.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use cni::plugin::{Mac, Outcome, run};
use serde_json::{Value, json};

use crate::network::{Network, answer, probe};
use crate::support::{Answer, FakeAgent, FakeHost, config, invocation, ok};

const HEALTH: &str = "GET /v1/ipam/healthy";
const POST: &str = "POST /v1/ipam/ip";
const CONFLICT: &str = "DELETE /v1/ipam/ips";
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const GATEWAY: &str = "10.6.0.1";

/// A reply with one address for eth0; `flags` of `cg` say what is to be looked into.
fn given(address: &str, flags: &str) -> Answer {
    let gateway = if address.contains(':') {
        "fd00::1"
    } else {
        GATEWAY
    };
    let mut ip = json!({
        "address": address, "gateway": gateway, "ipPool": "p", "nic": "eth0",
        "version": if address.contains(':') { 6 } else { 4 },
    });
    if flags.contains('c') {
        ip["enableIPConflictDetection"] = json!(true);
    }
    if flags.contains('g') {
        ip["enableGatewayDetection"] = json!(true);
    }
    let elsewhere = json!({
        "address": "10.7.0.9/16", "nic": "net1", "version": 4, "enableIPConflictDetection": true,
    });
    ok(&json!({"ips": [ip, elsewhere], "routes": null}).to_string())
}

fn host(on: &[(&str, Mac)]) -> (FakeHost, Rc<RefCell<Network>>) {
    let hosts = on.iter().map(|(ip, mac)| (ip.parse().unwrap(), *mac));
    let network = Rc::new(RefCell::new(Network {
        hosts: hosts.collect(),
        ..Network::default()
    }));
    let host = FakeHost {
        network: Some(Rc::clone(&network)),
        ..FakeHost::default()
    };
    (host, network)
}

fn add(host: &FakeHost, agent: &FakeAgent) -> Outcome {
    let stdin = config("1.0.0", Path::new("/run/agent.sock"), "");
    run(&invocation("ADD", &stdin), host, agent)
}

fn message(outcome: &Outcome) -> String {
    assert!(!outcome.succeeded, "{}", outcome.stdout);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
    error["msg"].as_str().unwrap().to_owned()
}

fn address(outcome: &Outcome) -> String {
    assert!(outcome.succeeded, "{}", outcome.stdout);
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_that_nobody_has_is_asked_for_three_times_announced_and_used() {
    for own in ["10.6.0.4", "fd00::4"] {
        let (host, network) = host(&[]);
        let agent = FakeAgent::new([ok(""), given(&format!("{own}/24"), "c")]);
        assert_eq!(address(&add(&host, &agent)), format!("{own}/24"));
        assert_eq!(host.now.get(), Duration::from_millis(300));
        let network = network.borrow();
        assert_eq!(network.asked, vec![(ip(own), false); 3], "as a probe");
        assert_eq!(network.announced, [ip(own)], "and of no other interface");
    }
}

#[test]
fn an_address_in_conflict_is_reported_and_the_pod_gets_another() {
    for (taken, free) in [("10.6.0.4", "10.6.0.5"), ("fd00::4", "fd00::5")] {
        let (host, network) = host(&[(taken, OTHER)]);
        let agent = FakeAgent::new([
            ok(""),
            given(&format!("{taken}/24"), "c"),
            ok(""),
            given(&format!("{free}/24"), "c"),
        ]);
        assert_eq!(address(&add(&host, &agent)), format!("{free}/24"));
        assert_eq!(agent.calls(), [HEALTH, POST, CONFLICT, POST]);
        let seen = agent.seen.borrow();
        let body: Value = serde_json::from_slice(seen[2].body.as_ref().unwrap()).unwrap();
        let expected = json!({
            "conflicts": [{"address": taken, "ifName": "eth0", "ipPool": "p", "mac": "02:00:00:00:00:09"}],
            "containerID": "c1", "isReleaseConflictIPs": true, "netNamespace": "/proc/self/ns/net",
            "podName": "web-0", "podNamespace": "default", "podUID": "uid-1",
        });
        assert_eq!(body, expected);
        assert_eq!(network.borrow().announced, [ip(free)]);
    }
}

#[test]
fn a_host_that_answers_the_third_time_is_heard() {
    let (host, network) = host(&[("10.6.0.4", OTHER)]);
    network.borrow_mut().lossy = 2;
    let agent = FakeAgent::new([
        ok(""),
        given("10.6.0.4/24", "c"),
        ok(""),
        given("10.6.0.5/24", "c"),
    ]);
    assert_eq!(address(&add(&host, &agent)), "10.6.0.5/24");
}

#[test]
fn another_host_s_probe_is_a_conflict_and_other_talk_is_not() {
    let (host, network) = host(&[]);
    network.borrow_mut().noise = [
        answer(ip("10.6.0.99"), OTHER),
        vec![0; 60],
        probe([10, 6, 0, 4], OTHER),
    ]
    .into();
    let agent = FakeAgent::new([
        ok(""),
        given("10.6.0.4/24", "c"),
        ok(""),
        given("10.6.0.5/24", "c"),
    ]);
    assert_eq!(address(&add(&host, &agent)), "10.6.0.5/24");
    assert_eq!(agent.calls(), [HEALTH, POST, CONFLICT, POST]);
}

#[test]
fn a_refusal_to_take_the_address_back_is_told_behind_the_conflict() {
    let (host, _) = host(&[("10.6.0.4", OTHER)]);
    let refusal = "\"forbid releasing IPs for stateful workload \"";
    let agent = FakeAgent::new([
        ok(""),
        given("10.6.0.4/24", "c"),
        Answer::Reply(522, refusal.to_owned()),
    ]);
    assert_eq!(
        message(&add(&host, &agent)),
        "ip conflict: pod's interface eth0 with an conflicting ip 10.6.0.4, 10.6.0.4 is located at \
         02:00:00:00:00:09; [DELETE /ipam/ips][522] deleteIpamIpsStatus522  forbid releasing IPs for \
         stateful workload "
    );
    assert_eq!(agent.calls(), [HEALTH, POST, CONFLICT]);
}

#[test]
fn an_agent_that_gives_the_same_address_again_is_not_asked_for_ever() {
    let (host, _) = host(&[("10.6.0.4", OTHER)]);
    let same = || given("10.6.0.4/24", "c");
    let agent = FakeAgent::new([ok(""), same(), ok(""), same(), ok("")]);
    assert_eq!(
        message(&add(&host, &agent)),
        "ip conflict: pod's interface eth0 with an conflicting ip 10.6.0.4, 10.6.0.4 is located at \
         02:00:00:00:00:09"
    );
    assert_eq!(agent.calls(), [HEALTH, POST, CONFLICT, POST, CONFLICT]);
}

#[test]
fn a_network_where_everything_is_taken_ends_the_call() {
    let all: Vec<String> = (4..20).map(|n| format!("10.6.0.{n}")).collect();
    let taken: Vec<(&str, Mac)> = all.iter().map(|ip| (ip.as_str(), OTHER)).collect();
    let (host, _) = host(&taken);
    let turns = all
        .iter()
        .flat_map(|ip| [given(&format!("{ip}/24"), "c"), ok("")]);
    let agent = FakeAgent::new([ok("")].into_iter().chain(turns));
    let text = message(&add(&host, &agent));
    assert!(text.contains("10.6.0.9 is located at"), "{text}");
    assert_eq!(agent.calls().len(), 1 + 2 * 6);
}

#[test]
fn a_gateway_is_asked_by_the_address_that_is_to_use_it() {
    for (own, gateway) in [("10.6.0.4", GATEWAY), ("fd00::4", "fd00::1")] {
        let (host, network) = host(&[(gateway, OTHER)]);
        let agent = FakeAgent::new([ok(""), given(&format!("{own}/24"), "g")]);
        address(&add(&host, &agent));
        assert_eq!(
            network.borrow().asked,
            [(ip(gateway), true)],
            "once will do"
        );
        assert_eq!(host.now.get(), Duration::ZERO);
    }
}

#[test]
fn a_silent_gateway_fails_the_call_and_nothing_is_given_back() {
    let (host, network) = host(&[]);
    let agent = FakeAgent::new([ok(""), given("10.6.0.4/24", "cg")]);
    let text = message(&add(&host, &agent));
    let expected = "gateway 10.6.0.1 is unreachable: nothing answered for it on the network of \
                    interface eth0; mend the gateway of IPPool p, or the network between";
    assert_eq!(text, expected);
    assert_eq!(agent.calls(), [HEALTH, POST]);
    let mut asked = vec![(ip("10.6.0.4"), false); 3];
    asked.extend([(ip(GATEWAY), true); 3]);
    assert_eq!(network.borrow().asked, asked, "conflict, then gateway");
    assert!(network.borrow().announced.is_empty());
}

#[test]
fn without_flags_the_interface_is_left_alone() {
    let (host, network) = host(&[("10.6.0.4", OTHER)]);
    let agent = FakeAgent::new([ok(""), given("10.6.0.4/24", "")]);
    assert_eq!(address(&add(&host, &agent)), "10.6.0.4/24");
    let network = network.borrow();
    assert!(network.asked.is_empty() && network.announced.is_empty());
}

#[test]
fn where_there_is_no_interface_yet_the_log_says_that_nobody_was_asked() {
    let host = FakeHost::default();
    let agent = FakeAgent::new([ok(""), given("10.6.0.4/24", "cg")]);
    assert_eq!(address(&add(&host, &agent)), "10.6.0.4/24");
    let lines = host.lines.borrow();
    let warned = lines.iter().find(|line| line.starts_with("WARN")).unwrap();
    let expected = "conflict and gateway detection are asked for, but not done for 10.6.0.4: \
                    there is no interface eth0 yet: the main plugin makes it after IPAM";
    assert!(warned.ends_with(expected), "{warned}");
}
