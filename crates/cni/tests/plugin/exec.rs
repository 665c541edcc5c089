//! The real binary against an agent on a real socket.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{DUAL, SocketAgent, config, exchanges, http, printed, variables};

/// How long a test waits for something that takes a moment.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(variables: &[(&str, String)], stdin: &[u8]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiderpool"))
        .env_clear()
        .envs(variables.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child
}

fn call(command: &str, stdin: &str) -> Output {
    start(&variables(command), stdin.as_bytes())
        .wait_with_output()
        .unwrap()
}

/// Standard output of a call that must end with `code` and say nothing on
/// standard error.
fn stdout(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(output.stderr, b"", "{text}");
    text
}

fn parsed(output: &Output, code: i32) -> Value {
    serde_json::from_str(&stdout(output, code)).unwrap()
}

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    (dir, socket)
}

/// An agent that is healthy and answers everything else with `reply`.
fn agent(socket: &Path, reply: Vec<u8>) -> SocketAgent {
    SocketAgent::start(socket, move |request| {
        if request.line.contains("/ipam/healthy") {
            return Some(http("200 OK", ""));
        }
        Some(reply.clone())
    })
}

/// Waits until a file has a text in it.
fn wait_for(file: &Path, text: &str) {
    let begun = Instant::now();
    while !fs::read_to_string(file).is_ok_and(|seen| seen.contains(text)) {
        assert!(
            begun.elapsed() < PATIENCE,
            "no {text:?} in {}",
            file.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn results_have_the_form_of_their_version() {
    for (version, names_family) in [
        ("0.3.0", true),
        ("0.3.1", true),
        ("0.4.0", true),
        ("1.0.0", false),
        ("1.1.0", false),
    ] {
        let (_dir, socket) = place();
        let _agent = agent(&socket, http("200 OK", DUAL));
        let result = parsed(&call("ADD", &config(version, &socket, "")), 0);
        let mut ips = json!([
            {"address": "10.6.0.4/16", "gateway": "10.6.0.1"},
            {"address": "fd00::4/112"},
        ]);
        if names_family {
            ips[0]["version"] = "4".into();
            ips[1]["version"] = "6".into();
        }
        let expected = json!({
            "cniVersion": version,
            "ips": ips,
            "routes": [
                {"dst": "10.8.0.0/16", "gw": "10.6.0.2"},
                {"dst": "0.0.0.0/0", "gw": "10.6.0.1"},
            ],
            "dns": {},
        });
        assert_eq!(result, expected);
    }
}

#[test]
fn a_result_without_routes_leaves_them_out_and_resolver_settings_pass_through() {
    let (_dir, socket) = place();
    let reply = r#"{"ips":[{"address":"10.6.0.4/16","nic":"eth0","version":4}],"routes":null,
                    "dns":{"nameservers":["10.6.0.2"],"domain":""}}"#;
    let _agent = agent(&socket, http("200 OK", reply));
    let result = parsed(&call("ADD", &config("1.0.0", &socket, "")), 0);
    let expected = json!({
        "cniVersion": "1.0.0",
        "ips": [{"address": "10.6.0.4/16"}],
        "dns": {"nameservers": ["10.6.0.2"]},
    });
    assert_eq!(result, expected);
}

#[test]
fn the_recorded_replies_are_understood_as_they_were_on_the_wire() {
    for exchange in exchanges()
        .into_iter()
        .filter(|e| e.request.line.starts_with("POST"))
    {
        let (_dir, socket) = place();
        let _agent = agent(&socket, exchange.reply.clone());
        let code = i32::from(exchange.status != 200);
        let output = parsed(&call("ADD", &config("0.4.0", &socket, "")), code);
        let text: Value = serde_json::from_str(&exchange.reply_body).unwrap();
        if let Value::String(refusal) = text {
            let msg = output["msg"].as_str().unwrap();
            assert!(msg.ends_with(&refusal), "{msg}");
        } else {
            assert_eq!(output["ips"][0]["address"], text["ips"][0]["address"]);
        }
    }
}

#[test]
fn requests_carry_the_configuration_and_close_their_connection() {
    let (_dir, socket) = place();
    let agent = agent(&socket, http("200 OK", DUAL));
    let ipam = r#","default_ipv4_ippool":["a","b*"],"default_ipv6_ippool":["c"],
                  "clean_gateway":true,"match_master_subnet":true,"log_file_max_size":"5""#;
    stdout(&call("ADD", &config("1.0.0", &socket, ipam)), 0);
    let seen = agent.seen();
    let lines: Vec<_> = seen.iter().map(|s| s.line.as_str()).collect();
    assert_eq!(
        lines,
        ["GET /v1/ipam/healthy HTTP/1.1", "POST /v1/ipam/ip HTTP/1.1"]
    );
    for request in &seen {
        for header in [
            "Host: localhost",
            "Accept: application/json",
            "Connection: close",
        ] {
            assert!(
                request.headers.iter().any(|h| h == header),
                "{header} in {request:?}"
            );
        }
    }
    assert!(
        seen[1]
            .headers
            .contains(&"Content-Type: application/json".to_owned())
    );
    assert_eq!(
        serde_json::from_str::<Value>(&seen[1].body).unwrap(),
        json!({
            "cleanGateway": true,
            "containerID": "c1",
            "defaultIPv4IPPool": ["a", "b*"],
            "defaultIPv6IPPool": ["c"],
            "ifName": "eth0",
            "matchMasterSubnet": true,
            "netNamespace": "/proc/self/ns/net",
            "podName": "web-0",
            "podNamespace": "default",
            "podUID": "uid-1",
        })
    );
}

#[test]
fn a_release_is_handed_over_and_says_nothing() {
    let (_dir, socket) = place();
    let agent = agent(&socket, http("200 OK", ""));
    let mut vars = variables("DEL");
    vars.retain(|(name, _)| *name != "CNI_NETNS");
    let stdin = config("1.0.0", &socket, "");
    let output = start(&vars, stdin.as_bytes()).wait_with_output().unwrap();
    assert_eq!(stdout(&output, 0), "");
    let seen = agent.seen();
    assert_eq!(seen[1].line, "DELETE /v1/ipam/ip HTTP/1.1");
    assert_eq!(
        seen[1].body.trim_end(),
        r#"{"containerID":"c1","ifName":"eth0","podName":"web-0","podNamespace":"default","podUID":"uid-1"}"#
    );
}

#[test]
fn an_agent_that_is_not_there_is_reported_at_once_in_the_recorded_words() {
    let theirs: Value = serde_json::from_str(printed("ADD, agent not there")).unwrap();
    let begun = Instant::now();
    let (dir, _) = place();
    let socket = dir.path().join("none/agent.sock");
    let ours = parsed(&call("ADD", &config("1.0.0", &socket, "")), 1);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "no directory, nothing to wait for"
    );
    let path = socket.to_str().unwrap();
    let expected = theirs["msg"]
        .as_str()
        .unwrap()
        .replace("%2Frun%2Fnone.sock", &path.replace('/', "%2F"))
        .replace("/run/none.sock", path);
    assert_eq!(
        ours,
        json!({"cniVersion": "1.0.0", "code": theirs["code"], "msg": expected})
    );
}

#[test]
fn a_call_waits_for_an_agent_that_is_not_up_yet() {
    let (dir, socket) = place();
    let log = dir.path().join("plugin.log");
    let ipam = format!(r#","log_file_path":"{}""#, log.display());
    let stdin = config("1.0.0", &socket, &ipam);
    let child = start(&variables("ADD"), stdin.as_bytes());
    wait_for(&log, "waiting for the agent");
    let agent = agent(&socket, http("200 OK", DUAL));
    let output = child.wait_with_output().unwrap();
    assert_eq!(parsed(&output, 0)["ips"][0]["address"], "10.6.0.4/16");
    assert_eq!(agent.seen().len(), 2);
    let lines = fs::read_to_string(&log).unwrap();
    let context = "ADD pod=default/web-0 nic=eth0 sandbox=c1: ";
    assert!(lines.lines().all(|line| line.contains(context)), "{lines}");
    assert!(lines.contains(" INFO ") && lines.contains("allocated 10.6.0.4/16,fd00::4/112"));
}

#[test]
fn a_call_outlasts_an_agent_that_restarts_under_it() {
    let (_dir, socket) = place();
    let mut posts = 0;
    let agent = SocketAgent::start(&socket, move |request| {
        if request.line.starts_with("POST") {
            posts += 1;
            return (posts > 2).then(|| http("200 OK", DUAL));
        }
        Some(http("200 OK", ""))
    });
    let result = parsed(&call("ADD", &config("1.0.0", &socket, "")), 0);
    assert_eq!(result["ips"][0]["address"], "10.6.0.4/16");
    let seen = agent.seen();
    assert_eq!(seen.len(), 4);
    assert!(
        seen[1..].iter().all(|request| request == &seen[1]),
        "the same request: {seen:?}"
    );
}

#[test]
fn check_asks_what_the_pod_holds() {
    let (_dir, socket) = place();
    let endpoint = r#"{"interfaces":[{"interface":"eth0","ipv4":"10.6.0.4/16","ipv6":"fd00::4/112"}],
                       "node":"n","podName":"web-0","podNamespace":"default","podUID":"uid-1"}"#;
    let agent = agent(&socket, http("200 OK", endpoint));
    let stdin = |address: &str| {
        let previous = format!(r#"{{"prevResult":{{"ips":[{{"address":"{address}"}}]}},"#);
        config("1.0.0", &socket, "").replacen('{', &previous, 1)
    };
    assert_eq!(stdout(&call("CHECK", &stdin("10.6.0.4/16")), 0), "");
    assert_eq!(stdout(&call("CHECK", &stdin("fd00:0::4/112")), 0), "");
    assert_eq!(
        agent.seen()[0].line,
        "GET /v1/workloadendpoint?podName=web-0&podNamespace=default HTTP/1.1"
    );
    let error = parsed(&call("CHECK", &stdin("10.6.0.5/16")), 1);
    assert_eq!(
        error["msg"],
        "spiderpool IP check error: address 10.6.0.5/16 of the previous result is not recorded \
         for Pod default/web-0"
    );
    let asked = agent.seen().len();
    assert_eq!(stdout(&call("CHECK", &config("1.0.0", &socket, "")), 0), "");
    assert_eq!(
        agent.seen().len(),
        asked,
        "nothing to compare, nothing asked"
    );
}

#[test]
fn status_says_whether_the_agent_serves() {
    let (_dir, socket) = place();
    let stdin = config("1.1.0", &socket, "");
    let vars = [("CNI_COMMAND", "STATUS".to_owned())];
    let status = || start(&vars, stdin.as_bytes()).wait_with_output().unwrap();
    let error = parsed(&status(), 1);
    assert_eq!(
        (&error["code"], &error["cniVersion"]),
        (&json!(50), &json!("1.1.0"))
    );
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .starts_with("unhealthy spiderpool-agent backend")
    );
    let _agent = agent(&socket, http("200 OK", ""));
    assert_eq!(stdout(&status(), 0), "");
}

#[test]
fn gc_succeeds_and_asks_nothing_of_the_agent() {
    let (_dir, socket) = place();
    let agent = agent(&socket, http("200 OK", ""));
    let attachments = r#"{"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],"#;
    let stdin = config("1.1.0", &socket, "").replacen('{', attachments, 1);
    let vars = [
        ("CNI_COMMAND", "GC".to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
    ];
    let output = start(&vars, stdin.as_bytes()).wait_with_output().unwrap();
    assert_eq!(stdout(&output, 0), "");
    assert_eq!(agent.seen(), []);
}

#[test]
fn version_needs_nothing_but_the_command() {
    let vars = [("CNI_COMMAND", "VERSION".to_owned())];
    let output = start(&vars, b"").wait_with_output().unwrap();
    assert_eq!(
        stdout(&output, 0),
        "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"
    );
}

#[test]
fn a_plain_file_is_no_network_namespace() {
    let (dir, socket) = place();
    let file = dir.path().join("netns.json");
    fs::write(&file, "{}").unwrap();
    let mut vars = variables("ADD");
    vars.push(("CNI_NETNS", file.to_str().unwrap().to_owned()));
    let stdin = config("1.0.0", &socket, "");
    let output = start(&vars, stdin.as_bytes()).wait_with_output().unwrap();
    let file = file.display();
    assert_eq!(
        parsed(&output, 1)["msg"],
        format!("failed to GetNS \"{file}\" for pod: \"{file}\" is not a network namespace")
    );
}

#[test]
fn a_log_that_cannot_be_written_fails_nothing() {
    let (_dir, socket) = place();
    let _agent = agent(&socket, http("200 OK", DUAL));
    let stdin = config("1.0.0", &socket, "").replace("/dev/null", "/proc/none/plugin.log");
    stdout(&call("ADD", &stdin), 0);
}

#[test]
fn a_reply_that_is_not_http_fails_the_call_at_once() {
    let (_dir, socket) = place();
    let agent = agent(&socket, b"SSH-2.0-dropbear\r\n".to_vec());
    let msg = parsed(&call("ADD", &config("1.0.0", &socket, "")), 1)["msg"].clone();
    let msg = msg.as_str().unwrap();
    assert!(
        msg.starts_with("spiderpool IP allocation error: Post \"http://"),
        "{msg}"
    );
    assert!(msg.contains("malformed HTTP response"), "{msg}");
    assert_eq!(agent.seen().len(), 2);
}
