//! Every text and code a runtime may be told, each as it is printed.

use std::path::Path;

use cni::plugin::{Invocation, run};
use serde_json::{Value, json};

use crate::support::{Answer, DUAL, FakeAgent, FakeHost, config, invocation, ok};

const SOCKET: &str = "/run/agent.sock";

fn conf() -> String {
    config("1.0.0", Path::new(SOCKET), "")
}

fn fails(invocation: &Invocation, answers: impl IntoIterator<Item = Answer>) -> Value {
    let outcome = run(invocation, &FakeHost::default(), &FakeAgent::new(answers));
    assert!(!outcome.succeeded, "{}", outcome.stdout);
    assert!(
        outcome.stdout.starts_with("{\n    \""),
        "printed as the original does"
    );
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// Code and text of an error whose version is 1.0.0.
fn error(invocation: &Invocation, answers: impl IntoIterator<Item = Answer>) -> (u64, String) {
    let error = fails(invocation, answers);
    assert_eq!(error["cniVersion"], "1.0.0");
    (
        error["code"].as_u64().unwrap(),
        error["msg"].as_str().unwrap().to_owned(),
    )
}

fn without(invocation: &Invocation, names: &[&str]) -> Invocation {
    let mut invocation = invocation.clone();
    invocation
        .env
        .retain(|name, _| !names.iter().any(|n| name == n));
    invocation
}

fn with(invocation: &Invocation, name: &str, value: &str) -> Invocation {
    let mut invocation = invocation.clone();
    invocation.env.insert(name.into(), value.into());
    invocation
}

fn msg(code: u64, text: &str) -> (u64, String) {
    (code, text.to_owned())
}

#[test]
fn wrong_environments() {
    let add = invocation("ADD", &conf());
    assert_eq!(
        error(&without(&add, &["CNI_COMMAND"]), []),
        msg(4, "required env variables [CNI_COMMAND] missing")
    );
    assert_eq!(
        error(
            &without(&add, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
            []
        ),
        msg(
            4,
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing"
        )
    );
    assert_eq!(
        error(&with(&add, "CNI_COMMAND", "add"), []),
        msg(4, "unknown CNI_COMMAND: add")
    );
    assert_eq!(
        error(&with(&add, "CNI_CONTAINERID", "../c"), []),
        msg(
            4,
            "CNI_CONTAINERID \"../c\" must be letters, digits, '_', '.' and '-', the first a \
             letter or digit"
        )
    );
    assert_eq!(
        error(&with(&add, "CNI_IFNAME", "a/b"), []),
        msg(
            4,
            "CNI_IFNAME \"a/b\" must have at most 15 bytes, none of them '/', ':' or a blank"
        )
    );
    assert_eq!(
        error(&with(&add, "CNI_ARGS", "K8S_POD_NAME"), []),
        msg(4, "CNI_ARGS: \"K8S_POD_NAME\" is not KEY=VALUE")
    );
    assert_eq!(
        error(&with(&add, "CNI_ARGS", "FOO=1"), []),
        msg(
            4,
            "CNI_ARGS: unknown key \"FOO\", set IgnoreUnknown=1 to pass it over"
        )
    );
    assert_eq!(
        error(&without(&add, &["CNI_ARGS"]), []),
        msg(
            4,
            "CNI_ARGS must have K8S_POD_NAMESPACE and K8S_POD_NAME: addresses are given to Pods \
             only"
        )
    );
}

#[test]
fn wrong_configurations() {
    let bad = fails(&invocation("ADD", "{\"cniVersion\":"), []);
    assert_eq!(
        bad,
        json!({"code": 6, "msg": "failed to load CNI network configuration: failed to parse CNI \
               network configuration: EOF while parsing a value at line 1 column 14"})
    );
    let old = fails(
        &invocation("ADD", r#"{"cniVersion":"0.2.0","ipam":{}}"#),
        [],
    );
    assert_eq!(
        old,
        json!({"code": 1, "msg": "failed to load CNI network configuration: unsupported \
               specified CNI version 0.2.0, the CNI versions supported by Spiderpool: [0.3.0 \
               0.3.1 0.4.0 1.0.0 1.1.0]"})
    );
    let typed = config("1.0.0", Path::new(SOCKET), r#","clean_gateway":"yes""#);
    let (code, text) = error(&invocation("ADD", &typed), []);
    assert_eq!(code, 6);
    assert!(
        text.starts_with(
            "failed to load CNI network configuration: failed to parse CNI network \
             configuration: invalid type: string \"yes\", expected a boolean"
        ),
        "{text}"
    );
    let loud = config("1.0.0", Path::new(SOCKET), r#","log_level":"loud""#);
    assert_eq!(
        error(&invocation("DEL", &loud), []),
        msg(
            7,
            "failed to setup file logging: unsupported log level loud"
        )
    );
}

#[test]
fn a_missing_network_namespace() {
    let add = with(&invocation("ADD", &conf()), "CNI_NETNS", "/none/ns");
    assert_eq!(
        error(&add, []),
        msg(
            999,
            "failed to GetNS \"/none/ns\" for pod: failed to Statfs \"/none/ns\": no such file \
             or directory"
        )
    );
}

#[test]
fn agents_that_cannot_be_reached() {
    let add = invocation("ADD", &conf());
    let url = "http://%2Frun%2Fagent.sock/v1";
    let unhealthy = "unhealthy spiderpool-agent backend, failed to check";
    for (answer, tail) in [
        (
            Answer::NoDirectory,
            "dial unix /run/agent.sock: connect: no such file or directory",
        ),
        (
            Answer::Refused,
            "dial unix /run/agent.sock: connect: connection refused",
        ),
        (Answer::Timeout, "context deadline exceeded"),
        (Answer::Closed, "EOF"),
        (
            Answer::Reset,
            "read unix @->/run/agent.sock: read: connection reset by peer",
        ),
    ] {
        let health = format!("{unhealthy}: Get \"{url}/ipam/healthy\": {tail}");
        assert_eq!(error(&add, [answer.clone()]), (999, health.clone()));
        assert_eq!(
            error(&invocation("DEL", &conf()), [answer.clone()]),
            (999, health.clone())
        );
        assert_eq!(
            error(&invocation("STATUS", &conf()), [answer.clone()]),
            (50, health)
        );
        let post = format!("spiderpool IP allocation error: Post \"{url}/ipam/ip\": {tail}");
        assert_eq!(error(&add, [ok(""), answer.clone()]), (999, post));
        let delete = format!("spiderpool IP release error: Delete \"{url}/ipam/ip\": {tail}");
        assert_eq!(
            error(&invocation("DEL", &conf()), [ok(""), answer]),
            (999, delete)
        );
    }
}

#[test]
fn agents_that_say_no() {
    let no = Answer::Reply(500, "\"no <room> in \\\"p\\\"\"\n".into());
    let add = invocation("ADD", &conf());
    assert_eq!(
        error(&add, [ok(""), no.clone()]),
        msg(
            999,
            "spiderpool IP allocation error: [POST /ipam/ip][500] postIpamIpFailure  no <room> \
             in \"p\""
        )
    );
    assert_eq!(
        error(&invocation("DEL", &conf()), [ok(""), no]),
        msg(
            999,
            "spiderpool IP release error: [DELETE /ipam/ip][500] deleteIpamIpFailure  no <room> \
             in \"p\""
        )
    );
    assert_eq!(
        error(&add, [Answer::Reply(500, String::new())]),
        msg(
            999,
            "unhealthy spiderpool-agent backend, failed to check: [GET /ipam/healthy][500] \
             getIpamHealthyInternalServerError "
        )
    );
}

#[test]
fn a_status_nobody_declared_keeps_the_originals_text_and_gives_the_reason_as_details() {
    let body = r#"{"code":602,"message":"podUID in body is required"}"#;
    let error = fails(
        &invocation("ADD", &conf()),
        [ok(""), Answer::Reply(422, body.into())],
    );
    assert_eq!(
        error,
        json!({
            "cniVersion": "1.0.0",
            "code": 999,
            "msg": "spiderpool IP allocation error: response status code does not match any \
                    response statuses defined for this endpoint in the swagger spec (status \
                    422): {}",
            "details": "podUID in body is required",
        })
    );
}

#[test]
fn replies_that_make_no_result() {
    let add = invocation("ADD", &conf());
    let with_reply = |body: &str| error(&add, [ok(""), ok(body)]);
    assert_eq!(
        with_reply(r#"{"ips":null,"routes":null}"#),
        msg(
            999,
            "spiderpool IP allocation error: validation failure list:\nips in body is required"
        )
    );
    let nobody = msg(
        999,
        "spiderpool IP allocation error: no Interface eth0 IP allocation found",
    );
    assert_eq!(with_reply(r#"{"ips":[],"routes":null}"#), nobody);
    assert_eq!(
        with_reply(&DUAL.replace("\"nic\":\"eth0\"", "\"nic\":\"net2\"")),
        nobody
    );
    assert_eq!(
        with_reply(&DUAL.replace("10.6.0.4/16", "10.6.0.4")),
        msg(
            999,
            "spiderpool IP allocation error: address \"10.6.0.4\" of the agent's reply is not \
             an IPv4 address with a prefix length"
        )
    );
    for bad in ["", "{", "\"text\"", r#"{"ips":[{"nic":"eth0"}]}"#] {
        let (code, text) = with_reply(bad);
        assert_eq!(code, 999);
        let start = "spiderpool IP allocation error: malformed reply to POST /ipam/ip: ";
        assert!(text.starts_with(start), "{text}");
    }
}

#[test]
fn checks_that_fail() {
    let conf = conf().replacen(
        '{',
        r#"{"prevResult":{"ips":[{"address":"10.6.0.4/16"}]},"#,
        1,
    );
    let check = invocation("CHECK", &conf);
    let gone = "\"SpiderEndpoint not found for pod default/web-0\"\n";
    assert_eq!(
        error(&check, [Answer::Reply(404, gone.into())]),
        msg(
            999,
            "spiderpool IP check error: [GET /workloadendpoint][404] getWorkloadendpointNotFound  \
             SpiderEndpoint not found for pod default/web-0"
        )
    );
    let other = r#"{"interfaces":[{"interface":"eth0","ipv4":"10.6.0.4/16"}],"node":"n",
                    "podName":"web-0","podNamespace":"default","podUID":"uid-0"}"#;
    assert_eq!(
        error(&check, [ok(other)]),
        msg(
            999,
            "spiderpool IP check error: the addresses of Pod default/web-0 belong to UID uid-0, \
             not to uid-1"
        )
    );
}

#[test]
fn a_release_that_no_repetition_can_mend_succeeds() {
    let host = FakeHost::default();
    let wrong = Answer::Reply(
        422,
        r#"{"code":602,"message":"podUID in body is required"}"#.into(),
    );
    let outcome = run(
        &invocation("DEL", &conf()),
        &host,
        &FakeAgent::new([ok(""), wrong]),
    );
    assert!(
        outcome.succeeded && outcome.stdout.is_empty(),
        "{}",
        outcome.stdout
    );
    assert!(
        host.lines
            .borrow()
            .iter()
            .any(|line| line.starts_with("ERROR")),
        "but it is logged"
    );
}

#[test]
fn a_release_for_no_pod_asks_nobody() {
    let agent = FakeAgent::new([]);
    let del = without(&invocation("DEL", &conf()), &["CNI_ARGS"]);
    assert!(run(&del, &FakeHost::default(), &agent).succeeded);
    assert_eq!(agent.calls(), <[&str; 0]>::default());
}
