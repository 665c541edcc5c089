//! JSON paths of printer columns: `.spec.a`, `.status.list[0].b`, `.labels['a\.b']`.

use serde_json::Value;

/// What a path leads to.
pub(super) fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix("['") {
            let (name, behind) = after.split_once("']")?;
            at = at.get(name.replace('\\', ""))?;
            rest = behind;
            continue;
        }
        if let Some(after) = rest.strip_prefix('[') {
            let (index, behind) = after.split_once(']')?;
            at = element(at, index)?;
            rest = behind;
            continue;
        }
        let end = name_end(rest);
        let (name, behind) = rest.split_at(end);
        at = at.get(name.replace('\\', ""))?;
        rest = behind;
    }
    Some(at)
}

/// `0`, or `?(@.type=="Ready")`.
fn element<'a>(list: &'a Value, index: &str) -> Option<&'a Value> {
    if let Ok(index) = index.parse::<usize>() {
        return list.get(index);
    }
    let condition = index.strip_prefix("?(@.")?.strip_suffix(')')?;
    let (field, wanted) = condition.split_once("==")?;
    let wanted = wanted.trim().trim_matches(['"', '\'']);
    list.as_array()?
        .iter()
        .find(|one| one.get(field.trim()).and_then(Value::as_str) == Some(wanted))
}

/// Up to the next dot or bracket that no backslash hides.
fn name_end(text: &str) -> usize {
    let mut hidden = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' => {
                hidden = true;
                continue;
            }
            '.' | '[' if !hidden => return at,
            _ => {}
        }
        hidden = false;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_with_lists_conditions_and_hidden_dots_lead_there() {
        let object = json!({
            "a": [{ "b": 1 }],
            "labels": { "x.io/y-z": "v" },
            "c": [{ "type": "Ready", "status": "True" }],
        });
        assert_eq!(find(&object, ".a[0].b"), Some(&json!(1)));
        assert_eq!(find(&object, r".labels['x\.io/y\-z']"), Some(&json!("v")));
        assert_eq!(
            find(&object, ".c[?(@.type==\"Ready\")].status"),
            Some(&json!("True"))
        );
        assert_eq!(find(&object, ".a[1].b"), None);
    }
}
