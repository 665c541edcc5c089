use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn unset_pools_are_null_and_false_flags_are_left_out() {
    let args = IpamAddArgs {
        container_id: "c".into(),
        ..IpamAddArgs::default()
    };
    assert_eq!(
        to_json(&args),
        r#"{"containerID":"c","defaultIPv4IPPool":null,"defaultIPv6IPPool":null,"ifName":"","netNamespace":"","podName":"","podNamespace":"","podUID":""}"#
    );
}

#[test]
fn set_pools_and_true_flags_are_written_in_alphabetical_order() {
    let args = IpamAddArgs {
        clean_gateway: true,
        match_master_subnet: true,
        default_ipv4_ip_pool: Some(vec!["p4".into()]),
        ..IpamAddArgs::default()
    };
    assert_eq!(
        to_json(&args),
        r#"{"cleanGateway":true,"containerID":"","defaultIPv4IPPool":["p4"],"defaultIPv6IPPool":null,"ifName":"","matchMasterSubnet":true,"netNamespace":"","podName":"","podNamespace":"","podUID":""}"#
    );
}

#[test]
fn a_reply_without_routes_says_null() {
    let reply = IpamAddResponse {
        ips: Some(vec![IpConfig {
            address: "10.0.0.4/24".into(),
            enable_gateway_detection: false,
            enable_ip_conflict_detection: false,
            gateway: None,
            ip_pool: Some("p".into()),
            mac: None,
            nic: "eth0".into(),
            version: IpVersion::V4,
            vlan: 0,
        }]),
        ..IpamAddResponse::default()
    };
    assert_eq!(
        to_json(&reply),
        r#"{"ips":[{"address":"10.0.0.4/24","ipPool":"p","nic":"eth0","version":4}],"routes":null}"#
    );
    assert_eq!(
        to_json(&IpamAddResponse::default()),
        r#"{"ips":null,"routes":null}"#
    );
}

#[test]
fn unknown_keys_are_ignored_and_empty_strings_read_as_unset() {
    let ip: IpConfig = serde_json::from_str(
        r#"{"address":"::1/128","nic":"eth0","version":6,"gateway":"","ipPool":null,"news":[1]}"#,
    )
    .unwrap();
    assert_eq!(
        (ip.gateway, ip.ip_pool, ip.version),
        (None, None, IpVersion::V6)
    );
}

#[test]
fn a_version_other_than_4_or_6_is_refused() {
    let error = serde_json::from_str::<IpVersion>("5").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("IP version 5 is neither 4 nor 6"),
        "{error}"
    );
}

#[test]
fn an_endpoint_of_the_original_with_a_null_interface_name_reads() {
    let endpoint: WorkloadEndpointStatus = serde_json::from_str(
        r#"{"podNamespace":"d","podName":"p","podUID":"u","node":"n","interfaces":[{"interface":"eth0","ipv4":"10.0.0.4/24","ipv6":"","routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","ifName":null}]}]}"#,
    )
    .unwrap();
    let nic = &endpoint.interfaces[0];
    assert_eq!(
        (nic.ipv4.as_deref(), nic.ipv6.as_deref()),
        (Some("10.0.0.4/24"), None)
    );
    assert_eq!(nic.routes[0].if_name, "");
    assert_eq!(
        to_json(nic),
        r#"{"interface":"eth0","ipv4":"10.0.0.4/24","routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1","ifName":""}]}"#
    );
}

#[test]
fn a_release_leaves_out_what_it_does_not_know() {
    assert_eq!(
        to_json(&IpamDelArgs::default()),
        r#"{"containerID":"","ifName":"","podName":"","podNamespace":"","podUID":""}"#
    );
    assert_eq!(
        to_json(&IpamBatchDelArgs {
            is_release_conflict_ips: true,
            ..Default::default()
        }),
        r#"{"containerID":"","isReleaseConflictIPs":true,"podName":"","podNamespace":"","podUID":""}"#
    );
}

#[test]
fn a_body_with_empty_strings_is_accepted_and_missing_keys_are_named() {
    let whole = br#"{"containerID":"","ifName":"","podName":"","podNamespace":"","podUID":""}"#;
    assert_eq!(parse_body::<IpamDelArgs>(whole), Ok(IpamDelArgs::default()));

    let one = br#"{"containerID":"","ifName":"","podName":"","podNamespace":""}"#;
    let error = parse_body::<IpamDelArgs>(one).unwrap_err();
    assert_eq!((error.status(), error.code), (422, 602));
    assert_eq!(error.message, "podUID in body is required");

    let two = br#"{"containerID":"","ifName":"","podName":"","podUID":null}"#;
    let error = parse_body::<IpamDelArgs>(two).unwrap_err();
    assert_eq!((error.status(), error.code), (422, 422));
    assert_eq!(
        error.message,
        "validation failure list:\npodNamespace in body is required\npodUID in body is required"
    );
}

#[test]
fn a_body_that_is_no_object_or_has_a_wrong_type_is_unparsable() {
    for bad in [
        &b""[..],
        b"[]",
        b"{",
        br#"{"containerID":1,"ifName":"","podName":"","podNamespace":"","podUID":""}"#,
    ] {
        let error = parse_body::<IpamDelArgs>(bad).unwrap_err();
        assert_eq!(error.status(), 400, "{error:?}");
        assert!(
            error
                .message
                .starts_with("parsing ipamDelArgs body from \"\" failed, because "),
            "{error:?}"
        );
    }
}

/// Bodies near those of the contract: whole ones with a key changed or taken out, and bytes changed.
fn near_body() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop::sample::select(vec![
        to_json(&IpamAddArgs::default()),
        to_json(&IpamDelArgs::default()),
        to_json(&IpamBatchDelArgs {
            conflicts: vec![AddressConflict::default()],
            net_namespace: Some("n".to_owned()),
            is_release_conflict_ips: true,
            ..Default::default()
        }),
    ]);
    let value = prop::sample::select(vec![
        "null", "true", "0", "-1", "1e999", "\"\"", "\"x\"", "[]", "[null]", "[{}]", "{}",
    ]);
    let changed = (whole, any::<prop::sample::Index>(), value).prop_map(|(whole, at, value)| {
        let mut object: serde_json::Map<String, Value> = serde_json::from_str(&whole).unwrap();
        let key = object.keys().nth(at.index(object.len())).unwrap().clone();
        match serde_json::from_str(value) {
            Ok(value) => object.insert(key, value),
            Err(_) => object.remove(&key),
        };
        Value::Object(object).to_string().into_bytes()
    });
    let torn = (
        changed.clone(),
        any::<prop::sample::Index>(),
        any::<u8>(),
        any::<bool>(),
    );
    let torn = torn.prop_map(|(mut bytes, at, byte, cut)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        bytes
    });
    prop_oneof![3 => changed, 2 => torn, 1 => prop::collection::vec(any::<u8>(), 0..128)]
}

/// Read, or refused by name; what is read is written and read again the same.
fn is_answered<B: Body + Serialize + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
) -> Result<(), TestCaseError> {
    match parse_body::<B>(bytes) {
        Ok(read) => prop_assert_eq!(parse_body::<B>(to_json(&read).as_bytes()), Ok(read)),
        Err(error) => {
            prop_assert!([400, 422].contains(&error.status()), "{error:?}");
            prop_assert!(!error.message.is_empty());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_body_is_read_or_refused(bytes in near_body()) {
        is_answered::<IpamAddArgs>(&bytes)?;
        is_answered::<IpamDelArgs>(&bytes)?;
        is_answered::<IpamBatchDelArgs>(&bytes)?;
    }
}
