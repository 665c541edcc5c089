//! Input nobody thought of: no panic, and an answer the runtime can read.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use cni::plugin::{Invocation, run};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Answer, DUAL, FakeAgent, FakeHost, config, ok};

/// Runs a call and holds the outcome against the protocol.
fn answers(invocation: &Invocation, agent: &FakeAgent) -> Result<(), TestCaseError> {
    let outcome = run(invocation, &FakeHost::default(), agent);
    if outcome.succeeded && outcome.stdout.is_empty() {
        return Ok(());
    }
    let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
    if outcome.succeeded {
        prop_assert!(answer.get("cniVersion").is_some(), "{answer}");
    } else {
        prop_assert!(answer.get("code").is_some_and(Value::is_u64), "{answer}");
        prop_assert!(answer.get("msg").is_some_and(Value::is_string), "{answer}");
    }
    Ok(())
}

fn os(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}

fn command() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "ADD", "DEL", "CHECK", "VERSION", "STATUS", "GC", "NONE",
    ])
}

/// Text close enough to `CNI_ARGS` to get past its first checks.
fn cni_args() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec![
        "K8S_POD_NAME",
        "K8S_POD_NAMESPACE",
        "K8S_POD_UID",
        "IgnoreUnknown",
        "IP",
        "X",
        "",
    ]);
    let pair = (key, "[=;a-z0-9\\PC]{0,8}").prop_map(|(k, v)| format!("{k}={v}"));
    let near = prop::collection::vec(pair, 0..6).prop_map(|pairs| pairs.join(";").into_bytes());
    prop_oneof![prop::collection::vec(any::<u8>(), 0..64), near]
}

/// JSON of any form.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A configuration with one of its keys replaced by anything.
fn near_config() -> impl Strategy<Value = Vec<u8>> {
    let keys = vec![
        "/cniVersion",
        "/ipam",
        "/prevResult",
        "/cni.dev~1valid-attachments",
        "/ipam/log_level",
        "/ipam/log_file_path",
        "/ipam/log_file_max_size",
        "/ipam/log_file_max_age",
        "/ipam/log_file_max_count",
        "/ipam/default_ipv4_ippool",
        "/ipam/default_ipv6_ippool",
        "/ipam/clean_gateway",
        "/ipam/match_master_subnet",
        "/ipam/ipam_unix_socket_path",
    ];
    (prop::sample::select(keys), json()).prop_map(|(pointer, value)| {
        let mut whole: Value =
            serde_json::from_str(&config("1.0.0", Path::new("/run/a.sock"), "")).unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = whole
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .unwrap();
        parent.insert(key.replace("~1", "/"), value);
        whole.to_string().into_bytes()
    })
}

proptest! {
    #[test]
    fn bytes_in_every_place_are_answered(
        command in prop_oneof![
            command().prop_map(|c| c.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ],
        stdin in prop_oneof![prop::collection::vec(any::<u8>(), 0..256), near_config()],
        container in prop::collection::vec(any::<u8>(), 0..20),
        nic in prop::collection::vec(any::<u8>(), 0..20),
        args in cni_args(),
    ) {
        let env = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_NETNS", b"/run/netns/a".to_vec()),
            ("CNI_IFNAME", nic),
            ("CNI_ARGS", args),
        ];
        let env = env.into_iter().map(|(k, v)| (k.into(), os(v))).collect();
        answers(&Invocation { env, stdin }, &FakeAgent::new([ok(""), ok(DUAL)]))?;
    }

    #[test]
    fn a_whole_environment_with_any_configuration_is_answered(
        command in command(),
        stdin in near_config(),
        args in cni_args(),
    ) {
        let env = [
            ("CNI_COMMAND", command.as_bytes().to_vec()),
            ("CNI_CONTAINERID", b"c1".to_vec()),
            ("CNI_NETNS", b"/run/netns/a".to_vec()),
            ("CNI_IFNAME", b"eth0".to_vec()),
            ("CNI_ARGS", args),
        ];
        let env = env.into_iter().map(|(k, v)| (k.into(), os(v))).collect();
        answers(&Invocation { env, stdin }, &FakeAgent::new([ok(""), ok(DUAL)]))?;
    }

    #[test]
    fn any_reply_is_answered(
        command in command(),
        status in prop_oneof![Just(200_u16), Just(500), any::<u16>()],
        body in prop_oneof![".{0,64}", json().prop_map(|value| value.to_string())],
    ) {
        let whole = config("1.1.0", Path::new("/run/a.sock"), "")
            .replacen('{', r#"{"prevResult":{"ips":[{"address":"10.6.0.4/16"}]},"#, 1);
        let call = crate::support::invocation(command, &whole);
        answers(&call, &FakeAgent::new([ok(""), Answer::Reply(status, body.clone())]))?;
        answers(&call, &FakeAgent::new([Answer::Reply(status, body)]))?;
    }
}
