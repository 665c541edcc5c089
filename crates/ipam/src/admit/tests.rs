use super::fields::{Draft, Kind, defaults};
use super::pool::{self, PoolDraft};
use super::{Families, Refusal, reserved, subnet};
use crate::addr::{Family, parse_list};
use crate::affinity::Selector;
use crate::name::{PoolName, SubnetName};
use crate::pool::{Pool, Restrictions, Route};
use crate::subnet::Subnet;
use crate::testing::{
    in_quarantine, in_use, of_workload, pool as seen, selector, subnet as net, workload,
};

const BOTH: Families = Families {
    ipv4: true,
    ipv6: true,
};

/// An object as a person writes it; 10.0.0.0/24 with `10.0.0.10-10.0.0.20` unless changed.
#[derive(Clone)]
struct Written {
    version: Option<i64>,
    subnet: String,
    ips: Vec<String>,
    excluded: Vec<String>,
    gateway: Option<String>,
    routes: Vec<Route>,
    restrictions: Restrictions,
    auto: bool,
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn written(list: &[&str]) -> Written {
    Written {
        version: Some(4),
        subnet: "10.0.0.0/24".into(),
        ips: texts(list),
        excluded: vec![],
        gateway: None,
        routes: vec![],
        restrictions: Restrictions::default(),
        auto: false,
    }
}

impl Written {
    fn draft(&self, kind: Kind) -> Draft<'_> {
        Draft {
            kind,
            ip_version: self.version,
            subnet: &self.subnet,
            ips: &self.ips,
            excluded: &self.excluded,
            gateway: self.gateway.as_deref(),
            routes: self.routes.clone(),
        }
    }

    fn pool(&self) -> PoolDraft<'_> {
        PoolDraft {
            fields: self.draft(Kind::Pool),
            restrictions: self.restrictions.clone(),
            auto: self.auto,
        }
    }

    /// What is said of a new pool alone.
    fn refused(&self) -> Vec<String> {
        said(pool::alone(&self.pool(), None, BOTH))
    }

    /// What is said of a new pool `new` beside others.
    fn refused_among(&self, pools: &[Pool], subnets: &[Subnet]) -> Vec<String> {
        let claim = pool::alone(&self.pool(), None, BOTH).unwrap();
        said(pool::among(&"new".into(), &claim, pools, subnets))
    }

    /// What is said of the change from `old`, which is `pool`.
    fn refused_after(&self, old: &Self, pool: Pool, subnets: &[Subnet]) -> Vec<String> {
        let name = pool.name.clone();
        let before = pool::Before {
            draft: old.pool(),
            pool: Some(pool),
        };
        match pool::alone(&self.pool(), Some(&before), BOTH) {
            Err(refused) => said::<()>(Err(refused)),
            Ok(claim) => said(pool::among(&name, &claim, &[], subnets)),
        }
    }

    /// What is said of a new subnet alone, as of a pool.
    fn refused_subnet(&self) -> Vec<String> {
        said(subnet::alone(&self.draft(Kind::Subnet), None, BOTH))
    }
}

fn said<T>(result: Result<T, Vec<Refusal>>) -> Vec<String> {
    let refused = result.err().unwrap_or_default();
    refused.iter().map(Refusal::to_string).collect()
}

fn first(told: &[String]) -> &str {
    told.first().map(String::as_str).unwrap_or_default()
}

#[test]
fn a_family_must_be_known_possible_and_on() {
    let of = |version, subnet: &str| Written {
        version,
        subnet: subnet.into(),
        ..written(&[])
    };
    assert_eq!(
        of(None, "10.0.0/24").refused(),
        [
            "spec.ipVersion: Invalid value: \"null\": is not generated correctly, 'spec.subnet' may be invalid"
        ]
    );
    assert_eq!(
        of(Some(5), "10.0.0.0/24").refused(),
        ["spec.ipVersion: Unsupported value: 5: supported values: \"4\", \"6\""]
    );
    let only6 = Families {
        ipv4: false,
        ipv6: true,
    };
    let plain = written(&[]);
    let refused = said(pool::alone(&plain.pool(), None, only6));
    assert_eq!(refused, ["spec.ipVersion: Forbidden: IPv4 is disabled"]);
    // Without the defaulting webhook the family is the subnet's.
    assert!(of(None, "fd00::/64").refused().is_empty());
}

#[test]
fn a_subnet_must_be_a_canonical_cidr_of_the_family() {
    let of = |subnet: &str| Written {
        subnet: subnet.into(),
        ..written(&["what?"])
    };
    assert_eq!(
        of("fd00::/64").refused(),
        ["spec.subnet: Invalid value: \"fd00::/64\": invalid CIDR format in IPv4 'fd00::/64'"]
    );
    let shown = "spec.subnet: Invalid value: \"10.6.1.0/16\": unformatted subnet 10.6.1.0/16, please change it to 10.6.0.0/16";
    assert_eq!(of("10.6.1.0/16").refused(), [shown]);
    assert_eq!(of("10.6.1.0/16").refused_subnet(), [shown]);
}

#[test]
fn each_range_that_is_none_or_lies_outside_is_told_at_its_place() {
    let bad = Written {
        excluded: texts(&["10.0.0.1", "10.0.0.9-10.0.0.1"]),
        ..written(&["10.0.0.5", "10.0.0.250-10.0.1.3", "10.0.0.0/28", "fd00::1"])
    };
    assert_eq!(
        bad.refused(),
        [
            "spec.ips[1]: Invalid value: \"10.0.0.250-10.0.1.3\": not pertains to the 'spec.subnet' 10.0.0.0/24 of IPPool: take [10.0.1.0-10.0.1.3] out",
            "spec.ips[2]: Invalid value: \"10.0.0.0/28\": invalid IP range format in IPv4 '10.0.0.0/28': '10.0.0.0/28' is not an IPv4 address: write one address, or two joined by '-'",
            "spec.ips[3]: Invalid value: \"fd00::1\": invalid IP range format in IPv4 'fd00::1': 'fd00::1' is not an IPv4 address: write one address, or two joined by '-'",
            "spec.excludeIPs[1]: Invalid value: \"10.0.0.9-10.0.0.1\": invalid IP range format in IPv4 '10.0.0.9-10.0.0.1': range 10.0.0.9-10.0.0.1 ends below its start: swap the ends",
        ]
    );
    assert!(first(&bad.refused_subnet()).contains("of Subnet: take"));
    // Twice the same is harmless: it is one address.
    assert!(
        written(&["10.0.0.1-10.0.0.5", "10.0.0.5"])
            .refused()
            .is_empty()
    );
}

#[test]
fn a_gateway_lies_in_the_subnet_and_not_among_the_addresses() {
    let with = |gateway: &str, excluded: &[&str]| Written {
        gateway: Some(gateway.into()),
        excluded: texts(excluded),
        ..written(&["10.0.0.1", "10.0.0.10-10.0.0.20"])
    };
    assert_eq!(
        with("10.0.1.1", &[]).refused(),
        [
            "spec.gateway: Invalid value: \"10.0.1.1\": not pertains to the 'spec.subnet' 10.0.0.0/24 of IPPool: a next hop must be reached directly"
        ]
    );
    assert_eq!(
        with("fd00::1", &[]).refused(),
        ["spec.gateway: Invalid value: \"fd00::1\": invalid IP format in IPv4 'fd00::1'"]
    );
    let shown = "spec.ips[1]: Invalid value: \"10.0.0.10-10.0.0.20\": conflicts with 'spec.gateway' 10.0.0.12, add the gateway IP address to 'spec.excludeIPs' or remove it from 'spec.ips'";
    assert_eq!(with("10.0.0.12", &[]).refused(), [shown]);
    assert_eq!(with("10.0.0.12", &[]).refused_subnet(), [shown]);
    assert!(
        with("10.0.0.12", &["10.0.0.11-10.0.0.13"])
            .refused()
            .is_empty()
    );
    assert!(with("10.0.0.254", &[]).refused().is_empty());
}

#[test]
fn each_wrong_route_is_told_at_its_place() {
    let route = |dst: &str, gw: &str| Route {
        dst: dst.into(),
        gw: gw.into(),
    };
    let pool = Written {
        routes: vec![
            route("10.9.0.0/16", "10.0.0.1"),
            route("0.0.0.0/0", "10.0.0.1"),
            route("10.9.3.0/16", "10.0.0.1"),
            route("10.8.0.0", "10.0.9.1"),
            route("fd00::/64", "x"),
        ],
        ..written(&[])
    };
    let shown = [
        "spec.routes[1].dst: Invalid value: \"0.0.0.0/0\": please specify 'spec.gateway' to configure the default route",
        "spec.routes[2].dst: Invalid value: \"10.9.3.0/16\": duplicate route with the same dst: keep one of them",
        "spec.routes[3].dst: Invalid value: \"10.8.0.0\": invalid CIDR format in IPv4 '10.8.0.0'",
        "spec.routes[3].gw: Invalid value: \"10.0.9.1\": not pertains to the 'spec.subnet' 10.0.0.0/24 of IPPool: a next hop must be reached directly",
        "spec.routes[4].dst: Invalid value: \"fd00::/64\": invalid CIDR format in IPv4 'fd00::/64'",
        "spec.routes[4].gw: Invalid value: \"x\": invalid IP format in IPv4 'x'",
    ];
    assert_eq!(pool.refused(), shown);
    assert_eq!(pool.refused_subnet().len(), shown.len());
}

#[test]
fn selectors_and_names_that_could_serve_nobody_are_refused() {
    let bad = Selector::requirement("tier", "Like", &[]).map(|_| Selector::default());
    let pool = Written {
        restrictions: Restrictions {
            pod_affinity: Some(Ok(Selector::default())),
            namespace_affinity: Some(bad.clone()),
            node_affinity: Some(bad),
            node_names: texts(&["node-1", "Node_2"]),
            namespace_names: texts(&["a/b"]),
            networks: texts(&["kube-system/macvlan", "a/b/c"]),
        },
        ..written(&[])
    };
    let refused = pool.refused();
    let wanted = [
        "spec.namespaceAffinity: Forbidden: \"Like\" is not a valid label selector operator",
        "spec.nodeAffinity: Forbidden: \"Like\" is not a valid label selector operator",
        "spec.podAffinity: Invalid value: {}: empty podAffinity is invalid for SpiderIPPool",
        "spec.nodeName[1]: Invalid value: \"Node_2\": no object can have this name",
        "spec.namespaceName[0]: Invalid value: \"a/b\": no object can have this name",
        "spec.multusName[1]: Invalid value: \"a/b/c\": no object can have this name",
    ];
    assert_eq!(refused.len(), wanted.len(), "{refused:#?}");
    for (said, wanted) in refused.iter().zip(wanted) {
        assert!(said.starts_with(wanted), "{said}");
    }
}

#[test]
fn selectors_of_labels_that_there_can_be_none_of_are_refused() {
    let of = |selector: Selector| Written {
        restrictions: Restrictions {
            pod_affinity: Some(Ok(selector)),
            ..Restrictions::default()
        },
        ..written(&[])
    };
    let label = |key: &str, value: &str| of(selector(&[(key, value)])).refused();
    let [long, longer] = [63, 64].map(|n| "a".repeat(n));
    let [prefix, longer_prefix] = [253, 254].map(|n| format!("{}/app", "p".repeat(n)));
    for (key, value) in [
        ("app", "web"),
        ("App.k_8-s", ""),
        ("app.kubernetes.io/name", "1.Web_2-b"),
        (&long, &long),
        (&prefix, "web"),
        // Not compared with labels: a workload may have a name of 253 characters.
        (crate::affinity::APP_NAME, &longer),
    ] {
        assert_eq!(label(key, value), [""; 0], "{key}={value}");
    }
    let keys = [
        "",
        "my app",
        "-app",
        "app-",
        "/app",
        "app/",
        "a/b/c",
        "App.io/x",
        "a..b/x",
        "-a.io/x",
        "ä",
        &longer,
        &longer_prefix,
    ];
    for key in keys {
        let said = label(key, "web").concat();
        let begins = format!("spec.podAffinity: Forbidden: \"{key}\" can be no label's key");
        assert!(said.starts_with(&begins), "{said}");
    }
    for value in ["my web", "-web", "web.", "a/b", "ü", &longer] {
        let said = label("app", value).concat();
        let begins =
            format!("spec.podAffinity: Forbidden: \"{value}\" can be no value of label app");
        assert!(said.starts_with(&begins), "{said}");
    }
    let values = ["web".to_owned(), "a b".to_owned()];
    for (key, operator, values, wrong) in [
        (
            "app",
            "NotIn",
            &values[..],
            "\"a b\" can be no value of label app",
        ),
        (
            "a b",
            "DoesNotExist",
            &[][..],
            "\"a b\" can be no label's key",
        ),
    ] {
        let expression = Selector::requirement(key, operator, values).unwrap();
        let said = of(Selector {
            match_expressions: vec![expression],
            ..Selector::default()
        });
        let said = said.refused().concat();
        assert!(said.contains(wrong), "{said}");
    }
}

#[test]
fn a_new_pool_overlaps_no_other_and_lies_within_its_subnet() {
    let other = Pool {
        cidr: "10.0.0.0/16".parse().unwrap(),
        ..seen("wide", "")
    };
    assert_eq!(
        written(&[]).refused_among(&[other], &[]),
        [
            "spec.subnet: Invalid value: \"10.0.0.0/24\": overlap with IPPool wide which 'spec.subnet' is 10.0.0.0/16"
        ]
    );
    let [a, b] = [seen("a", "1-12"), in_use("15", seen("b", "30"))];
    let new = written(&["10.0.0.10-10.0.0.20"]);
    let jointly = "total IP addresses of an IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'";
    assert_eq!(
        new.refused_among(&[a, b, seen("new", "10-20")], &[]),
        [
            format!(
                "spec.ips: Forbidden: overlap with IPPool a in IP ranges [10.0.0.10-10.0.0.12], {jointly}"
            ),
            format!(
                "spec.ips: Forbidden: overlap with IPPool b in IP ranges [10.0.0.15], {jointly}"
            ),
        ]
    );
    assert_eq!(
        new.refused_among(&[], &[net("1-15", &[])]),
        [format!(
            "spec.ips: Forbidden: add some IP ranges [10.0.0.16-10.0.0.20] that are not contained in controller Subnet net4, {jointly}"
        )]
    );
    assert!(
        new.refused_among(&[seen("c", "21-30")], &[net("1-50", &[])])
            .is_empty()
    );
}

#[test]
fn a_pool_may_not_lose_what_pods_have_nor_change_its_network() {
    let old = written(&["10.0.0.10-10.0.0.20"]);
    let pool = in_use("12 15", seen("p", "10-20"));
    let jointly = "total IP addresses of an IPPool are jointly determined by 'spec.ips' and 'spec.excludeIPs'";
    let shrunk = written(&["10.0.0.10-10.0.0.14"]);
    assert_eq!(
        shrunk.refused_after(&old, pool.clone(), &[]),
        [format!(
            "spec.ips: Forbidden: remove an IP address 10.0.0.15 that is being used by Pod shop/p15, {jointly}"
        )]
    );
    let excluded = Written {
        excluded: texts(&["10.0.0.11-10.0.0.16"]),
        ..old.clone()
    };
    assert_eq!(
        excluded.refused_after(&old, pool.clone(), &[]),
        [format!(
            "spec.ips: Forbidden: remove an IP address 10.0.0.12 that is being used by Pod shop/p12, {jointly}; 1 more addresses in use would go with it"
        )]
    );
    let moved = Written {
        version: Some(6),
        subnet: "fd00::/64".into(),
        ..written(&[])
    };
    let refused = moved.refused_after(&old, seen("p", "10-20"), &[]);
    for field in ["spec.ipVersion", "spec.subnet"] {
        assert!(
            refused.contains(&format!(
                "{field}: Forbidden: is not changeable: make a new object instead"
            )),
            "{refused:?}"
        );
    }
    let unset = Written {
        version: None,
        ..old.clone()
    };
    assert!(old.refused_after(&unset, pool.clone(), &[]).is_empty());
    let free = written(&["10.0.0.12-10.0.0.15"]);
    assert!(free.refused_after(&old, pool, &[]).is_empty());
}

/// The remedy that its condition names, for an address that another host uses.
#[test]
fn an_address_in_quarantine_may_leave_its_pool() {
    let old = written(&["10.0.0.10-10.0.0.20"]);
    let pool = in_quarantine("12", in_use("15", seen("p", "10-20")));
    let without = |excluded: &[&str]| Written {
        excluded: texts(excluded),
        ..old.clone()
    };
    let refused = |excluded: &[&str]| without(excluded).refused_after(&old, pool.clone(), &[]);
    assert_eq!(refused(&["10.0.0.12"]), Vec::<String>::new());
    let told = refused(&["10.0.0.12", "10.0.0.15"]);
    assert!(first(&told).contains("10.0.0.15 that is being used by Pod shop/p15"));
    assert!(!first(&told).contains("more addresses"), "{told:?}");
}

#[test]
fn what_was_wrong_before_can_be_kept_but_not_made_worse() {
    let old = Written {
        gateway: Some("10.0.0.12".into()),
        ..written(&["10.0.0.10-10.0.0.20"])
    };
    let pool = seen("p", "10-20");
    // The subnet was narrowed under it, too.
    let narrow = [net("1-15", &[])];
    let labelled = Written {
        restrictions: Restrictions {
            node_names: texts(&["n1"]),
            ..Restrictions::default()
        },
        ..old.clone()
    };
    assert!(
        labelled
            .refused_after(&old, pool.clone(), &narrow)
            .is_empty()
    );
    let shrunk = Written {
        ips: texts(&["10.0.0.13-10.0.0.19"]),
        ..old.clone()
    };
    assert!(shrunk.refused_after(&old, pool.clone(), &narrow).is_empty());
    let grown = Written {
        ips: texts(&["10.0.0.13-10.0.0.21"]),
        ..old.clone()
    };
    let refused = grown.refused_after(&old, pool, &narrow);
    assert!(
        first(&refused).contains("[10.0.0.21] that are not contained in controller Subnet net4"),
        "{refused:?}"
    );
}

#[test]
fn what_a_change_makes_wrong_is_told_and_what_was_wrong_is_not_told_again() {
    let old = Written {
        gateway: Some("10.0.0.12".into()),
        ..written(&["10.0.0.10-10.0.0.20"])
    };
    let both = Written {
        ips: texts(&["10.0.0.10-10.0.0.20", "10.0.1.1"]),
        ..old.clone()
    };
    assert_eq!(both.refused().len(), 2, "{:?}", both.refused());
    let told = both.refused_after(&old, seen("p", "10-20"), &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(first(&told).starts_with("spec.ips"), "{told:?}");
}

#[test]
fn an_auto_pool_is_its_controllers_to_size_and_to_direct() {
    let auto = |ips: &[&str]| Written {
        auto: true,
        restrictions: Restrictions {
            pod_affinity: Some(Ok(selector(&[("app", "web")]))),
            ..Restrictions::default()
        },
        ..written(ips)
    };
    let old = auto(&["10.0.0.10-10.0.0.12"]);
    let pool = of_workload(&workload("web"), seen("p", "10-12"));
    let ledger = [net("1-50", &[("p", "10-13")])];
    let told = "spec.ips: Forbidden: it's illegal to update AutoPool.Spec.IPs that are different from corresponding SpiderSubnet.Status.ControlledIPPools";
    // A person can't take the label away to get around it.
    for grown in [
        auto(&["10.0.0.10-10.0.0.14"]),
        Written {
            auto: false,
            ..auto(&["10.0.0.10"])
        },
    ] {
        let refused = grown.refused_after(&old, pool.clone(), &ledger);
        assert!(first(&refused).starts_with(told), "{refused:?}");
    }
    let as_the_ledger = auto(&["10.0.0.10-10.0.0.13"]);
    assert!(
        as_the_ledger
            .refused_after(&old, pool.clone(), &ledger)
            .is_empty()
    );
    assert!(old.refused_after(&old, pool.clone(), &ledger).is_empty());
    let other = Written {
        restrictions: Restrictions::default(),
        ..old.clone()
    };
    let refused = other.refused_after(&old, pool, &ledger);
    assert!(
        first(&refused)
            .starts_with("spec.podAffinity: Forbidden: it's invalid to change podAffinity"),
        "{refused:?}"
    );
}

#[test]
fn a_new_subnet_overlaps_no_other_and_controls_the_pools_of_its_cidr() {
    let new = written(&["10.0.0.10-10.0.0.20"]);
    let draft = new.draft(Kind::Subnet);
    let claim = subnet::alone(&draft, None, BOTH).unwrap();
    let judge = |pools: &[Pool], subnets: &[Subnet]| {
        said(subnet::among(&"new".into(), &claim, pools, subnets))
    };
    assert_eq!(
        judge(&[], &[net("", &[])]),
        [
            "spec.subnet: Invalid value: \"10.0.0.0/24\": overlap with Subnet net4 which 'spec.subnet' is 10.0.0.0/24"
        ]
    );
    let wide = Pool {
        cidr: "10.0.0.0/16".parse().unwrap(),
        ..seen("wide", "")
    };
    assert_eq!(
        judge(&[wide], &[]),
        [
            "spec.subnet: Invalid value: \"10.0.0.0/24\": overlap with SpiderIPPool 'wide' resource 'spec.subnet' 10.0.0.0/16"
        ]
    );
    assert_eq!(
        judge(&[seen("p", "18-22"), seen("q", "10")], &[]),
        [
            "spec.ips: Invalid value: [\"10.0.0.10-10.0.0.20\"]: SpiderIPPool 'p' owns some IP addresses that SpiderSubnet 'new' can't control: add [10.0.0.21-10.0.0.22]"
        ]
    );
    let itself = Subnet {
        name: SubnetName::from("new"),
        ..net("1", &[])
    };
    assert!(judge(&[seen("q", "10")], &[itself]).is_empty());
}

#[test]
fn a_subnet_may_not_lose_what_pools_have() {
    let old = written(&["10.0.0.1-10.0.0.50"]);
    let new = written(&["10.0.0.1-10.0.0.20"]);
    let before = |entries: &[(&str, &str)]| subnet::Before {
        draft: old.draft(Kind::Subnet),
        subnet: Some(net("1-50", entries)),
    };
    let draft = new.draft(Kind::Subnet);
    let jointly = "total IP addresses of an Subnet are jointly determined by 'spec.ips' and 'spec.excludeIPs'";
    let refused = said(subnet::alone(
        &draft,
        Some(&before(&[("p", "18-22"), ("q", "3")])),
        BOTH,
    ));
    assert_eq!(
        refused,
        [format!(
            "spec.ips: Forbidden: remove some IP ranges [10.0.0.21-10.0.0.22] that is being used by IPPool p, {jointly}"
        )]
    );
    // A pool that the ledger does not show yet.
    let claim = subnet::alone(&draft, Some(&before(&[])), BOTH).unwrap();
    let refused = said(subnet::among(
        &"net4".into(),
        &claim,
        &[seen("r", "30")],
        &[],
    ));
    assert_eq!(
        refused,
        [format!(
            "spec.ips: Forbidden: remove some IP ranges [10.0.0.30] that is being used by IPPool r, {jointly}"
        )]
    );
    assert!(claim.concerns_others());
}

#[test]
fn a_reservation_is_judged_range_by_range() {
    let judge = |version, ips: &[&str], old: Option<Option<i64>>| {
        let ips = texts(ips);
        let of = |ip_version| reserved::Draft {
            ip_version,
            ips: &ips,
        };
        said(reserved::judge(of(version), old.map(of), BOTH))
    };
    assert_eq!(
        judge(None, &["x"], None),
        [
            "spec.ipVersion: Invalid value: \"null\": is not generated correctly, 'spec.ips' is empty or 'spec.ips[0]' may be invalid"
        ]
    );
    assert_eq!(
        judge(Some(4), &["10.0.0.1", "fd00::1"], None),
        [
            "spec.ips[1]: Invalid value: \"fd00::1\": invalid IP range format in IPv4 'fd00::1': 'fd00::1' is not an IPv4 address: write one address, or two joined by '-'"
        ]
    );
    let changed = judge(Some(6), &["fd00::1"], Some(Some(4)));
    assert_eq!(
        changed,
        ["spec.ipVersion: Forbidden: is not changeable: make a new object instead"]
    );
    assert!(judge(Some(6), &["fd00::1"], Some(None)).is_empty());
    let filled = reserved::defaults(reserved::Draft {
        ip_version: None,
        ips: &texts(&["fd00::2", "fd00::1"]),
    });
    let wanted = reserved::Defaults {
        ip_version: 6,
        ips: Some(texts(&["fd00::1-fd00::2"])),
    };
    assert_eq!(filled, Some(wanted));
}

#[test]
fn what_was_left_out_follows_from_the_rest() {
    let left_out = Written {
        version: None,
        excluded: texts(&["10.0.0.7"]),
        ..written(&["10.0.0.3-10.0.0.9", "10.0.0.1-10.0.0.2"])
    };
    let filled = defaults(&left_out.draft(Kind::Pool)).unwrap();
    assert_eq!(
        (filled.ip_version, filled.cidr.to_string()),
        (4, "10.0.0.0/24".to_owned())
    );
    assert_eq!(filled.ips, Some(texts(&["10.0.0.1-10.0.0.9"])));
    assert_eq!(filled.excluded, None);
    // What can't be read is left for the refusal; what is in order is left alone.
    let bad = written(&["10.0.0.3", "?"]);
    assert_eq!(defaults(&bad.draft(Kind::Pool)).unwrap().ips, None);
    let good = written(&["10.0.0.3", "10.0.0.5"]);
    assert_eq!(defaults(&good.draft(Kind::Pool)).unwrap().ips, None);
    let none = Written {
        subnet: "?".into(),
        ..written(&[])
    };
    assert_eq!(defaults(&none.draft(Kind::Pool)), None);
}

/// A /8 and an IPv6 /64 against a hundred pools of as many ranges as an object may have.
#[test]
fn the_cost_is_in_ranges_not_in_addresses() {
    let wide = Written {
        version: Some(6),
        subnet: "fd00::/64".into(),
        ..written(&["fd00::1-fd00::ffff:ffff:ffff:fffe"])
    };
    let other: Vec<String> = (0..0x2000_u128)
        .map(|n| format!("fd00::{:x}", n.saturating_mul(2)))
        .collect();
    let other = parse_list(&other, Family::V6).unwrap();
    let others: Vec<Pool> = (0..100)
        .map(|n| Pool {
            name: PoolName::new(format!("p{n}")),
            cidr: "fd00::/64".parse().unwrap(),
            ips: other.clone(),
            ..seen("p", "")
        })
        .collect();
    let refused = wide.refused_among(&others, &[]);
    assert_eq!(refused.len(), super::REFUSALS_MAX);
    let eight = Written {
        subnet: "10.0.0.0/8".into(),
        ..written(&["10.0.0.0-10.255.255.255"])
    };
    assert!(eight.refused_among(&[], &[]).is_empty());
}

/// However many mistakes there are, and however long: the answer is short.
#[test]
fn an_answer_is_bounded() {
    let long = "9".repeat(100_000);
    let many: Vec<&str> = vec![&long; 1000];
    let refused = Written {
        subnet: "10.0.0.0/24".into(),
        ..written(&many)
    }
    .refused();
    assert_eq!(refused.len(), super::REFUSALS_MAX);
    assert!(
        refused.concat().len() < 32 * 1024,
        "{}",
        refused.concat().len()
    );
}

#[test]
fn others_are_asked_about_a_pool_that_is_new_or_has_what_it_had_not() {
    let old = written(&["10.0.0.10-10.0.0.20"]);
    let concerns = |new: &Written, before: Option<Pool>| {
        let before = before.map(|pool| pool::Before {
            draft: old.pool(),
            pool: Some(pool),
        });
        let claim = pool::alone(&new.pool(), before.as_ref(), BOTH).unwrap();
        claim.concerns_others()
    };
    let (grown, shrunk) = (
        written(&["10.0.0.10-10.0.0.21"]),
        written(&["10.0.0.10-10.0.0.19"]),
    );
    let pool = || Some(seen("p", "10-20"));
    assert!(concerns(&old, None));
    assert!(concerns(&grown, pool()));
    assert!(!concerns(&shrunk, pool()));
    assert!(!concerns(&old, pool()));
    // What a workload's pool loses, its subnet has a say in.
    let of_web = |written: &Written| Written {
        auto: true,
        ..written.clone()
    };
    let own = || Some(of_workload(&workload("web"), seen("p", "10-20")));
    assert!(concerns(&of_web(&shrunk), own()));
    assert!(!concerns(&of_web(&old), own()));
}

#[test]
fn a_pool_beside_one_of_an_overlapping_cidr_may_change_what_it_has() {
    let old = written(&["10.0.0.10-10.0.0.20"]);
    let grown = written(&["10.0.0.10-10.0.0.21"]);
    let before = pool::Before {
        draft: old.pool(),
        pool: Some(seen("p", "10-20")),
    };
    let claim = pool::alone(&grown.pool(), Some(&before), BOTH).unwrap();
    let wide = Pool {
        cidr: "10.0.0.0/16".parse().unwrap(),
        ..seen("wide", "200")
    };
    pool::among(&"p".into(), &claim, &[wide], &[]).unwrap();
}

#[test]
fn names_are_those_that_objects_can_have_and_a_form_is_recommended() {
    let of = |names: &[&str], networks: &[&str]| {
        let named = Written {
            restrictions: Restrictions {
                node_names: texts(names),
                networks: texts(networks),
                ..Restrictions::default()
            },
            ..written(&[])
        };
        named.refused()
    };
    let right = ["a", "a-1.b", "9"];
    assert!(of(&right, &["a-1.b", "kube-system/a"]).is_empty());
    for wrong in ["", "-a", "a-", ".a", "a.", "a_b", "A", "a b"] {
        assert_eq!(of(&[wrong], &[wrong]).len(), 2, "{wrong:?}");
    }
    let told = of(&["A"], &["A"]);
    let [of_node, of_network] = told.as_slice() else {
        unreachable!("{told:?}")
    };
    assert!(of_node.contains(": write name, of lower case"), "{of_node}");
    let form = ": write name or namespace/name, of lower case";
    assert!(of_network.contains(form), "{of_network}");
}

#[test]
fn ranges_that_can_be_joined_are_and_one_alone_is_left_as_it_is() {
    let of = |ips: &[&str]| {
        let written = written(ips);
        defaults(&written.draft(Kind::Pool)).unwrap().ips
    };
    assert_eq!(
        of(&["10.0.0.2", "10.0.0.1"]),
        Some(texts(&["10.0.0.1-10.0.0.2"]))
    );
    assert_eq!(of(&["10.0.0.1-10.0.0.2", "10.0.0.4"]), None);
    assert_eq!(of(&["10.0.0.1-10.0.0.1"]), None);
}

#[test]
fn others_are_asked_about_a_subnet_that_is_new_or_gives_something_up() {
    let old = written(&["10.0.0.1-10.0.0.50"]);
    let before = subnet::Before {
        draft: old.draft(Kind::Subnet),
        subnet: Some(net("1-50", &[])),
    };
    let concerns = |ips: &str, before: Option<&subnet::Before<'_>>| {
        let new = written(&[ips]);
        let claim = subnet::alone(&new.draft(Kind::Subnet), before, BOTH).unwrap();
        claim.concerns_others()
    };
    assert!(concerns("10.0.0.1-10.0.0.50", None));
    assert!(concerns("10.0.0.1-10.0.0.49", Some(&before)));
    assert!(!concerns("10.0.0.1-10.0.0.50", Some(&before)));
    assert!(!concerns("10.0.0.1-10.0.0.51", Some(&before)));
}

#[test]
fn of_many_ranges_of_a_subnet_the_first_four_are_shown() {
    let beyond = |ips: &[&str]| {
        let new = written(ips);
        let draft = new.draft(Kind::Subnet);
        let claim = subnet::alone(&draft, None, BOTH).unwrap();
        let told = said(subnet::among(
            &"new".into(),
            &claim,
            &[seen("p", "90")],
            &[],
        ));
        first(&told).to_owned()
    };
    let four = ["10.0.0.1", "10.0.0.3", "10.0.0.5", "10.0.0.7"];
    let shown = "[\"10.0.0.1\",\"10.0.0.3\",\"10.0.0.5\",\"10.0.0.7\"";
    assert!(beyond(&four).contains(&format!("{shown}]")));
    let five = [&four[..], &["10.0.0.9"]].concat();
    assert!(beyond(&five).contains(&format!("{shown},…]")));
}
