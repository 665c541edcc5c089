//! Strategic merge patches: merge patches that know which lists are maps by a key.
//!
//! Which lists those are, and by which key, the types say (`x-kubernetes-patch-strategy` and
//! `x-kubernetes-patch-merge-key`). Directives: `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`
//! and `$setElementOrder/…`.

use serde_json::{Map, Value};

use crate::typed;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Merges a patch into an object of a type.
///
/// Errors: an element of a list by key without that key, or an unknown directive, in words.
pub(crate) fn merge(type_name: &str, object: &mut Value, patch: &Value) -> Result<(), String> {
    merge_map(typed::definition(type_name), object, patch)
}

fn merge_map(schema: &'static Value, object: &mut Value, patch: &Value) -> Result<(), String> {
    let Some(given) = patch.as_object() else {
        *object = patch.clone();
        return Ok(());
    };
    match given.get(PATCH).and_then(Value::as_str) {
        Some("replace") => {
            let mut whole = given.clone();
            whole.remove(PATCH);
            *object = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unknown patch type: {other}")),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let Some(kept) = given.get(RETAIN_KEYS).and_then(Value::as_array)
        && let Value::Object(map) = object
    {
        map.retain(|key, _| kept.iter().any(|one| one.as_str() == Some(key)));
    }
    for (key, value) in given {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(ORDER_PREFIX) {
            continue;
        }
        if let Some(list) = key.strip_prefix(DELETE_PREFIX) {
            delete_from(object, list, value);
            continue;
        }
        let before = object.get(key).and_then(Value::as_array).cloned();
        merge_field(schema, object, key, value)?;
        let is_ordered = given.contains_key(&format!("{ORDER_PREFIX}{key}"));
        if let (Some(before), Value::Array(patch), false) = (before, value, is_ordered) {
            let field = field_of(schema, key);
            if field.is_some_and(|field| strategy(field).contains("merge")) {
                arrange(object, key, field.and_then(merge_key), &before, patch);
            }
        }
    }
    for (key, order) in given {
        if let Some(list) = key.strip_prefix(ORDER_PREFIX) {
            let merge_key = field_of(schema, list).and_then(merge_key);
            reorder(object, list, merge_key, order);
        }
    }
    Ok(())
}

fn merge_field(
    schema: &'static Value,
    object: &mut Value,
    key: &str,
    value: &Value,
) -> Result<(), String> {
    let Value::Object(map) = object else {
        return Ok(());
    };
    if value.is_null() {
        map.remove(key);
        return Ok(());
    }
    let field = field_of(schema, key);
    match value {
        Value::Object(inner) => {
            let deletes = inner.get(PATCH).and_then(Value::as_str) == Some("delete");
            if deletes {
                map.remove(key);
                return Ok(());
            }
            let inner = field.map_or(&Value::Null, |field| typed::resolve(field).0);
            merge_map(
                inner,
                map.entry(key.to_owned())
                    .or_insert_with(|| Value::Object(Map::new())),
                value,
            )
        }
        Value::Array(elements) => {
            let merges = field.is_some_and(|field| strategy(field).contains("merge"));
            if !merges {
                map.insert(key.to_owned(), value.clone());
                return Ok(());
            }
            let list = map
                .entry(key.to_owned())
                .or_insert_with(|| Value::Array(Vec::new()));
            if !list.is_array() {
                *list = Value::Array(Vec::new());
            }
            let Value::Array(list) = list else {
                return Ok(());
            };
            if let Some(by) = field.and_then(merge_key) {
                return merge_list(field.unwrap_or(&Value::Null), by, list, elements);
            }
            for element in elements {
                if !list.contains(element) {
                    list.push(element.clone());
                }
            }
            Ok(())
        }
        _ => {
            map.insert(key.to_owned(), value.clone());
            Ok(())
        }
    }
}

fn merge_list(
    field: &'static Value,
    by: &str,
    list: &mut Vec<Value>,
    elements: &[Value],
) -> Result<(), String> {
    let item = field
        .get("items")
        .map_or(&Value::Null, |item| typed::resolve(item).0);
    let directive = |element: &Value| {
        element
            .get(PATCH)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    if elements
        .iter()
        .any(|element| directive(element).as_deref() == Some("replace"))
    {
        *list = elements
            .iter()
            .filter(|element| directive(element).is_none())
            .cloned()
            .collect();
        return Ok(());
    }
    for element in elements {
        let key = element
            .get(by)
            .ok_or_else(|| format!("map: {element} does not contain declared merge key: {by}"))?;
        let at = list.iter().position(|one| one.get(by) == Some(key));
        match (directive(element).as_deref(), at) {
            (Some("delete"), _) => list.retain(|one| one.get(by) != Some(key)),
            (_, Some(at)) => {
                if let Some(slot) = list.get_mut(at) {
                    merge_map(item, slot, element)?;
                }
            }
            (_, None) => {
                let mut new = Value::Object(Map::new());
                merge_map(item, &mut new, element)?;
                list.push(new);
            }
        }
    }
    Ok(())
}

/// Without an order: what the patch names stands in its order, before the first of the others that
/// it did not stand behind already.
fn arrange(object: &mut Value, list: &str, by: Option<&str>, before: &[Value], patch: &[Value]) {
    let Some(Value::Array(list)) = object.get_mut(list) else {
        return;
    };
    let place = |all: &[Value], one: &Value| {
        all.iter().position(|other| match by {
            Some(by) => other.get(by) == one.get(by),
            None => other == one,
        })
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = std::mem::take(list)
        .into_iter()
        .partition(|one| place(patch, one).is_some());
    named.sort_by_key(|one| place(patch, one));
    others.sort_by_key(|one| place(before, one));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(new), Some(old)) = (named.peek(), others.peek()) {
        let is_first = place(before, new).is_some_and(|at| place(before, old) < Some(at));
        list.extend(if is_first {
            others.next()
        } else {
            named.next()
        });
    }
    list.extend(others.chain(named));
}

fn delete_from(object: &mut Value, list: &str, gone: &Value) {
    let gone = gone.as_array().map_or(&[][..], Vec::as_slice);
    if let Some(Value::Array(list)) = object.get_mut(list) {
        list.retain(|one| !gone.contains(one));
    }
}

/// Puts the elements that an order names into that order; the others keep their places behind
/// those they stood behind.
fn reorder(object: &mut Value, list: &str, by: Option<&str>, order: &Value) {
    let Some(Value::Array(list)) = object.get_mut(list) else {
        return;
    };
    let order = order.as_array().map_or(&[][..], Vec::as_slice);
    let rank = |one: &Value| {
        order.iter().position(|wanted| match by {
            Some(by) => wanted.get(by) == one.get(by),
            None => wanted == one,
        })
    };
    let mut named: Vec<Value> = list
        .iter()
        .filter(|one| rank(one).is_some())
        .cloned()
        .collect();
    named.sort_by_key(|one| rank(one));
    let others: Vec<(usize, Value)> = list
        .iter()
        .cloned()
        .enumerate()
        .filter(|(_, one)| rank(one).is_none())
        .collect();
    for (at, other) in others {
        named.insert(at.min(named.len()), other);
    }
    *list = named;
}

fn field_of(schema: &'static Value, key: &str) -> Option<&'static Value> {
    schema.get("properties")?.get(key)
}

fn strategy(field: &'static Value) -> &'static str {
    field
        .get("x-kubernetes-patch-strategy")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn merge_key(field: &'static Value) -> Option<&'static str> {
    field
        .get("x-kubernetes-patch-merge-key")
        .and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    #[test]
    fn containers_merge_by_name_and_plain_lists_are_replaced() {
        let mut pod = json!({ "spec": { "containers": [
            { "name": "a", "image": "1", "args": ["x"] }, { "name": "b", "image": "1" } ] } });
        let patch = json!({ "spec": { "containers": [
            { "name": "a", "args": ["y"] }, { "name": "b", "$patch": "delete" }, { "name": "c", "image": "2" } ] } });
        merge(POD, &mut pod, &patch).unwrap();
        let wanted = json!({ "spec": { "containers": [
            { "name": "a", "image": "1", "args": ["y"] }, { "name": "c", "image": "2" } ] } });
        assert_eq!(pod, wanted);
    }

    #[test]
    fn retained_keys_drop_the_others() {
        let mut deployment =
            json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": {} } } });
        let patch =
            json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } });
        merge("io.k8s.api.apps.v1.Deployment", &mut deployment, &patch).unwrap();
        assert_eq!(
            deployment,
            json!({ "spec": { "strategy": { "type": "Recreate" } } })
        );
    }

    #[test]
    fn finalizers_merge_as_a_set_and_can_be_taken_out() {
        let mut pod = json!({ "metadata": { "finalizers": ["a/a", "b/b"] } });
        let patch = json!({ "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["a/a"], "finalizers": ["b/b", "c/c"] } });
        merge(POD, &mut pod, &patch).unwrap();
        assert_eq!(pod, json!({ "metadata": { "finalizers": ["b/b", "c/c"] } }));
    }
}
