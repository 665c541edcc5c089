use chrono::TimeDelta;
use insta::assert_snapshot;
use ipam::collect::{Home, LostNodes, Sign, Standing};
use ipam::leak::Holding;
use ipam::name::NodeName;
use ipam::record::Records;

use super::*;
use crate::cli::render::{Format, formatted};

const POLICY: Policy = Policy {
    lost_nodes: LostNodes::ByTime,
    delay: TimeDelta::zero(),
};

/// A finding about an address of a Pod on this node.
fn found(last: u8, node: &str, standing: Standing, keeper: Option<&str>) -> Finding {
    let text = format!(
        r#"{{"10.6.0.{last}":{{"pod":"shop/web-{last}","podUid":"u-{last}","node":"{node}"}}}}"#
    );
    let records = Records::parse(Some(&text)).unwrap();
    let (address, record) = records.iter().next().unwrap();
    let lineage = keeper.map(|uid| Lineage::of_set(uid.into()));
    let seen = Seen {
        holding: Holding::of(&"net".into(), address, record).remove(0),
        fate: Fate::Gone,
        home: Home::Recorded(NodeName::from(node), standing),
        lineage: lineage.clone(),
    };
    let verdict = collect::judge(&seen, &POLICY, time::now());
    finding(&seen, &verdict, lineage)
}

fn collectable() -> Collectable {
    let long_ago = Some("2020-01-01T00:00:00Z".parse().unwrap());
    let unready = Standing::Unready {
        since: long_ago,
        sign: Sign::NotAsked,
    };
    Collectable {
        records: 40,
        kept: 3,
        notes: vec![],
        findings: vec![
            found(10, "n1", Standing::Ready { since: long_ago }, None),
            found(11, "n2", unready.clone(), None),
            found(12, "n2", unready, Some("set")),
            found(13, "n3", Standing::OutOfService, None),
            found(14, "n4", Standing::Gone, Some("set")),
        ],
    }
}

#[test]
fn each_address_without_a_living_pod_is_a_row_with_its_verdict_and_what_it_waits_for() {
    assert_snapshot!(collectable().text(Some(120)), @"
    ADDRESS     POOL   POD           VERDICT   WHY
    10.6.0.10   net    shop/web-10   Agent     its Pod is gone, and Node n1 is ready: the agent there frees it
    10.6.0.11   net    shop/web-11   Wait      Node n2 is not ready; it goes unless the machine answers the controller
    10.6.0.12   net    shop/web-12   Wait      Node n2 is not ready, and a fixed address waits for more than time: if
                                               nothing runs there any more, delete Node n2 or taint it
                                               node.kubernetes.io/out-of-service
    10.6.0.13   net    shop/web-13   Release   its Pod is gone or ends, and Node n3 is tainted out of service and not ready
    10.6.0.14   net    shop/web-14   Keep      its Pod is gone or ends, and Node n4 is deleted

    5 of 40 records have no living Pod: 1 to release, 1 to keep for the next Pod, 1 for agents, 2 waiting. The others are of a Pod that lives or kept for a Pod to come (3). The controller acts when two looks agree.
    ");
}

#[test]
fn nothing_to_release_is_one_line() {
    let mut nothing = Collectable {
        records: 40,
        kept: 0,
        notes: vec![],
        findings: vec![],
    };
    assert_snapshot!(nothing.text(None), @"nothing to release: 40 records, each of a Pod that lives");
    nothing.kept = 3;
    nothing.notes.push("no ConfigMap can be read".to_owned());
    assert_snapshot!(nothing.text(None), @"
    nothing to release: 40 records, each of a Pod that lives or kept for a Pod to come (3)
    note: no ConfigMap can be read
    ");
}

#[test]
fn programs_read_the_same_as_yaml() {
    let mut collectable = collectable();
    collectable.findings.drain(1..);
    assert_snapshot!(formatted(&collectable, Format::Yaml, None).unwrap(), @r#"
    records: 40
    kept: 3
    findings:
    - address: "10.6.0.10"
      pool: net
      pod: shop/web-10
      uid: u-10
      node: n1
      verdict: Agent
      why: "its Pod is gone, and Node n1 is ready: the agent there frees it"
    "#);
}
