use super::super::addresses::addresses;
use super::super::objects::{Counts, Record};
use super::*;

fn pool(name: &str, ips: &str, records: &[(&str, &str)]) -> Pool {
    let addresses = addresses([ips]).unwrap();
    let record = |uid: &str| Record {
        pod: format!("ns/{uid}"),
        uid: uid.to_owned(),
        sandbox: None,
    };
    Pool {
        name: name.to_owned(),
        cidr: "10.0.0.0/24".to_owned(),
        counts: Counts {
            allocated: records.len(),
            total: addresses.len(),
        },
        addresses,
        records: records
            .iter()
            .map(|(ip, uid)| (ip.parse().unwrap(), record(uid)))
            .collect(),
        conditions: Vec::new(),
        affinity: BTreeMap::new(),
        terminating: false,
    }
}

fn pod(uid: &str, ip: &str) -> Pod {
    Pod {
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        uid: uid.to_owned(),
        node: "n".to_owned(),
        ips: vec![ip.parse().unwrap()],
        ready: true,
        terminating: false,
        on_host: false,
    }
}

/// Two pools of a subnet, one Pod in each.
fn books() -> Books {
    let pools = vec![
        pool("a", "10.0.0.1-10.0.0.2", &[("10.0.0.1", "u1")]),
        pool("b", "10.0.0.3-10.0.0.4", &[("10.0.0.3", "u2")]),
    ];
    let ledger = pools
        .iter()
        .map(|pool| (pool.name.clone(), claimed(pool)))
        .collect();
    let subnet = Subnet {
        name: "s".to_owned(),
        cidr: "10.0.0.0/24".to_owned(),
        addresses: addresses(["10.0.0.1-10.0.0.9"]).unwrap(),
        ledger,
        counts: Counts {
            allocated: 4,
            total: 9,
        },
        conditions: Vec::new(),
    };
    let pods = vec![pod("u1", "10.0.0.1"), pod("u2", "10.0.0.3")];
    Books {
        subnets: vec![subnet],
        pools,
        pods,
        endpoints: Vec::new(),
    }
}

/// What is found after one change of books that agree.
fn found_after(change: impl FnOnce(&mut Books)) -> String {
    let mut books = books();
    books.ensure_agree().unwrap();
    change(&mut books);
    books.disagreements().join("; ")
}

#[test]
fn an_address_in_two_pools_is_found() {
    let found = found_after(|books| {
        let record = books.pools[0].records[&"10.0.0.1".parse::<IpAddr>().unwrap()].clone();
        books.pools[1]
            .records
            .insert("10.0.0.1".parse().unwrap(), record);
    });
    assert!(
        found.contains("10.0.0.1 is recorded in pools a and b"),
        "{found}"
    );
    assert!(
        found.contains("10.0.0.1 is recorded in pool b, which lacks it"),
        "{found}"
    );
}

#[test]
fn a_ledger_that_has_more_than_the_pool_is_found() {
    let found = found_after(|books| {
        let entry = books.subnets[0].ledger.get_mut("a").unwrap();
        entry.insert("10.0.0.9".parse().unwrap());
        books.subnets[0].counts.allocated = 5;
    });
    assert_eq!(
        found,
        "subnet s gives pool a {10.0.0.1 10.0.0.2 10.0.0.9}, it has {10.0.0.1 10.0.0.2}"
    );
}

#[test]
fn a_pool_that_the_ledger_does_not_know_is_found() {
    let found = found_after(|books| {
        books.subnets[0].ledger.remove("b");
        books.subnets[0].counts.allocated = 2;
    });
    assert_eq!(
        found,
        "subnet s gives pool b {}, it has {10.0.0.3 10.0.0.4}"
    );
}

#[test]
fn a_pod_with_an_address_that_nobody_recorded_for_it_is_found() {
    let found = found_after(|books| books.pods[1].ips = vec!["10.0.0.1".parse().unwrap()]);
    assert_eq!(
        found,
        r#"Pod ns/u2 has 10.0.0.1, recorded for ["u1"] and not for u2"#
    );
}

#[test]
fn an_address_held_for_a_pod_that_is_gone_is_found() {
    let found = found_after(|books| drop(books.pods.pop()));
    assert_eq!(
        found,
        "10.0.0.3 in pool b is held for Pod ns/u2, which is gone"
    );
}

#[test]
fn counts_that_do_not_add_up_are_found() {
    let found = found_after(|books| {
        books.pools[0].counts.allocated = 2;
        books.subnets[0].counts.total = 8;
    });
    assert_eq!(
        found,
        "pool a tells 2 of 2, it has 1 of 2; subnet s tells 4 of 8, it has given 4 of 9"
    );
}
