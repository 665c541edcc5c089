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
    let orders = orders(schema, object, given);
    for (key, value) in given {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(ORDER_PREFIX) {
            continue;
        }
        match key.strip_prefix(DELETE_PREFIX) {
            Some(list) => delete_from(object, list, value),
            None => merge_field(schema, object, key, value)?,
        }
    }
    for order in orders {
        order.bring_to(object);
    }
    Ok(())
}

/// In which order a merged list is to be.
struct Order<'p> {
    list: &'p str,
    by: Option<&'static str>,
    /// As it was.
    before: Vec<Value>,
    /// As the patch has it: in so many words, or by what it names.
    wanted: &'p [Value],
}

/// Of every list that is merged, or only put in order.
fn orders<'p>(
    schema: &'static Value,
    object: &Value,
    given: &'p Map<String, Value>,
) -> Vec<Order<'p>> {
    let orders = given.iter().filter_map(|(key, value)| {
        let list = match key.strip_prefix(ORDER_PREFIX) {
            Some(list) => list,
            None if given.contains_key(&format!("{ORDER_PREFIX}{key}")) => return None,
            None => key,
        };
        let field = field_of(schema, list).filter(|field| strategy(field).contains("merge"))?;
        let before = object.get(list).and_then(Value::as_array);
        Some(Order {
            list,
            by: merge_key(field),
            before: before.cloned().unwrap_or_default(),
            wanted: value.as_array()?,
        })
    });
    orders.collect()
}

impl Order<'_> {
    /// What the patch names stands in its order, before the first of the others that it did not stand
    /// behind already.
    fn bring_to(&self, object: &mut Value) {
        let Some(Value::Array(list)) = object.get_mut(self.list) else {
            return;
        };
        let place = |all: &[Value], one: &Value| {
            all.iter().position(|other| match self.by {
                Some(by) => other.get(by) == one.get(by),
                None => other == one,
            })
        };
        let (mut named, mut others): (Vec<Value>, Vec<Value>) = std::mem::take(list)
            .into_iter()
            .partition(|one| place(self.wanted, one).is_some());
        named.sort_by_key(|one| place(self.wanted, one));
        others.sort_by_key(|one| place(&self.before, one));
        let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
        while let (Some(new), Some(old)) = (named.peek(), others.peek()) {
            let at = place(&self.before, new);
            let is_behind = at.is_some() && place(&self.before, old) < at;
            list.extend(if is_behind {
                others.next()
            } else {
                named.next()
            });
        }
        list.extend(others.chain(named));
    }
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

fn delete_from(object: &mut Value, list: &str, gone: &Value) {
    let gone = gone.as_array().map_or(&[][..], Vec::as_slice);
    if let Some(Value::Array(list)) = object.get_mut(list) {
        list.retain(|one| !gone.contains(one));
    }
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
