//! Which values there are; none other goes through.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::{CHART, helm, read, refusal};

#[test]
fn an_unknown_value_is_refused_at_every_level() {
    for unknown in [
        "unknown=1",
        "global.unknown=1",
        "ipam.enableIpv4=true",
        "ipam.spiderSubnet.autopool.enable=true",
        "spiderpoolAgent.prometheus.enable=true",
        "spiderpoolController.hostNetwork=true",
        "clusterDefaultPool.ipv4Subnets=x",
        "image.registry=x",
    ] {
        let Some(why) = refusal(&[unknown]) else {
            return;
        };
        assert!(why.contains("additional properties"), "{unknown}: {why}");
    }
}

#[test]
fn an_ill_typed_value_is_refused_with_its_place() {
    for (wrong, place) in [
        ("ipam.enableIPv4=yes", "/ipam/enableIPv4"),
        (
            "ipam.spiderSubnet.autoPool.defaultRedundantIPNumber=-1",
            "/defaultRedundantIPNumber",
        ),
        (
            "ipam.spiderSubnet.autoPool.defaultRedundantIPNumber=half",
            "/defaultRedundantIPNumber",
        ),
        (
            "spiderpoolAgent.httpPort=70000",
            "/spiderpoolAgent/httpPort",
        ),
        (
            "spiderpoolController.replicas=two",
            "/spiderpoolController/replicas",
        ),
        (
            "spiderpoolAgent.debug.logLevel=verbose",
            "/spiderpoolAgent/debug/logLevel",
        ),
        (
            "global.ipamUNIXSocketHostPath=relative.sock",
            "/global/ipamUNIXSocketHostPath",
        ),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("conflist.fileName=net.conf", "/conflist/fileName"),
    ] {
        let Some(why) = refusal(&[wrong]) else { return };
        assert!(why.contains(place), "{wrong}: {why}");
    }
}

#[test]
fn the_schema_knows_exactly_the_values_that_are_documented() {
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    compare("", &values, &schema);
}

#[test]
fn the_charts_version_is_the_programs() {
    let chart: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn helms_own_checks_find_nothing() {
    let Some(output) = helm(&["lint", "--strict", CHART]) else {
        return;
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Values and schema name the same keys; below a schema without `properties` a user's own keys begin.
fn compare(place: &str, values: &Value, schema: &Value) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let given = values
        .as_object()
        .unwrap_or_else(|| panic!("{place} is not a map"));
    let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(given), keys(known), "keys of {place}/");
    assert_eq!(
        schema["additionalProperties"], false,
        "{place}/ lets unknown keys through"
    );
    for (key, value) in given {
        compare(&format!("{place}/{key}"), value, &known[key]);
    }
}
