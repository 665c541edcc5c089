//! `docs/compatibility-rules.md` claims a test for each rule of the original; here those claims are held.
//!
//! Always: each row has a verdict and tests that there are, none stands for too many rows, and no number of a series is
//! left out or there twice. After `make unit` and `make e2e`, by `make claims`: each claimed test has run.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    const PAGE: &str = "docs/compatibility-rules.md";
    const VERDICTS: [&str; 3] = ["same", "better", "not ours"];
    /// Rows that one test may stand for: of more, it can hardly show each.
    const ROWS_A_TEST: usize = 5;
    /// The test that plays all stories.
    const STORIES: &str = "every_story_goes_as_told";
    /// Where `make unit` and `make e2e` leave what they printed.
    const RAN: [&str; 2] = ["target/ran/unit.txt", "target/ran/e2e.txt"];

    #[test]
    fn every_rule_has_a_verdict_and_tests_that_there_are() {
        let faults = faults(&page(), &there());
        assert!(faults.is_empty(), "{PAGE}:\n{}", faults.join("\n"));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_told() {
        let there = ["a", "b", "story:s"].map(str::to_owned);
        let there = there.into_iter().map(|name| (name, 1)).collect();
        let told = |rows: &str| faults(&format!("## Page\n\n{rows}"), &there);
        let many = [1, 2, 3, 4, 5, 6].map(|n| format!("| X{n} | | same | | `a` |\n"));
        let many = many.concat();
        let table = [
            (
                "| X1 | | same | | `a`, `story:s` |\n| X1' | | not ours | | – |\n| X2 | | better | | `b` |",
                "",
            ),
            ("| X1 | | same | | – |", "no test"),
            ("| X1 | | same | | a |", "no test"),
            ("| X1 | | alike | | `a` |", "no verdict"),
            ("| X1 | | same | `a` |", "4 cells"),
            ("| X1 | | same | | `c` |", "`c` is no test"),
            ("| X1 | | same | | `e2e:s` |", "`e2e:s` is no test"),
            ("| X1 | | same | | `a` |\n| X1 | | same | | `b` |", "twice"),
            (
                "| X1 | | same | | `a` |\n| X3 | | same | | `b` |",
                "X2 is left out",
            ),
            ("| X2 | | same | | `a` |", "X1 is left out"),
            (many.as_str(), "stands for 6 rows"),
            ("nothing", "no rows"),
        ];
        for (rows, wrong) in table {
            let told = told(rows).join("\n");
            assert_eq!(told.is_empty(), wrong.is_empty(), "{rows}: {told}");
            assert!(told.contains(wrong), "{rows}: {told}");
        }
        let twice = BTreeMap::from([("a".to_owned(), 2)]);
        let told = faults("## Page\n| X1 | | same | | `a` |", &twice).join("\n");
        assert!(told.contains("2 tests are called so"), "{told}");
    }

    #[test]
    #[ignore = "needs what `make unit` and `make e2e` leave behind: run `make claims`"]
    fn every_claimed_test_ran() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let printed = RAN.map(|file| {
            let why = format!("{file}: run `make unit e2e` first");
            fs::read_to_string(root.join(file)).expect(&why)
        });
        let ran = ran(&printed.concat());
        let claimed = claims(&rows(&page()));
        let missing: Vec<&String> = claimed.keys().filter(|name| !has_run(name, &ran)).collect();
        assert!(missing.is_empty(), "claimed and not run: {missing:?}");
    }

    #[test]
    fn what_ran_is_read_from_what_was_printed() {
        let printed = "running 3 tests\ntest plan::tests::a ... ok\ntest b ... FAILED\ntest tests::c ... ignored, slow\n\
            e2e: scenario stateful passed in 4.2 s\ne2e: scenario load FAILED after 1.0 s: no\n\
            test every_story_goes_as_told ... ok\n";
        let ran = ran(printed);
        let has = ["a", "b", "c", "e2e:stateful", "e2e:load", "story:any"];
        let has = has.map(|name| has_run(name, &ran));
        assert_eq!(has, [true, false, false, true, false, true]);
        assert!(!has_run("story:any", &BTreeSet::new()));
    }

    fn page() -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap()
    }

    struct Row<'t> {
        section: &'t str,
        cells: Vec<&'t str>,
    }

    impl Row<'_> {
        fn name(&self) -> String {
            format!("{} {}", self.section, self.cells[0])
        }

        /// What stands in backticks in the last cell.
        fn tests(&self) -> impl Iterator<Item = &str> {
            let last = self.cells.last().copied().unwrap_or_default();
            last.split('`').skip(1).step_by(2)
        }
    }

    /// The rows of all tables, without their heads.
    fn rows(page: &str) -> Vec<Row<'_>> {
        let (mut rows, mut section) = (Vec::new(), "");
        for line in page.lines() {
            if let Some(title) = line.strip_prefix("## ") {
                section = title;
            }
            let Some(row) = line.trim_end().strip_prefix('|') else {
                continue;
            };
            let row = row.strip_suffix('|').unwrap_or(row);
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            if cells[0] != "rule" && !cells[0].starts_with("---") {
                rows.push(Row { section, cells });
            }
        }
        rows
    }

    /// How many rows claim each test.
    fn claims(rows: &[Row]) -> BTreeMap<String, usize> {
        let mut claims = BTreeMap::new();
        for test in rows.iter().flat_map(Row::tests) {
            *claims.entry(test.to_owned()).or_default() += 1;
        }
        claims
    }

    /// What is wrong with the page, if `there` are so many tests of these names.
    fn faults(page: &str, there: &BTreeMap<String, usize>) -> Vec<String> {
        let rows = rows(page);
        let mut faults: Vec<String> = rows.iter().filter_map(fault).collect();
        if rows.is_empty() {
            faults.push("no rows".to_owned());
        }
        for (test, rows) in claims(&rows) {
            match there.get(&test) {
                None => faults.push(format!("`{test}` is no test")),
                Some(1) => {}
                Some(many) => faults.push(format!("`{test}`: {many} tests are called so")),
            }
            if rows > ROWS_A_TEST {
                faults.push(format!("`{test}` stands for {rows} rows"));
            }
        }
        faults.extend(gaps(&rows));
        faults
    }

    fn fault(row: &Row) -> Option<String> {
        let (name, cells) = (row.name(), row.cells.len());
        if cells != 5 {
            return Some(format!("{name}: {cells} cells"));
        }
        let verdict = row.cells[2];
        if !VERDICTS.contains(&verdict) {
            return Some(format!("{name}: no verdict: {verdict}"));
        }
        let needs_none = verdict == "not ours" && row.cells[4] == "–";
        (row.tests().next().is_none() && !needs_none).then(|| format!("{name}: no test"))
    }

    /// Rules that are there twice, and numbers that are missing between one and a series' last.
    fn gaps(rows: &[Row]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut names = BTreeSet::new();
        let mut series: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for row in rows {
            if !names.insert(row.name()) {
                faults.push(format!("{}: there twice", row.name()));
            }
            let variant = |c: char| c == '\'' || c.is_ascii_lowercase();
            let name = row.name();
            let name = name.trim_end_matches(variant);
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            if let Ok(number) = name[stem.len()..].parse() {
                series.entry(stem.to_owned()).or_default().insert(number);
            }
        }
        for (stem, numbers) in series {
            let last = numbers.last().copied().unwrap_or_default();
            let missing = (1..last).filter(|number| !numbers.contains(number));
            faults.extend(missing.map(|number| format!("{stem}{number} is left out")));
        }
        faults
    }

    /// Everything that a row may name, and how often it is there.
    fn there() -> BTreeMap<String, usize> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut there = BTreeMap::new();
        let mut count = |name: String| *there.entry(name).or_default() += 1;
        for folder in ["crates", "src", "tests", "e2e/src"] {
            for file in files(&root.join(folder), "rs") {
                tests_of(&fs::read_to_string(file).unwrap()).for_each(&mut count);
            }
        }
        for story in files(&root.join("crates/ipam/tests/scenarios"), "txt") {
            let name = story.file_stem().unwrap().to_string_lossy().into_owned();
            count(format!("story:{name}"));
        }
        let scenarios = fs::read_to_string(root.join("e2e/src/scenarios.rs")).unwrap();
        for name in scenarios.split("name: \"").skip(1) {
            count(format!("e2e:{}", name.split('"').next().unwrap()));
        }
        there
    }

    fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path, extension));
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
        found
    }

    /// The functions behind `#[test]` and its like, whatever other attributes stand between.
    fn tests_of(source: &str) -> impl Iterator<Item = String> {
        let mut is_test = false;
        source.lines().filter_map(move |line| {
            let line = line.trim();
            if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
                is_test = true;
            }
            let line = line.strip_prefix("async ").unwrap_or(line);
            let name = line.strip_prefix("fn ")?.split(['(', '<']).next()?;
            std::mem::take(&mut is_test).then(|| name.to_owned())
        })
    }

    /// The tests and scenarios that passed, from what the runs printed.
    fn ran(printed: &str) -> BTreeSet<String> {
        let of_line = |line: &str| {
            if let Some((_, scenario)) = line.split_once("scenario ") {
                let (name, _) = scenario.split_once(" passed in ")?;
                return Some(format!("e2e:{name}"));
            }
            let path = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
            path.rsplit("::").next().map(str::to_owned)
        };
        printed.lines().filter_map(of_line).collect()
    }

    fn has_run(claimed: &str, ran: &BTreeSet<String>) -> bool {
        let by = if claimed.starts_with("story:") {
            STORIES
        } else {
            claimed
        };
        ran.contains(by)
    }
}
