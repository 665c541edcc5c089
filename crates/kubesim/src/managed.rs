//! Who owns which field: the books of server-side apply (KEP-555).
//!
//! Owns: the fields of an object as `fieldsV1` has them, and `metadata.managedFields`. Never does:
//! store. Which lists are maps or sets the types of built-in kinds say (`x-kubernetes-list-type`);
//! lists of custom kinds are atomic, as they are where a definition says nothing else.
//! Invariant: an object is on the books from its first apply on; before that nobody owns anything of
//! it, where the real server has the writers of every field.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::error::{ApiError, Cause};
use crate::typed;

/// A way to a field, in elements of `fieldsV1`: `f:spec`, `k:{"name":"a"}`, `v:"x"`.
type Path = Vec<String>;
/// Fields that somebody owns.
type Fields = BTreeSet<Path>;

const ENTRIES: &str = "/metadata/managedFields";
/// Metadata that names an object and is owned by nobody.
const IDENTITY: [&str; 8] = [
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Whoever owns fields, and since which kind of write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    manager: String,
    /// `Apply` or `Update`.
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

/// The books of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books(Vec<Owner>);

/// Who writes.
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: String,
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

impl Writer<'_> {
    fn owner(&self, operation: &str, fields: Fields) -> Owner {
        Owner {
            manager: self.manager.to_owned(),
            operation: operation.to_owned(),
            api_version: self.api_version.clone(),
            subresource: self.subresource.to_owned(),
            time: clock::seconds(self.now),
            fields,
        }
    }

    fn is(&self, owner: &Owner, operation: &str) -> bool {
        owner.manager == self.manager
            && owner.operation == operation
            && owner.subresource == self.subresource
    }
}

impl Books {
    /// Those of an object; `None` where it was never applied.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let entries = object.pointer(ENTRIES)?.as_array()?;
        Some(Self(entries.iter().map(owner).collect()))
    }

    /// Writes them into an object.
    pub(crate) fn enter(&self, object: &mut Value) {
        let entries: Vec<Value> = self.0.iter().map(entry).collect();
        crate::object::metadata(object).insert("managedFields".to_owned(), entries.into());
    }

    /// The object after an apply of `given`, and who owns what then.
    ///
    /// Errors: 409 where others own fields that `given` changes, unless it takes them by `force`.
    pub(crate) fn apply(
        &mut self,
        schema: &str,
        writer: &Writer<'_>,
        object: &Value,
        mut given: Value,
        force: bool,
    ) -> Result<Value, ApiError> {
        strip(&mut given);
        let schema = typed::definition(schema);
        let wanted = fields(schema, &given);
        let mut merged = object.clone();
        merge(schema, &mut merged, &given);
        let mut conflicts = Vec::new();
        for other in self.0.iter_mut().filter(|it| !writer.is(it, "Apply")) {
            let contested = other.fields.iter();
            let contested = contested.filter(|path| differs(object, &merged, path));
            let mut contested: Vec<Path> = contested.cloned().collect();
            contested.sort_by(in_order);
            for path in contested {
                if force {
                    other.fields.remove(&path);
                } else {
                    conflicts.push((told(other), path));
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(conflict(&conflicts));
        }
        let before = self.owned_by(writer, "Apply");
        let others = self.0.iter().filter(|it| !writer.is(it, "Apply"));
        let others: Fields = others.flat_map(|it| it.fields.clone()).collect();
        // Deepest first: what an element had goes before it.
        let mut left: Vec<&Path> = before.difference(&wanted).collect();
        left.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in left {
            let is_held = |all: &Fields| all.iter().any(|other| other.starts_with(path));
            if !is_held(&wanted) && !is_held(&others) {
                remove(&mut merged, path);
            }
        }
        self.own(writer, "Apply", wanted);
        Ok(merged)
    }

    /// Notes a write of another kind: what it changes is the writer's.
    pub(crate) fn update(&mut self, schema: &str, writer: &Writer<'_>, old: &Value, new: &Value) {
        let schema = typed::definition(schema);
        let changed = |path: &Path| differs(old, new, path);
        for owner in &mut self.0 {
            owner.fields.retain(|path| !changed(path));
        }
        let mut given = new.clone();
        strip(&mut given);
        crate::object::as_map(&mut given).remove("status");
        let own: Fields = fields(schema, &given).into_iter().filter(changed).collect();
        let before = self.owned_by(writer, "Update");
        self.own(writer, "Update", &own | &before);
    }

    fn owned_by(&self, writer: &Writer<'_>, operation: &str) -> Fields {
        let owner = self.0.iter().find(|it| writer.is(it, operation));
        owner.map(|it| it.fields.clone()).unwrap_or_default()
    }

    /// Has the writer own these fields, and nobody none. Keeps the time of who owns what they did.
    fn own(&mut self, writer: &Writer<'_>, operation: &str, fields: Fields) {
        match self.0.iter_mut().find(|it| writer.is(it, operation)) {
            Some(known) if known.fields == fields => {}
            Some(known) => *known = writer.owner(operation, fields),
            None => self.0.push(writer.owner(operation, fields)),
        }
        self.0.retain(|owner| !owner.fields.is_empty());
    }
}

fn owner(entry: &Value) -> Owner {
    let text = |key: &str| {
        let found = entry.get(key).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let mut fields = Fields::new();
    if let Some(tree) = entry.get("fieldsV1") {
        read(tree, &mut Vec::new(), &mut fields);
    }
    Owner {
        manager: text("manager"),
        operation: text("operation"),
        api_version: text("apiVersion"),
        subresource: text("subresource"),
        time: text("time"),
        fields,
    }
}

fn entry(owner: &Owner) -> Value {
    let mut entry = json!({
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": owner.api_version,
        "time": owner.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": tree(&owner.fields),
    });
    if !owner.subresource.is_empty() {
        entry["subresource"] = json!(owner.subresource);
    }
    entry
}

/// As `fieldsV1` has them; `.` stands for an element that is owned besides what is below it.
fn tree(fields: &Fields) -> Value {
    let mut root = Map::new();
    for path in fields {
        let mut node = &mut root;
        for step in path {
            node = crate::object::as_map(node.entry(step).or_insert(Value::Null));
        }
        node.insert(".".to_owned(), json!({}));
    }
    let mut root = Value::Object(root);
    unmark(&mut root);
    root
}

/// A mark at a leaf says nothing.
fn unmark(node: &mut Value) {
    if let Value::Object(map) = node {
        if map.len() == 1 {
            map.remove(".");
        }
        map.values_mut().for_each(unmark);
    }
}

fn read(node: &Value, path: &mut Path, fields: &mut Fields) {
    let Some(map) = node.as_object() else { return };
    if (map.is_empty() || map.contains_key(".")) && !path.is_empty() {
        fields.insert(path.clone());
    }
    for (step, inner) in map.iter().filter(|(step, _)| *step != ".") {
        path.push(step.clone());
        read(inner, path, fields);
        path.pop();
    }
}

/// Takes away what says which object it is, and not how it is to be.
fn strip(given: &mut Value) {
    let map = crate::object::as_map(given);
    map.remove("apiVersion");
    map.remove("kind");
    if let Some(Value::Object(meta)) = map.get_mut("metadata") {
        meta.retain(|key, _| !IDENTITY.contains(&key.as_str()));
        if meta.is_empty() {
            map.remove("metadata");
        }
    }
}

/// What a schema says of a field, there or where its type is defined.
fn attribute(schema: &'static Value, name: &str) -> &'static str {
    let there = schema.get(name);
    let found = there.or_else(|| typed::resolve(schema).0.get(name));
    found.and_then(Value::as_str).unwrap_or_default()
}

fn child(schema: &'static Value, key: &str) -> &'static Value {
    let definition = typed::resolve(schema).0;
    let field = definition.get("properties").and_then(|all| all.get(key));
    let field = field.or_else(|| definition.get("additionalProperties"));
    field.unwrap_or(&Value::Null)
}

fn item(schema: &'static Value) -> &'static Value {
    schema.get("items").unwrap_or(&Value::Null)
}

/// How the elements of a list are told apart; `None` where it is atomic.
fn step(schema: &'static Value, element: &Value) -> Option<String> {
    match attribute(schema, "x-kubernetes-list-type") {
        "set" => Some(format!("v:{element}")),
        "map" => {
            let keys = schema.get("x-kubernetes-list-map-keys")?.as_array()?;
            let keys = keys.iter().filter_map(Value::as_str);
            let named = keys.map(|key| {
                let default = child(item(schema), key).get("default");
                let value = element.get(key).or(default).cloned();
                (key.to_owned(), value.unwrap_or_default())
            });
            let named: Map<_, _> = named.collect();
            Some(format!("k:{}", Value::Object(named)))
        }
        _ => None,
    }
}

fn is_atomic(schema: &'static Value) -> bool {
    attribute(schema, "x-kubernetes-map-type") == "atomic"
}

fn fields(schema: &'static Value, value: &Value) -> Fields {
    let mut found = Fields::new();
    walk(schema, value, &mut Vec::new(), &mut found);
    found
}

fn walk(schema: &'static Value, value: &Value, path: &mut Path, found: &mut Fields) {
    match value {
        Value::Object(map) if !map.is_empty() && !is_atomic(schema) => {
            for (key, inner) in map {
                path.push(format!("f:{key}"));
                walk(child(schema, key), inner, path, found);
                path.pop();
            }
        }
        Value::Array(list) if list.iter().any(|element| step(schema, element).is_some()) => {
            for element in list {
                let Some(step) = step(schema, element) else {
                    continue;
                };
                path.push(step);
                found.insert(path.clone());
                if element.is_object() {
                    walk(item(schema), element, path, found);
                }
                path.pop();
            }
        }
        _ if path.is_empty() => {}
        _ => {
            found.insert(path.clone());
        }
    }
}

fn merge(schema: &'static Value, into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) if !is_atomic(schema) => {
            for (key, value) in from {
                let slot = into.entry(key).or_insert(Value::Null);
                merge(child(schema, key), slot, value);
            }
        }
        (Value::Array(into), Value::Array(from))
            if from.iter().any(|element| step(schema, element).is_some()) =>
        {
            for element in from {
                let wanted = step(schema, element);
                let mut known = into.iter_mut();
                match known.find(|known| step(schema, known) == wanted) {
                    Some(known) => merge(item(schema), known, element),
                    None => into.push(element.clone()),
                }
            }
        }
        (into, from) => into.clone_from(from),
    }
}

/// The order in which the server tells fields: those of a map or element before what is below others.
fn in_order(one: &Path, other: &Path) -> Ordering {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let is_last = |path: &Path| path.len() == same.saturating_add(1);
    let by_depth = is_last(other).cmp(&is_last(one));
    by_depth.then_with(|| one.cmp(other))
}

/// Whether what is owned at a path is another: of an element with fields of its own, whether it is
/// there.
fn differs(one: &Value, other: &Value, path: &Path) -> bool {
    let (one, other) = (at(one, path), at(other, path));
    let is_element = path.last().is_some_and(|step| step.starts_with("k:"));
    if is_element {
        one.is_some() != other.is_some()
    } else {
        one != other
    }
}

/// The value at a path.
fn at<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| {
        let (kind, name) = step.split_at_checked(2)?;
        match kind {
            "f:" => value.get(name),
            _ => value.as_array()?.iter().find(|it| is_at(it, kind, name)),
        }
    })
}

/// Whether an element of a list is the one that a step leads to.
fn is_at(element: &Value, kind: &str, name: &str) -> bool {
    let wanted: Value = serde_json::from_str(name).unwrap_or_default();
    match (kind, &wanted) {
        ("k:", Value::Object(keys)) => keys.iter().all(|(key, value)| {
            element.get(key).is_none_or(|found| found == value)
                && (element.get(key).is_some() || !value.is_null())
        }),
        _ => *element == wanted,
    }
}

/// Takes away what is at a path, and the maps that have nothing else.
fn remove(value: &mut Value, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let Some((kind, name)) = first.split_at_checked(2) else {
        return;
    };
    match value {
        Value::Object(map) if rest.is_empty() => {
            map.remove(name);
        }
        Value::Object(map) => {
            if let Some(inner) = map.get_mut(name) {
                remove(inner, rest);
                if inner.as_object().is_some_and(Map::is_empty) {
                    map.remove(name);
                }
            }
        }
        Value::Array(list) if rest.is_empty() => list.retain(|it| !is_at(it, kind, name)),
        Value::Array(list) => {
            if let Some(inner) = list.iter_mut().find(|it| is_at(it, kind, name)) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

/// Who owns a field, as the server says it.
fn told(owner: &Owner) -> String {
    let mut who = format!("{:?}", owner.manager);
    if !owner.subresource.is_empty() {
        who = format!("{who} with subresource {:?}", owner.subresource);
    }
    if owner.operation == "Update" {
        who = format!("{who} using {} at {}", owner.api_version, owner.time);
    }
    who
}

/// A path as the server writes it: `.spec.containers[name="c"].image`.
fn printed(path: &Path) -> String {
    let step = |step: &String| match step.split_at(2) {
        ("f:", name) => format!(".{name}"),
        ("k:", keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys = keys.iter().map(|(key, value)| format!("{key}={value}"));
            format!("[{}]", keys.collect::<Vec<_>>().join(","))
        }
        (_, value) => format!("[={value}]"),
    };
    path.iter().map(step).collect()
}

fn conflict(conflicts: &[(String, Path)]) -> ApiError {
    let cause = |(who, path): &(String, Path)| {
        let message = format!("conflict with {who}");
        Cause::of("FieldManagerConflict", printed(path), message)
    };
    let causes: Vec<Cause> = conflicts.iter().map(cause).collect();
    let message = if let [(who, path)] = conflicts {
        format!(
            "Apply failed with 1 conflict: conflict with {who}: {}",
            printed(path)
        )
    } else {
        let managers: BTreeSet<&String> = conflicts.iter().map(|(who, _)| who).collect();
        let lines = managers.into_iter().flat_map(|who| {
            let its = conflicts.iter().filter(move |(other, _)| other == who);
            let its = its.map(|(_, path)| format!("- {}", printed(path)));
            std::iter::once(format!("conflicts with {who}:")).chain(its)
        });
        let lines = lines.collect::<Vec<_>>().join("\n");
        format!("Apply failed with {} conflicts: {lines}", conflicts.len())
    };
    ApiError::apply_conflict(message, &causes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "io.k8s.api.core.v1.Pod";

    fn writer(manager: &str) -> Writer<'_> {
        Writer {
            manager,
            api_version: "v1".to_owned(),
            subresource: "",
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn pod(containers: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": containers } })
    }

    #[test]
    fn what_a_manager_applied_and_applies_no_longer_goes_and_the_rest_stays() {
        let mut books = Books::default();
        let first = pod(&json!([{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }]));
        let object = json!({ "spec": { "nodeName": "n", "containers": [{ "name": "x" }] } });
        let object = books
            .apply(POD, &writer("m"), &object, first, false)
            .unwrap();
        let second = pod(&json!([{ "name": "b", "image": "2" }]));
        let object = books
            .apply(POD, &writer("m"), &object, second, false)
            .unwrap();
        let wanted = json!({ "spec": { "nodeName": "n",
            "containers": [{ "name": "x" }, { "name": "b", "image": "2" }] } });
        assert_eq!(object, wanted);
    }

    #[test]
    fn who_changes_the_field_of_another_is_told_whose_it_is_or_takes_it_by_force() {
        let mut books = Books::default();
        let of = |image: &str| pod(&json!([{ "name": "c", "image": image }]));
        let object = books
            .apply(POD, &writer("a"), &json!({}), of("1"), false)
            .unwrap();
        let same = books.apply(POD, &writer("b"), &object, of("1"), false);
        assert_eq!(same.unwrap(), object);
        let refused = books.apply(POD, &writer("b"), &object, of("2"), false);
        let status = refused.unwrap_err().to_status();
        assert_eq!(
            status["message"],
            r#"Apply failed with 1 conflict: conflict with "a": .spec.containers[name="c"].image"#
        );
        assert_eq!(status["reason"], "Conflict");
        let object = books
            .apply(POD, &writer("b"), &object, of("2"), true)
            .unwrap();
        // It is b's alone now: a may say nothing of it, and it stays.
        let nothing = pod(&json!([{ "name": "c" }]));
        let object = books
            .apply(POD, &writer("a"), &object, nothing, false)
            .unwrap();
        assert_eq!(object["spec"]["containers"][0]["image"], "2");
    }

    #[test]
    fn what_is_updated_is_the_writer_s() {
        let mut books = Books::default();
        let of = |value: &str| json!({ "data": { "a": value } });
        let schema = "io.k8s.api.core.v1.ConfigMap";
        let object = books
            .apply(schema, &writer("m"), &json!({}), of("1"), false)
            .unwrap();
        books.update(schema, &writer("kubectl-edit"), &object, &of("2"));
        let refused = books.apply(schema, &writer("m"), &of("2"), of("1"), false);
        let said = refused.unwrap_err().to_status()["message"].to_string();
        assert!(
            said.contains("kubectl-edit") && said.contains(".data.a"),
            "{said}"
        );
    }

    #[test]
    fn books_are_read_as_they_were_written() {
        let mut books = Books::default();
        let ports = json!([{ "containerPort": 80, "protocol": "TCP" }]);
        let given = pod(&json!([{ "name": "c", "ports": ports, "args": ["x"] }]));
        let mut object = books
            .apply(POD, &writer("m"), &json!({}), given, false)
            .unwrap();
        books.enter(&mut object);
        assert_eq!(Books::of(&object), Some(books));
        let fields = object
            .pointer("/metadata/managedFields/0/fieldsV1")
            .unwrap();
        let container = &fields["f:spec"]["f:containers"][r#"k:{"name":"c"}"#];
        assert_eq!(container["."], json!({}));
        assert_eq!(container["f:args"], json!({}));
        let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
        assert!(container["f:ports"].get(port).is_some(), "{container}");
        assert_eq!(Books::of(&json!({ "metadata": {} })), None);
    }
}
