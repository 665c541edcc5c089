//! Objects of the four kinds, read by our types and written back: nothing may be lost, whoever put it there.
//!
//! That the API server takes these files under our definitions is for the scenarios on a real cluster to show.

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kube::core::{DeserializeGuard, Resource};
    use orbweaver::api::{SpiderEndpoint, SpiderIPPool, SpiderReservedIP, SpiderSubnet, crd};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    /// What a newer version, or another program, might have added.
    fn newer() -> Value {
        json!({"list": [1, -2, 1.5, {"deep": null}], "text": "as it was", "yes": true})
    }

    #[test]
    fn every_object_of_the_original_is_written_back_as_it_was_read() {
        let objects = objects("objects.yaml");
        assert_eq!(objects.len(), 30);
        for object in objects {
            assert_eq!(written_back(&object), object);
        }
    }

    #[test]
    fn keys_that_no_type_knows_are_kept_at_every_level() {
        for file in ["objects.yaml", "full.yaml"] {
            for mut object in objects(file) {
                for part in ["spec", "status"] {
                    if let Some(part) = object.get_mut(part) {
                        add_unknown_keys(part);
                    }
                }
                assert_eq!(written_back(&object), object);
            }
        }
    }

    #[test]
    fn the_full_objects_have_every_field_of_the_schema() {
        let objects = objects("full.yaml");
        for definition in crd::definitions().unwrap() {
            let kind = &definition.spec.names.kind;
            let object = objects.iter().find(|o| o["kind"] == **kind).unwrap();
            let definition = serde_json::to_value(&definition).unwrap();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut missing = Vec::new();
            compare(schema, object, kind, &mut missing);
            assert!(
                missing.is_empty(),
                "not in tests/golden/full.yaml: {missing:#?}"
            );
        }
    }

    #[test]
    fn an_empty_list_and_no_list_are_not_the_same() {
        let mut object = objects("full.yaml").remove(1);
        let spec = object["spec"].as_object_mut().unwrap();
        spec.insert("routes".to_owned(), json!([]));
        spec.insert("excludeIPs".to_owned(), json!([]));
        spec.remove("gateway");
        assert_eq!(written_back(&object), object);
    }

    #[test]
    fn an_object_without_a_spec_is_named_and_not_taken_for_another() {
        let object = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": "bare"}
        });
        let read: DeserializeGuard<SpiderIPPool> = serde_json::from_value(object).unwrap();
        let error = read.0.unwrap_err();
        assert_eq!(error.metadata.name.as_deref(), Some("bare"));
        assert!(error.error.contains("spec"), "{error}");
    }

    fn objects(file: &str) -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(file);
        let text = std::fs::read_to_string(path).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    }

    fn written_back(object: &Value) -> Value {
        match object["kind"].as_str().unwrap() {
            "SpiderSubnet" => through::<SpiderSubnet>(object),
            "SpiderIPPool" => through::<SpiderIPPool>(object),
            "SpiderEndpoint" => through::<SpiderEndpoint>(object),
            "SpiderReservedIP" => through::<SpiderReservedIP>(object),
            kind => panic!("{kind} is not one of ours"),
        }
    }

    /// Reads as a call does and as a watch does, which must not differ, and writes.
    fn through<K: Resource + Serialize + DeserializeOwned>(object: &Value) -> Value {
        let called: K = serde_json::from_value(object.clone()).unwrap();
        let watched: DeserializeGuard<K> = serde_json::from_value(object.clone()).unwrap();
        let called = serde_json::to_value(called).unwrap();
        assert_eq!(serde_json::to_value(watched.0.unwrap()).unwrap(), called);
        called
    }

    fn add_unknown_keys(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    // A map of texts by key has no unknown keys.
                    if name != "matchLabels" {
                        add_unknown_keys(field);
                    }
                }
                fields.insert("newer".to_owned(), newer());
            }
            Value::Array(elements) => elements.iter_mut().for_each(add_unknown_keys),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Names the properties of the schema that the value doesn't have. Of a list the first element counts.
    fn compare(schema: &Value, value: &Value, path: &str, missing: &mut Vec<String>) {
        if let Some(items) = schema.get("items") {
            match value.get(0) {
                Some(first) => compare(items, first, &format!("{path}[0]"), missing),
                None => missing.push(format!("{path}[0]")),
            }
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match value.get(name) {
                Some(value) => compare(property, value, &path, missing),
                None => missing.push(path),
            }
        }
    }
}
