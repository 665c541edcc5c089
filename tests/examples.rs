//! What a reader may apply is right: every object of `examples/` is what its kind allows, and the core understands it.
//!
//! Not here: that the objects do what their comments say; the demo and the scenarios of `e2e/` apply them.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use ipam::annotation;
    use ipam::name::{PoolName, SubnetName};
    use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
    use orbweaver::api::names::annotation as key;
    use orbweaver::api::{SpiderIPPool, SpiderSubnet, convert};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    #[test]
    fn every_object_is_read_and_written_back_with_nothing_lost() {
        for (place, object) in objects() {
            match object["kind"].as_str().unwrap() {
                "SpiderSubnet" => lossless::<SpiderSubnet>(&place, &object),
                "SpiderIPPool" => lossless::<SpiderIPPool>(&place, &object),
                "Deployment" => lossless::<Deployment>(&place, &object),
                "StatefulSet" => lossless::<StatefulSet>(&place, &object),
                other => panic!("{place}: a {other}: add its type here"),
            }
        }
    }

    #[test]
    fn every_pool_and_subnet_has_no_key_that_ours_do_not_have_and_no_value_the_core_refuses() {
        for (place, object) in objects() {
            match object["kind"].as_str().unwrap() {
                "SpiderSubnet" => {
                    let subnet: SpiderSubnet = serde_json::from_value(object).unwrap();
                    assert!(
                        subnet.spec.unknown.is_empty(),
                        "{place}: {:?}",
                        subnet.spec.unknown
                    );
                    convert::subnet(&subnet).unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                "SpiderIPPool" => {
                    let pool: SpiderIPPool = serde_json::from_value(object).unwrap();
                    assert!(
                        pool.spec.unknown.is_empty(),
                        "{place}: {:?}",
                        pool.spec.unknown
                    );
                    convert::pool(&pool).unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn every_annotation_is_understood_and_names_what_another_example_makes() {
        let known = [
            key::SUBNETS,
            key::SUBNET,
            key::IPPOOLS,
            key::IPPOOL,
            key::IP_NUMBER,
            key::RECLAIM,
            key::ROUTES,
            ipam::attachment::NETWORKS,
        ];
        let (pools, subnets) = (names("SpiderIPPool"), names("SpiderSubnet"));
        for (place, object) in objects() {
            let Some(annotations) = object.pointer("/spec/template/metadata/annotations") else {
                continue;
            };
            let annotations = annotations.as_object().unwrap();
            for name in annotations.keys() {
                assert!(
                    known.contains(&name.as_str()),
                    "{place}: {name} is no annotation that we know"
                );
            }
            let get = |name: &str| annotations.get(name).and_then(Value::as_str);
            for item in annotation::subnets(&get).unwrap().unwrap_or_default() {
                for subnet in [item.ipv4, item.ipv6].into_iter().flatten() {
                    assert!(
                        subnets.contains(SubnetName::as_str(&subnet)),
                        "{place}: {subnet}"
                    );
                }
            }
            let named = annotation::ippool(&get).unwrap().unwrap_or_default();
            for pool in named.ipv4.iter().chain(&named.ipv6) {
                assert!(pools.contains(PoolName::as_str(pool)), "{place}: {pool}");
            }
            annotation::check(&get).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
    }

    #[test]
    fn every_example_starts_with_a_comment_and_is_listed_in_the_readme() {
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        for file in files() {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            assert!(text.starts_with("# "), "{file} does not say what it is");
            assert!(readme.contains(&file), "README.md does not list {file}");
        }
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn files() -> BTreeSet<String> {
        let entries = fs::read_dir(root().join("examples")).unwrap();
        entries
            .map(|entry| format!("examples/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect()
    }

    /// Every object, with the file and number it stands at.
    fn objects() -> Vec<(String, Value)> {
        let mut all = Vec::new();
        for file in files() {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let placed = objects.into_iter().enumerate();
            all.extend(
                placed.map(|(number, object)| (format!("{file}, object {}", number + 1), object)),
            );
        }
        all
    }

    fn names(kind: &str) -> BTreeSet<String> {
        let of_kind = objects()
            .into_iter()
            .filter(|(_, object)| object["kind"] == kind);
        of_kind
            .map(|(_, object)| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn lossless<T: DeserializeOwned + Serialize>(place: &str, object: &Value) {
        let typed: T = serde_json::from_value(object.clone())
            .unwrap_or_else(|error| panic!("{place}: {error}"));
        let written = serde_json::to_value(typed).unwrap();
        assert_contains(place, &written, object);
    }

    /// What was read is in what was written, which may add defaults.
    fn assert_contains(place: &str, written: &Value, read: &Value) {
        match (written, read) {
            (Value::Object(written), Value::Object(read)) => {
                for (key, value) in read {
                    let place = format!("{place}, {key}");
                    let kept = written
                        .get(key)
                        .unwrap_or_else(|| panic!("{place}: the kind has no such key"));
                    assert_contains(&place, kept, value);
                }
            }
            (Value::Array(written), Value::Array(read)) => {
                assert_eq!(written.len(), read.len(), "{place}");
                for (written, read) in written.iter().zip(read) {
                    assert_contains(place, written, read);
                }
            }
            _ => assert_eq!(written, read, "{place}"),
        }
    }
}
