//! `orbweaver demo` as a person sees it: in a pipe, and on a terminal.
//!
//! It checks itself and ends with 1 where something did not happen; here is what it shows.

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::path::PathBuf;
    use std::process::{Child, Command, Output, Stdio};

    const DEMO: &str = env!("CARGO_BIN_EXE_orbweaver");

    /// What the story promises, in its order.
    const STEPS: [&str; 11] = [
        "✓ both Pods run with addresses of the pool",
        "✓ both its Pods are told why they get no address",
        "✓ a pool of 3 is made, 2 Pods run",
        "✓ 10 Pods run, the pool has 11 addresses",
        "✓ 3 Pods run, the pool has 4 addresses",
        "✓ 3 new Pods run, the pool has 4 addresses again",
        "✓ 7 Pods run, the dual ones with an address of each family, others with one on each interface",
        "✓ 2 Pods run, the pool has 3 addresses",
        "✓ 4 Pods run, 2 wait, the Deployment is told what is missing",
        "✓ all 6 Pods run, the pool has 7 addresses",
        "✓ no Pod and no pool is left, no address in use",
    ];

    fn text(output: &Output) -> String {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stdout}\n{stderr}");
        stdout
    }

    fn has_every_step_once_in_order(shown: &str) {
        let mut after = 0;
        for step in STEPS {
            let at = shown[after..].find(step);
            after +=
                at.unwrap_or_else(|| panic!("no {step:?} in its place:\n{shown}")) + step.len();
            assert_eq!(shown.matches(step).count(), 1, "{step}");
        }
    }

    /// What stays on a terminal of any height whose cursor goes up and clears what is below it.
    fn on_the_screen(bytes: &str) -> Vec<String> {
        let mut lines = vec![String::new()];
        let mut row = 0;
        let mut rest = bytes;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match first {
                '\n' => {
                    row += 1;
                    if row == lines.len() {
                        lines.push(String::new());
                    }
                }
                '\r' => {}
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let (arguments, command) = (&rest[1..end], &rest[end..=end]);
                    rest = &rest[end + 1..];
                    match command {
                        "A" => row -= arguments.parse::<usize>().unwrap(),
                        "J" => {
                            lines.truncate(row);
                            lines.push(String::new());
                        }
                        "m" => {}
                        other => panic!("what does ESC [ {arguments} {other} do?"),
                    }
                }
                other => lines[row].push(other),
            }
        }
        lines
    }

    #[test]
    fn in_a_pipe_it_prints_plain_lines_with_the_tables_between() {
        let output = Command::new(DEMO).arg("demo").output().unwrap();
        let shown = text(&output);
        assert!(!shown.contains('\x1b'), "{shown}");
        has_every_step_once_in_order(&shown);
        let refusal = "all IPv4 IPPools [static-ipv4-ippool] of eth0 filtered out: \
                       unmatched Pod affinity of IPPool static-ipv4-ippool";
        assert!(shown.contains(refusal), "{shown}");
        let row = shown
            .lines()
            .find(|line| line.contains("auto4-web-eth0") && line.contains("10/11"));
        assert!(
            row.is_some_and(|row| row.contains("172.18.41.40-172.18.41.50")),
            "{row:?}"
        );
        assert!(shown.contains("3 missing; add 3 addresses to spec.ips of SpiderSubnet narrow"));
    }

    #[test]
    fn what_the_readme_shows_is_what_it_says() {
        let readme = include_str!("../README.md");
        let shown = readme
            .lines()
            .filter_map(|line| Some(line[line.find("✓ ")?..].trim_end()));
        let shown: Vec<&str> = shown.collect();
        assert!(shown.len() >= 5, "{shown:?}");
        for line in shown {
            assert!(STEPS.contains(&line), "README.md shows {line:?}");
        }
    }

    fn interrupt(demo: &Child) {
        let id = demo.id().to_string();
        let done = Command::new("kill").args(["-INT", &id]).status();
        assert!(done.unwrap().success());
    }

    /// Starts the demo and reads what it prints, up to a line that has this; the line.
    fn start(arguments: &[&str], until: &str) -> (Child, String) {
        let mut demo = Command::new(DEMO)
            .arg("demo")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains(until)));
        // What it prints from here on is read, too: nobody waits for room in a pipe.
        std::thread::spawn(move || lines.for_each(drop));
        (demo, line.unwrap())
    }

    #[test]
    fn kept_up_it_is_looked_in_by_the_lines_that_it_prints() {
        let (mut demo, line) = start(&["--keep"], "kubectl --server ");
        let url = line.split_whitespace().nth(2).unwrap();
        let show = Command::new(DEMO)
            .args(["ipam", "show", "--server", url])
            .output();
        assert!(text(&show.unwrap()).contains("auto4-shop-eth0"));
        let plan = Command::new(DEMO).args(["plan", "--server", url]).output();
        assert!(text(&plan.unwrap()).contains("no pool would change"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let kubectl = cache
            .or_else(home)
            .unwrap()
            .join("orbweaver/tools/bin/kubectl");
        if kubectl.is_file() {
            let words = line.split(' ').skip(1);
            let output = Command::new(kubectl).args(words).output().unwrap();
            let shown = text(&output);
            assert!(
                shown.contains("auto4-shop-eth0") && shown.contains("pod/web-"),
                "{shown}"
            );
        } else if std::env::var_os("ORBWEAVER_REQUIRE_TOOLS").is_some() {
            panic!("kubectl is missing: make tools");
        } else {
            eprintln!("SKIPPED: kubectl is not there; `make tools` builds it");
        }
        interrupt(&demo);
        assert!(demo.wait().unwrap().success());
    }

    #[test]
    fn who_interrupts_the_story_gets_no_success() {
        let (mut demo, _) = start(&[], "✓ both Pods run");
        interrupt(&demo);
        assert_eq!(demo.wait().unwrap().code(), Some(130));
    }

    #[test]
    fn who_reads_no_further_ends_it_without_a_complaint() {
        let mut demo = Command::new(DEMO)
            .arg("demo")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(demo.stdout.take());
        let output = demo.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }

    #[test]
    fn on_a_terminal_a_table_lives_below_the_story() {
        // `script` (util-linux) gives it a terminal.
        let command = format!("{DEMO} demo");
        let output = Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) if std::env::var_os("ORBWEAVER_REQUIRE_TOOLS").is_none() => {
                eprintln!("SKIPPED: no terminal without the program `script`: {error}");
                return;
            }
            Err(error) => panic!("no terminal without the program `script`: {error}"),
        };
        let bytes = text(&output);
        let screen = on_the_screen(&bytes);
        has_every_step_once_in_order(&screen.join("\n"));
        let table = screen
            .iter()
            .position(|line| line.starts_with("SUBNET OR POOL"))
            .unwrap();
        assert!(
            screen[table + 1..]
                .iter()
                .any(|line| line.starts_with("net4") && line.contains("0/200"))
        );
        // While it ran the table showed the pool in use, and no two tables are left.
        assert!(bytes.contains("10/11"), "{bytes}");
        assert_eq!(
            screen
                .iter()
                .filter(|line| line.starts_with("SUBNET OR POOL"))
                .count(),
            1
        );
    }
}
