use super::*;
use crate::name::{PoolName, SubnetName};

fn with<T, E>(key: &str, value: &str, parse: impl Fn(Get<'_>) -> Result<T, E>) -> Result<T, E> {
    let get = |k: &str| (k == key).then_some(value);
    parse(&get)
}

#[test]
fn a_subnet_is_read_whatever_the_case_of_its_keys() {
    let items = with(
        SUBNET,
        r#"{"IPV4":["net4","spare"],"ipv6":["net6"]}"#,
        subnets,
    );
    let expected = SubnetItem {
        nic: Nic::from("eth0"),
        ipv4: Some(SubnetName::from("net4")),
        ipv6: Some(SubnetName::from("net6")),
    };
    assert_eq!(items.unwrap().unwrap(), vec![expected]);
}

#[test]
fn unknown_keys_and_null_count_as_if_they_were_not_there() {
    let item = |text: &str| with(SUBNET, text, subnets).unwrap();
    let plain = item(r#"{"ipv4":["net4"]}"#);
    let lists =
        r#"{"ipv4":["net4"],"ipv6":null,"interface":null,"IPv4Subnets":["x"],"mtu":{"a":[1]}}"#;
    assert_eq!(item(lists), plain);
    let many = |item: &str| with(SUBNETS, &format!("[{item}]"), subnets).unwrap();
    assert_eq!(many(lists), many(r#"{"ipv4":["net4"]}"#));

    let pools = |text: &str| with(IPPOOL, text, ippool).unwrap().unwrap();
    assert_eq!(
        pools(r#"{"ipv4":["a"],"ipv6":null,"ipv7":["b"]}"#),
        pools(r#"{"ipv4":["a"]}"#)
    );
    for empty in ["null", r#"{"ipv4":null}"#, r#"{"IPv4Pools":["a"]}"#] {
        assert_eq!(pools(empty), PoolNames::default(), "{empty}");
    }

    let text = r#"[{"ipv4":["a"],"interface":null,"cleangateway":null,"prio":1}]"#;
    assert_eq!(serving(text, "eth0", &[]).unwrap(), "a");
    let none = with(IPPOOLS, "null", ippools).unwrap_err().to_string();
    assert!(none.contains("at least one item"), "{none}");

    let one = r#"[{"dst":"10.0.0.0/8","gw":"10.1.1.1","metric":7}]"#;
    assert_eq!(with(ROUTES, one, routes).unwrap().len(), 1);
    assert_eq!(with(ROUTES, "null", routes).unwrap(), []);
    let listed = with(NAMESPACE_IPV4, "null", namespace_pools).unwrap();
    assert_eq!(listed, PoolNames::default());
}

#[test]
fn bad_subnet_annotations_name_key_and_value() {
    for (key, value) in [
        (SUBNET, "{}"),
        (SUBNET, "null"),
        (SUBNET, ""),
        (SUBNET, r#"{"ipv4":"net4"}"#),
        (SUBNET, r#"{"ipv4":[""]}"#),
        (SUBNET, r#"{"interface":"net:1","ipv4":["a"]}"#),
        (SUBNET, r#"{"interface":"sixteen-letters-","ipv4":["a"]}"#),
        (SUBNETS, "[]"),
        (SUBNETS, r#"[{"ipv4":["a"]},{"ipv4":["b"]}]"#),
        (SUBNETS, r#"{"ipv4":["a"]}"#),
    ] {
        let error = with(key, value, subnets).unwrap_err().to_string();
        assert!(error.contains(key), "{value}: {error}");
    }
}

#[test]
fn sizes_are_fixed_flexible_or_refused() {
    let size = |text| with(IP_NUMBER, text, |get| size_rule(get, SizeRule::Flexible(1)));
    assert_eq!(size("3"), Ok(SizeRule::Fixed(3)));
    assert_eq!(size("+0"), Ok(SizeRule::Flexible(0)));
    assert_eq!(
        size("-1"),
        Err(AnnotationError::NegativeNumber("-1".to_owned()))
    );
    assert_eq!(
        size("+-1"),
        Err(AnnotationError::NegativeNumber("+-1".to_owned()))
    );
    for text in ["abc", "1+1+1", "5+3", "", "+", "++1", "99999999999"] {
        assert_eq!(size(text), Err(AnnotationError::Number(text.to_owned())));
    }
    assert_eq!(
        size_rule(&|_| None, SizeRule::Flexible(1)),
        Ok(SizeRule::Flexible(1))
    );
}

#[test]
fn reclaim_is_true_unless_told_otherwise() {
    assert_eq!(reclaim(&|_| None), Ok(true));
    for told in ["1", "t", "T", "TRUE", "true", "True"] {
        assert_eq!(with(RECLAIM, told, reclaim), Ok(true), "{told}");
    }
    for told in ["0", "f", "F", "FALSE", "false", "False"] {
        assert_eq!(with(RECLAIM, told, reclaim), Ok(false), "{told}");
    }
    for other in ["yes", "no", "", "tRUE", "fALSE", " true", "2", "null"] {
        with(RECLAIM, other, reclaim).expect_err(other);
    }
}

#[test]
fn pools_are_read_and_the_interface_named_beside_them_is_ignored() {
    let names = with(IPPOOL, r#"{"interface":"eth0","ipv4":["a","b"]}"#, ippool);
    assert_eq!(names.unwrap().unwrap().of(Family::V4).len(), 2);
}

fn nics(names: &[&str]) -> Vec<Nic> {
    names.iter().map(|name| Nic::from(*name)).collect()
}

fn serving(text: &str, nic: &str, called: &[&str]) -> Result<String, String> {
    let items = with(IPPOOLS, text, ippools).unwrap().unwrap();
    let item = items.serving(&Nic::from(nic), &nics(called));
    let item = item.map_err(|e| e.to_string())?;
    let names = item.pools.ipv4.iter().map(PoolName::as_str);
    let clean = if item.clean_gateway { " clean" } else { "" };
    Ok(names.collect::<Vec<_>>().join(",") + clean)
}

#[test]
fn named_items_serve_the_interfaces_they_name() {
    let text = r#"[{"interface":"net1","ipv4":["b"],"cleanGateway":true},{"Interface":"eth0","ipv4":["a","c"]}]"#;
    assert_eq!(serving(text, "eth0", &[]).unwrap(), "a,c");
    assert_eq!(serving(text, "net1", &["eth0"]).unwrap(), "b clean");
    let error = serving(text, "net2", &["eth0"]).unwrap_err();
    let begins = "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/ippools': interface net2 must be specified; its value is '[{";
    assert!(error.starts_with(begins), "{error}");
}

#[test]
fn nameless_items_serve_eth0_and_then_the_others_in_their_order() {
    let text = r#"[{"ipv4":["a"]},{"ipv4":["b"]},{"ipv4":["c"]}]"#;
    let order = ["eth0", "macvlan0", "net1"];
    assert_eq!(serving(text, "eth0", &[]).unwrap(), "a");
    assert_eq!(serving(text, "macvlan0", &["eth0"]).unwrap(), "b");
    assert_eq!(serving(text, "net1", &order).unwrap(), "c");
    assert_eq!(serving(text, "macvlan0", &order).unwrap(), "b");
    // Whichever comes first, eth0's is the first item.
    assert_eq!(serving(text, "net1", &["net1"]).unwrap(), "b");
    assert_eq!(serving(text, "eth0", &["net1"]).unwrap(), "a");
    let error = serving(text, "net2", &order).unwrap_err();
    let says = "interface net2 must be specified: it is number 4 of the Pod, and 3 are listed";
    assert!(error.contains(says), "{error}");
}

#[test]
fn routes_are_read_without_host_bits() {
    let read = |text: &str| {
        let routes = with(ROUTES, text, routes).unwrap();
        routes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let text = r#"[{"dst":"10.0.7.9/16","gw":"192.168.1.1"},{"DST":"fd00::/64","gw":"fe80::1"}]"#;
    assert_eq!(
        read(text),
        ["10.0.0.0/16 via 192.168.1.1", "fd00::/64 via fe80::1"]
    );
    for none in ["[]", "null", " [ ] "] {
        assert!(read(none).is_empty());
    }
}

/// What the original says of these values, up to where its decoder's own words begin.
#[test]
fn every_wrong_value_is_told_as_the_original_tells_it_with_the_value_and_a_right_one() {
    const POD: &str = "wrong input, invalid format of Pod annotation 'ipam.spidernet.io/";
    let table = [
        (IPPOOL, "", "ippool': unexpected end of JSON input"),
        (
            IPPOOL,
            r#"{"ipv4":"p4"}"#,
            "ippool': ipv4: expected an array",
        ),
        (
            IPPOOL,
            r#"{"ipv4":[1]}"#,
            "ippool': ipv4: expected a string",
        ),
        (IPPOOL, "[]", "ippool': expected an object"),
        (IPPOOLS, "[]", "ippools': value requires at least one item"),
        (
            IPPOOLS,
            "null",
            "ippools': value requires at least one item",
        ),
        (IPPOOLS, "{}", "ippools': expected an array"),
        (
            IPPOOLS,
            r#"[{"interface":"eth0"},{"ipv4":["a"]}]"#,
            "ippools': NIC should be either all specified or all unspecified",
        ),
        (
            IPPOOLS,
            r#"[{"ipv4":["a"]},{"interface":"eth0"}]"#,
            "ippools': NIC should be either all specified or all unspecified",
        ),
        (
            IPPOOLS,
            r#"[{"interface":"net1"},{"interface":"net1"}]"#,
            "ippools': duplicate interface net1",
        ),
        (
            IPPOOLS,
            r#"[{"interface":1}]"#,
            "ippools': interface: expected a string, found a number",
        ),
        (
            IPPOOLS,
            r#"[{"cleangateway":"no"}]"#,
            "ippools': cleangateway: expected true or false, found a string",
        ),
        (ROUTES, "x", "routes': expected value"),
        (
            ROUTES,
            r#"{"dst":"10.0.0.0/8"}"#,
            "routes': expected an array",
        ),
        (
            ROUTES,
            r#"[{"dst":"10.0.0.1","gw":"192.168.1.1"}]"#,
            "routes': invalid route format 'dst: 10.0.0.1, gw: 192.168.1.1'",
        ),
        (
            ROUTES,
            r#"[{"dst":"10.0.0.0/16"}]"#,
            "routes': invalid route format 'dst: 10.0.0.0/16, gw: '",
        ),
        (
            ROUTES,
            r#"[{"dst":"10.0.0.0/16","gw":"fd00::1"}]"#,
            "routes': invalid route format 'dst: 10.0.0.0/16, gw: fd00::1'",
        ),
        (
            ROUTES,
            r#"[{"dst":"10.0.0.0/16","gw":"gateway"}]"#,
            "routes': invalid route format 'dst: 10.0.0.0/16, gw: gateway', gw is no IP address",
        ),
    ];
    for (key, value, tail) in table {
        let error = with(key, value, check).unwrap_err().to_string();
        let begins = format!("{POD}{tail}");
        assert!(error.starts_with(&begins), "{value}: {error}");
        let ends = format!("; its value is '{value}', write it like {}", form(key));
        assert!(error.ends_with(&ends), "{value}: {error}");
    }
}

#[test]
fn the_forms_that_errors_recommend_are_right_ones() {
    for key in [SUBNETS, SUBNET, IPPOOLS, IPPOOL, ROUTES] {
        with(key, form(key), check).unwrap();
    }
    for key in [NAMESPACE_IPV4, NAMESPACE_IPV6] {
        assert!(!with(key, form(key), namespace_pools).unwrap().is_empty());
    }
}

#[test]
fn what_is_wrong_in_a_namespace_names_key_and_value() {
    for value in ["a", r#"{"x":1}"#, "[1]", ""] {
        let error = with(NAMESPACE_IPV4, value, namespace_pools).unwrap_err();
        let says = format!("Namespace annotation '{NAMESPACE_IPV4}' value '{value}'");
        assert!(error.to_string().contains(&says), "{error}");
    }
    for none in ["[]", "null"] {
        assert!(
            with(NAMESPACE_IPV6, none, namespace_pools)
                .unwrap()
                .is_empty()
        );
    }
}

#[test]
fn of_a_long_value_the_beginning_is_told() {
    let value = "x".repeat(100_000);
    let error = with(ROUTES, &value, check).unwrap_err().to_string();
    assert!(error.len() < 900, "{} bytes", error.len());
    assert!(error.contains("xxx…'"), "{error}");
}

#[test]
fn a_list_that_cannot_be_meant_names_its_annotation() {
    for (key, value) in [
        (IPPOOL, r#"{"ipv4":["a","a"]}"#),
        (IPPOOL, r#"{"ipv6":["a[]"]}"#),
        (IPPOOLS, r#"[{"ipv4":["a"]},{"ipv6":[""]}]"#),
    ] {
        let fault = with(key, value, check_pools).unwrap_err();
        assert!(matches!(fault, Fault::List { .. }), "{value}: {fault}");
        assert!(fault.to_string().contains(key), "{value}: {fault}");
    }
}

#[test]
fn an_annotation_of_pools_that_names_none_is_told_with_the_interface_that_it_names() {
    for (key, value, of) in [
        (IPPOOL, "{}", ""),
        (IPPOOL, "null", ""),
        (IPPOOL, r#"{"ipv4":[]}"#, ""),
        (IPPOOL, r#"{"ipv4Pools":["a"]}"#, ""),
        (IPPOOLS, r#"[{"ipv4":["a"]},{"ipv6":[]}]"#, ""),
        (
            IPPOOLS,
            r#"[{"interface":"eth0","ipv4":["a"]},{"interface":"net1"}]"#,
            " for interface net1",
        ),
    ] {
        let fault = with(key, value, check_pools).unwrap_err().to_string();
        let says = format!("annotation '{key}' names no IPPool{of}: ");
        assert!(fault.starts_with(&says), "{value}: {fault}");
        assert!(fault.ends_with(form(key)), "{value}: {fault}");
    }
}

#[test]
fn of_annotations_of_pools_just_the_one_is_looked_at_that_an_agent_reads() {
    let right = r#"{"ipv4":["a"]}"#;
    let among = |all: &[(&str, &str)]| {
        let get = |key: &str| all.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        check_pools(&get).map_err(|fault| fault.to_string())
    };
    assert_eq!(
        among(&[(SUBNET, right), (IPPOOLS, "{}"), (IPPOOL, "x")]),
        Ok(())
    );
    let items = r#"[{"ipv4":["a"]}]"#;
    assert_eq!(among(&[(SUBNETS, items), (IPPOOL, "{}")]), Ok(()));
    assert_eq!(among(&[(IPPOOLS, items), (IPPOOL, "{}")]), Ok(()));
    assert!(
        among(&[(IPPOOLS, "[]"), (IPPOOL, right)])
            .unwrap_err()
            .contains(IPPOOLS)
    );
    // Routes are read whoever names the pools.
    assert!(
        among(&[(SUBNET, right), (ROUTES, "x")])
            .unwrap_err()
            .contains(ROUTES)
    );
}

#[test]
fn one_subnet_may_serve_two_interfaces_of_a_pod() {
    let text = r#"[{"interface":"eth0","ipv4":["net4"]},{"interface":"net1","ipv4":["net4"]}]"#;
    let items = with(SUBNETS, text, subnets).unwrap().unwrap();
    let told = items
        .iter()
        .map(|item| (item.nic.as_str(), item.subnet(Family::V4)));
    let net4 = SubnetName::from("net4");
    assert_eq!(
        told.collect::<Vec<_>>(),
        [("eth0", Some(&net4)), ("net1", Some(&net4))]
    );
}

#[test]
fn a_pod_names_its_pools_with_either_annotation_of_pools() {
    for (key, names) in [
        (IPPOOL, true),
        (IPPOOLS, true),
        (SUBNET, false),
        (ROUTES, false),
    ] {
        let get = |k: &str| (k == key).then_some("whatever");
        assert_eq!(names_pools(&get), names, "{key}");
    }
}

#[test]
fn what_asks_for_a_pool_says_for_which_interfaces_unless_its_size_or_end_can_t_be_read() {
    let of = |size: &'static str, reclaim: &'static str| {
        asked_of_subnets(&move |key| match key {
            SUBNETS => {
                Some(r#"[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["b"]}]"#)
            }
            IP_NUMBER => Some(size),
            RECLAIM => Some(reclaim),
            _ => None,
        })
    };
    let items = of("+1", "false").unwrap().unwrap();
    let asked: Vec<_> = items.iter().map(|item| item.nic.as_str()).collect();
    assert_eq!(asked, ["eth0", "net1"]);
    assert_eq!(
        of("x", "true"),
        Err(AnnotationError::Number("x".to_owned()))
    );
    assert_eq!(of("1", "x"), Err(AnnotationError::Reclaim("x".to_owned())));
    assert_eq!(with(IP_NUMBER, "x", asked_of_subnets), Ok(None));
}

#[test]
fn what_counts_on_pods_alone_is_told_where_only_the_workload_has_it() {
    for key in [IPPOOLS, IPPOOL, ROUTES, SUBNET] {
        let has = |k: &str| (k == key).then_some("value");
        let told = misplaced(&has, &|_| None);
        let expected = (key != SUBNET).then_some(Fault::Misplaced(key));
        assert_eq!(told, expected);
        assert_eq!(misplaced(&has, &has), None, "{key}");
        assert_eq!(misplaced(&|_| None, &has), None, "{key}");
    }
}

#[test]
fn items_are_counted_and_shown_as_they_were_meant() {
    let of = |text: &str| with(IPPOOLS, text, ippools).unwrap().unwrap();
    let two = of(
        r#"[{"interface":"net1","ipv4":["b"],"cleanGateway":true},{"interface":"eth0","ipv6":["a","c"]}]"#,
    );
    assert_eq!((two.len(), two.is_empty()), (2, false));
    let shown = r#"[{"cleangateway":true,"interface":"net1","ipv4":["b"]},{"interface":"eth0","ipv6":["a","c"]}]"#;
    assert_eq!(two.to_string(), shown);
    assert_eq!(of(r#"[{"ipv4":["a"]}]"#).to_string(), r#"[{"ipv4":["a"]}]"#);
}
