//! Who may use whom inside the daemon, read from its source files.
//!
//! The compiler holds the edges between crates (`ipam` has no IO in its manifest). Between the modules of `src/` this test
//! does: controller and agent never meet, and nothing below them knows that they exist. A new top-level module takes its
//! place in [`tests::ALLOWED`] before it compiles past CI. ARCHITECTURE.md shows the same picture for people.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Usable by every module below; they use each other and nothing else.
    const SHARED: [&str; 2] = ["config", "error"];

    /// A module and those it may use, besides itself and [`SHARED`]. Each stands below those it uses, so there is no cycle.
    const ALLOWED: [(&str, &[&str]); 14] = [
        ("config", &[]),
        ("error", &[]),
        ("api", &[]),
        ("telemetry", &["api"]),
        ("kube_io", &["api"]),
        ("pool_writer", &["api", "kube_io"]),
        ("allocator", &["api", "kube_io", "pool_writer"]),
        ("ports", &[]),
        ("tls", &["kube_io"]),
        ("webhook", &["api", "kube_io", "telemetry", "tls"]),
        (
            "controller",
            &["api", "kube_io", "pool_writer", "allocator", "telemetry"],
        ),
        (
            "agent",
            &["api", "kube_io", "pool_writer", "allocator", "telemetry"],
        ),
        (
            "cli",
            &[
                "api",
                "kube_io",
                "pool_writer",
                "allocator",
                "telemetry",
                "ports",
                "tls",
                "webhook",
                "controller",
                "agent",
            ],
        ),
        ("main", &["cli"]),
    ];

    #[test]
    fn modules_use_only_what_lies_below_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut wrong = Vec::new();
        for file in sources(&root) {
            let module = Module::of(file.strip_prefix(&root).unwrap());
            let text = without_comments(&fs::read_to_string(&file).unwrap());
            for used in module.uses(&text) {
                if !allowed(&module.top, &used) {
                    wrong.push(format!("{}: {} uses {used}", file.display(), module.top));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "edges that ALLOWED does not list:\n{}",
            wrong.join("\n")
        );
    }

    #[test]
    fn every_source_file_is_part_of_its_crate() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut orphans = Vec::new();
        for member in [
            "src",
            "crates/ipam/src",
            "crates/cni/src",
            "crates/kubesim/src",
            "e2e/src",
        ] {
            let member = root.join(member);
            orphans.extend(
                sources(&member)
                    .into_iter()
                    .filter(|file| is_orphan(&member, file)),
            );
        }
        assert!(
            orphans.is_empty(),
            "no `mod` names these files, so nothing compiles them: {orphans:#?}"
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (place, (module, uses)) in ALLOWED.iter().enumerate() {
            for used in *uses {
                let below = ALLOWED[..place].iter().any(|(name, _)| name == used);
                assert!(
                    below,
                    "{module} may use {used}, which does not stand before it"
                );
            }
        }
    }

    #[test]
    fn the_table_has_no_way_from_one_role_to_the_other() {
        assert!(!allowed("controller", "agent"));
        assert!(!allowed("agent", "controller"));
        assert!(!allowed("api", "kube_io"));
        assert!(!allowed("config", "api"));
        assert!(allowed("cli", "agent"));
        assert!(allowed("api", "error"));
    }

    #[test]
    fn grouped_nested_and_relative_paths_are_read_as_the_modules_they_name() {
        let module = Module {
            top: "agent".into(),
            depth: 2,
        };
        let text = "
            use crate::{api::{names, SpiderIPPool}, kube_io};
            use ipam::crate_like::x; // crate::cli
            pub(crate) fn f() { crate::config::load(); super::super::controller::go(); super::commit(); }
        ";
        let used: Vec<String> = module.uses(&without_comments(text)).into_iter().collect();
        assert_eq!(used, ["api", "config", "controller", "kube_io"]);
    }

    /// A file's place among the modules.
    struct Module {
        /// The top-level module it belongs to; `lib` and `main` for the roots.
        top: String,
        /// How many `super::` lead from it to the crate's root.
        depth: usize,
    }

    impl Module {
        fn of(path: &Path) -> Self {
            let path = path.with_extension("");
            let mut parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
            parts.retain(|part| part != "mod");
            let top = parts[0].clone().into_owned();
            let depth = if matches!(top.as_str(), "lib" | "main") {
                0
            } else {
                parts.len()
            };
            Self { top, depth }
        }

        /// The top-level modules that this file's paths lead to, its own left out.
        fn uses(&self, text: &str) -> BTreeSet<String> {
            let mut used = BTreeSet::new();
            for root in ["crate::", "orbweaver::"] {
                for start in occurrences(text, root) {
                    used.extend(heads(&text[start + root.len()..]));
                }
            }
            // A chain that climbs to the root leads on from there. From inside an inner module the same chain ends
            // earlier, so only what is named like a top-level module counts.
            let to_root = "super::".repeat(self.depth);
            if self.depth > 0 {
                for start in occurrences(text, &to_root) {
                    let after = heads(&text[start + to_root.len()..]);
                    used.extend(after.into_iter().filter(|name| is_module(name)));
                }
            }
            used.remove(&self.top);
            used
        }
    }

    fn allowed(from: &str, to: &str) -> bool {
        if from == "lib" {
            return true; // the root declares the modules
        }
        if SHARED.contains(&to) {
            return true;
        }
        ALLOWED
            .iter()
            .any(|(module, uses)| *module == from && uses.contains(&to))
    }

    fn is_module(name: &str) -> bool {
        ALLOWED.iter().any(|(module, _)| *module == name)
    }

    /// Where `what` stands in the text, not as the end of a longer name.
    fn occurrences<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = usize> + 'a {
        let ends_a_name =
            |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        text.match_indices(what)
            .map(|(start, _)| start)
            .filter(move |start| !ends_a_name(&text[..*start]))
    }

    /// The first names of a path or of each path of a group: `a::b` → a; `{a::b, c}` → a, c.
    fn heads(path: &str) -> Vec<String> {
        let name = |text: &str| -> String {
            text.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        let Some(group) = path.strip_prefix('{') else {
            return vec![name(path)];
        };
        let mut heads = vec![name(group)];
        let mut depth = 0;
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => heads.push(name(&group[place + 1..])),
                _ => {}
            }
        }
        heads.retain(|head| !head.is_empty() && head != "self");
        heads
    }

    #[test]
    fn tasks_of_the_roles_start_where_their_clock_goes_with_them() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        // What these start looks at no wall clock: the socket's server, connections, the brake.
        let free = ["agent.rs", "link.rs", "clients.rs", "tasks.rs"];
        let mut wrong = Vec::new();
        for role in ["agent", "controller", "pool_writer", "kube_io"] {
            let own = root.join(format!("{role}.rs"));
            for file in sources(&root.join(role)).into_iter().chain([own]) {
                let text = fs::read_to_string(&file).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let name = file.file_name().unwrap().to_string_lossy().into_owned();
                let is_test = file
                    .iter()
                    .any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs");
                let strays = without_comments(text)
                    .lines()
                    .filter(|line| line.contains("spawn(") && !line.contains("tasks.spawn("))
                    .count();
                if strays > 0 && !is_test && !free.contains(&&*name) {
                    wrong.push(file);
                }
            }
        }
        assert!(wrong.is_empty(), "not by kube_io::tasks: {wrong:#?}");
    }

    #[test]
    fn no_select_leaves_to_chance_which_branch_it_looks_at_first() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (product, cluster) = (root.join("src"), root.join("crates/kubesim/src"));
        let mut seen = 0;
        for file in sources(&product).into_iter().chain(sources(&cluster)) {
            let text = without_comments(&fs::read_to_string(&file).unwrap());
            for branches in text.split("select! {").skip(1) {
                seen += 1;
                let is_biased = branches.trim_start().starts_with("biased;");
                assert!(is_biased, "{}: one seed, two histories", file.display());
            }
        }
        assert!(seen > 20, "{seen} found: this test looks at nothing");
    }

    fn without_comments(text: &str) -> String {
        let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
        text.lines().map(code).collect()
    }

    /// True if no file above `file` declares it as a module.
    fn is_orphan(root: &Path, file: &Path) -> bool {
        let dir = file.parent().unwrap();
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let (name, dir) = match stem {
            "lib" | "main" if dir == root => return false,
            "mod" => (
                dir.file_name().unwrap().to_str().unwrap(),
                dir.parent().unwrap(),
            ),
            stem => (stem, dir),
        };
        let parents: Vec<PathBuf> = if dir == root {
            vec![dir.join("lib.rs"), dir.join("main.rs")]
        } else {
            vec![dir.with_extension("rs"), dir.join("mod.rs")]
        };
        let declared = |parent: &PathBuf| {
            let text = fs::read_to_string(parent).unwrap_or_default();
            occurrences(&text, &format!("mod {name};")).next().is_some()
        };
        !parents.iter().any(declared)
    }

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
        found.sort();
        found
    }
}
