use super::*;
use crate::testing::{labels, selector, workload};

#[test]
fn a_selector_is_narrowed_if_it_is_what_narrowing_gives() {
    // One of them already has a key of ours, which narrowing overwrites.
    let owns = [
        selector(&[("app", "web")]),
        selector(&[("app", "web"), ("tier", "a")]),
        selector(&[(APP_NAME, "other")]),
        selector(&[]),
    ];
    for own in &owns {
        for other in &owns {
            for name in ["web", "db"] {
                let built = other.for_workload(&workload(name));
                let is = built.is_narrowed(own, &workload("web"));
                assert_eq!(
                    is,
                    built == own.for_workload(&workload("web")),
                    "{own:?} {built:?}"
                );
            }
        }
    }
}

#[test]
fn the_four_operators_follow_kubernetes() {
    let red = labels(&[("colour", "red")]);
    let table = [
        ("colour", "In", vec!["red".to_owned()], true),
        ("colour", "In", vec!["blue".to_owned()], false),
        ("colour", "NotIn", vec!["blue".to_owned()], true),
        ("shape", "NotIn", vec!["round".to_owned()], true),
        ("colour", "Exists", vec![], true),
        ("shape", "Exists", vec![], false),
        ("shape", "DoesNotExist", vec![], true),
    ];
    for (key, operator, values, expected) in table {
        let requirement = Selector::requirement(key, operator, &values).unwrap();
        assert_eq!(
            requirement.matches(&red),
            expected,
            "{key} {operator} {values:?}"
        );
    }
}

#[test]
fn a_bad_operator_is_named() {
    let error = Selector::requirement("k", "Like", &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"Like\" is not a valid label selector operator"
    );
}

#[test]
fn values_belong_to_the_operators_that_compare_with_some() {
    let some = ["a".to_owned()];
    for (operator, compares) in [
        ("In", true),
        ("NotIn", true),
        ("Exists", false),
        ("DoesNotExist", false),
    ] {
        let with = Selector::requirement("k", operator, &some);
        let without = Selector::requirement("k", operator, &[]);
        if compares {
            with.unwrap();
            assert_eq!(without, Err(SelectorError::NoValues("k".to_owned())));
        } else {
            without.unwrap();
            assert_eq!(with, Err(SelectorError::Values("k".to_owned())));
        }
    }
}

#[test]
fn keys_of_labels_are_names_with_a_domain_before_them_perhaps() {
    let (name, part) = ("n".repeat(63), "p".repeat(61));
    let prefix = [part.as_str(); 4].join(".");
    for right in [
        "app",
        "App_1.x",
        "a1.b-2.example/tier",
        &name,
        &format!("{prefix}.abcde/{name}"),
    ] {
        assert!(is_label_key(right), "{right}");
    }
    for wrong in [
        "",
        "/app",
        "a/",
        "a/b/c",
        "A.example/app",
        "a_b/app",
        "-a/app",
        "a-./app",
        "_app",
        "app.",
        &format!("{name}n"),
        &format!("{prefix}.abcdef/{name}"),
    ] {
        assert!(!is_label_key(wrong), "{wrong}");
    }
}

#[test]
fn a_selector_s_text_reads_as_its_parts() {
    let read = Selector::parse(
        "app=web, example.com/tier==, env in (a, b),zone notin (x), role!=db,!old,kept, unset!=",
    );
    let read = read.unwrap();
    let expected = labels(&[("app", "web"), ("example.com/tier", "")]);
    assert_eq!(read.match_labels, expected);
    let requirement = |key: &str, operator: &str, values: &[&str]| {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        Selector::requirement(key, operator, &values).unwrap()
    };
    let expected = [
        requirement("env", "In", &["a", "b"]),
        requirement("zone", "NotIn", &["x"]),
        requirement("role", "NotIn", &["db"]),
        requirement("old", "DoesNotExist", &[]),
        requirement("kept", "Exists", &[]),
        requirement("unset", "NotIn", &[""]),
    ];
    assert_eq!(read.match_expressions, expected);
    assert!(Selector::parse(" ").unwrap().is_empty());
    for wrong in [
        "a=b,,c",
        "a like (b)",
        "a in (b",
        "a in b)",
        "=b",
        "a b",
        "a!=b c",
        "a in (b c)",
        "a=b=c",
        "!",
    ] {
        let error = Selector::parse(wrong).unwrap_err();
        assert!(matches!(error, SelectorError::Text(_)), "{wrong}: {error}");
    }
}

#[test]
fn two_workloads_with_one_selector_get_different_affinities() {
    let selector = selector(&[("app", "web")]);
    let a = selector.for_workload(&workload("a"));
    assert!(a.names_workload(&workload("a")));
    assert!(!a.names_workload(&workload("b")));
    assert_eq!(a.without_workload(), selector);
}
