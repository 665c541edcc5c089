//! The committed definitions are what the Rust types say, in both folders, byte for byte.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use serde_json::Value;

    /// For `kubectl apply`, and for the chart.
    const FOLDERS: [&str; 2] = ["crds", "helm/orbweaver/crds"];

    /// Lines shown around a difference.
    const CONTEXT: usize = 3;

    #[test]
    fn the_committed_definitions_are_those_of_the_types() {
        let made = generated();
        for folder in FOLDERS {
            let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
            let mut differences = String::new();
            for name in made
                .keys()
                .chain(committed.keys().filter(|n| !made.contains_key(*n)))
            {
                let text =
                    |files: &BTreeMap<String, String>| files.get(name).cloned().unwrap_or_default();
                differences +=
                    &difference(&format!("{folder}/{name}"), &text(&committed), &text(&made));
            }
            assert!(
                differences.is_empty(),
                "{folder} is not what the types say; run `make generate` and commit\n{differences}"
            );
        }
    }

    #[test]
    fn without_a_folder_the_definitions_are_printed() {
        let printed = run(&["crds"]);
        let printed: Vec<Value> = serde_saphyr::from_multiple(&printed).unwrap();
        let made: Vec<Value> = generated()
            .values()
            .map(|text| serde_saphyr::from_str(text).unwrap())
            .collect();
        assert_eq!(printed, made);
    }

    #[test]
    fn each_kind_has_the_names_and_columns_its_users_know() {
        let table = [
            (
                "SpiderEndpoint",
                "spiderendpoints",
                "se",
                "Namespaced",
                false,
                "INTERFACE IPV4POOL IPV4 IPV6POOL IPV6 NODE",
            ),
            (
                "SpiderIPPool",
                "spiderippools",
                "sp",
                "Cluster",
                true,
                "VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT DEFAULT DISABLE NodeName MultusName APP-NAMESPACE",
            ),
            (
                "SpiderReservedIP",
                "spiderreservedips",
                "sr",
                "Cluster",
                false,
                "VERSION",
            ),
            (
                "SpiderSubnet",
                "spidersubnets",
                "ss",
                "Cluster",
                true,
                "VERSION SUBNET ALLOCATED-IP-COUNT TOTAL-IP-COUNT",
            ),
        ];
        let made = generated();
        assert_eq!(made.len(), table.len());
        for ((kind, plural, short, scope, has_status, columns), text) in
            table.into_iter().zip(made.values())
        {
            let definition: Value = serde_saphyr::from_str(text).unwrap();
            let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]);
            assert_eq!(
                definition["metadata"]["name"],
                format!("{plural}.spiderpool.spidernet.io")
            );
            assert_eq!(spec["names"]["kind"], kind);
            assert_eq!(spec["names"]["singular"], kind.to_lowercase());
            assert_eq!(spec["names"]["shortNames"], serde_json::json!([short]));
            assert_eq!(
                spec["names"]["categories"],
                serde_json::json!(["spiderpool"])
            );
            assert_eq!(spec["scope"], scope);
            assert_eq!(version["name"], "v2beta1");
            assert_eq!(
                version["subresources"]["status"].is_object(),
                has_status,
                "{kind}"
            );
            let names: Vec<&str> = version["additionalPrinterColumns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|column| column["name"].as_str().unwrap())
                .collect();
            assert_eq!(names.join(" "), columns, "{kind}");
        }
    }

    fn generated() -> BTreeMap<String, String> {
        let folder = tempfile::tempdir().unwrap();
        run(&["crds", "--dir", folder.path().to_str().unwrap()]);
        files(folder.path())
    }

    fn run(arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_orbweaver"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn files(folder: &Path) -> BTreeMap<String, String> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    /// What changes between the first and the last line that differ; empty if none does.
    fn difference(name: &str, old: &str, new: &str) -> String {
        let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
        if old == new {
            return String::new();
        }
        let same = |(a, b): &(&&str, &&str)| a == b;
        let head = old.iter().zip(&new).take_while(same).count();
        let tail = old[head..]
            .iter()
            .rev()
            .zip(new[head..].iter().rev())
            .take_while(same)
            .count();
        let lines = |mark: &str, lines: &[&str]| -> String {
            lines.iter().flat_map(|line| [mark, line, "\n"]).collect()
        };
        let (old_end, new_end) = (old.len() - tail, new.len() - tail);
        let after = (old_end + CONTEXT).min(old.len());
        format!("--- {name}, line {}\n", head + 1)
            + &lines(" ", &old[head.saturating_sub(CONTEXT)..head])
            + &lines("-", &old[head..old_end])
            + &lines("+", &new[head..new_end])
            + &lines(" ", &old[old_end..after])
    }

    #[test]
    fn a_difference_shows_what_changes_and_where() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        assert_eq!(difference("x", old, old), "");
        assert_eq!(
            difference("x", old, "a\nb\nc\nd\nE\nf\ng\nh\n"),
            "--- x, line 5\n b\n c\n d\n-e\n+E\n f\n g\n h\n"
        );
        assert_eq!(difference("x", "", "new\n"), "--- x, line 1\n+new\n");
        assert_eq!(difference("x", "a\na\n", "a\n"), "--- x, line 2\n a\n-a\n");
    }
}
