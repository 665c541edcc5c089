//! The rounds of one piece of work side by side: for a person, and for a file.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use super::figures::{Cost, Figures, ratio};

/// The key of the product's row, with all that helps it.
pub const OURS: &str = "ours";
/// The key of the row that the product is compared with.
pub const BASELINE: &str = "baseline";

/// What came of one piece of work.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its key in a file of figures, and on a command line.
    pub key: &'static str,
    /// What the work is.
    pub title: String,
    /// Its rounds.
    pub rows: Vec<Row>,
    /// What else there is to say of them.
    pub notes: Vec<String>,
    /// Whether the product must have written nothing but Leases.
    pub is_rest: bool,
}

/// One round.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its key in a file of figures.
    pub key: &'static str,
    /// Who did the work, and how.
    pub who: String,
    /// What came of it.
    pub figures: Figures,
}

impl Row {
    /// A round of the product or of the baseline.
    pub fn new(key: &'static str, who: impl Into<String>, figures: Figures) -> Self {
        let who = who.into();
        Self { key, who, figures }
    }
}

impl Section {
    /// How many times the baseline's addresses a second the product's are.
    pub fn ratio(&self) -> Option<f64> {
        let speed = |key| self.row(key).map(|row| row.figures.adds_per_s);
        Some(ratio(speed(OURS)?, speed(BASELINE)?))
    }

    /// The section as it goes into a file of figures.
    pub fn as_json(&self) -> Value {
        let rows = self.rows.iter();
        let mut all: Map<_, _> = rows
            .map(|row| (row.key.to_owned(), json!(row.figures)))
            .collect();
        all.insert("what".to_owned(), json!(self.title));
        if let Some(ratio) = self.ratio() {
            all.insert("ratio".to_owned(), json!(ratio));
        }
        Value::Object(all)
    }

    /// Errors: a call of the product did not succeed at its first try, or it wrote while nothing was
    /// asked of it.
    pub fn ensure_sound(&self) -> Result<()> {
        for Row { who, figures, .. } in self.rows.iter().filter(|row| row.key != BASELINE) {
            let failed = figures.failed_calls + figures.failed_dels;
            ensure!(
                failed == 0,
                "{}, {who}: {failed} calls failed at their first try, the first by: {}",
                self.title,
                figures.first_failure.as_deref().unwrap_or("?"),
            );
            let Cost {
                writes,
                api_requests,
                ..
            } = &figures.cost;
            ensure!(
                !self.is_rest || *writes == 0,
                "{}, {who}: {writes} writes of other than Leases: {api_requests:?}",
                self.title
            );
        }
        Ok(())
    }

    /// Of several runs of the same work, each row as the run in the middle had it: by addresses a
    /// second, or by time where none were given.
    ///
    /// Notes are those of the first run. `None` of no run.
    pub fn middle(runs: &[Self]) -> Option<Self> {
        let mut middle = runs.first()?.clone();
        for row in &mut middle.rows {
            let rows = runs.iter().flat_map(|run| &run.rows);
            let mut same: Vec<_> = rows.filter(|it| it.key == row.key).collect();
            let speed = |row: &Row| (row.figures.adds_per_s, row.figures.seconds);
            same.sort_by(|a, b| {
                speed(a)
                    .partial_cmp(&speed(b))
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
            if let Some(found) = same.get((same.len() - 1) / 2) {
                *row = (*found).clone();
            }
        }
        Some(middle)
    }

    fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == key)
    }

    /// Who called the API server how often meanwhile: ours, then the baseline.
    fn requests(&self) -> BTreeMap<&str, [u64; 2]> {
        let mut all = BTreeMap::<&str, [u64; 2]>::new();
        for (column, key) in [OURS, BASELINE].into_iter().enumerate() {
            let row = self.row(key).into_iter();
            for (call, count) in row.flat_map(|row| &row.figures.cost.api_requests) {
                if let Some(cell) = all.entry(call).or_default().get_mut(column) {
                    *cell = *count;
                }
            }
        }
        all
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n({}) {}", self.key, self.title)?;
        writeln!(
            f,
            "{:36}{:>7} {:>8} {:>7} {:>7} {:>7} {:>6} {:>9} {:>10} {:>8} {:>6} {:>9} {:>9} {:>7}",
            "",
            "adds/s",
            "seconds",
            "p50 ms",
            "p99 ms",
            "max ms",
            "failed",
            "conflicts",
            "writes/Pod",
            "etcd MiB",
            "CPU s",
            "agent MiB",
            "contr MiB",
            "dels/s",
        )?;
        self.rows.iter().try_for_each(|row| row.fmt(f))?;
        if let Some(ratio) = self.ratio() {
            writeln!(f, "{ratio:.1} × the baseline's adds/s")?;
        }
        if let Some(Row { figures, .. }) = self.row(OURS) {
            write!(f, "CPU seconds in {:.1} s:", figures.cost.counted_s)?;
            for (who, seconds) in &figures.cost.cpu_s_of {
                write!(f, " {who} {seconds:.1}")?;
            }
            writeln!(f)?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        write!(f, "API calls meanwhile: orbweaver, one by one")?;
        for (call, [ours, baseline]) in self.requests() {
            write!(f, "\n{ours:>8} {baseline:>8}  {call}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, figures, .. } = self;
        let cost = &figures.cost;
        let mib = ratio(super::figures::float(cost.etcd_bytes), 1_048_576.0);
        // Nothing is measured as nothing: what a round does not have is told so.
        let some = |value: f64, digits: usize| match value {
            0.0 => "–".to_owned(),
            _ => format!("{value:.digits$}"),
        };
        writeln!(
            f,
            "{who:36}{:>7} {:>8.1} {:>7} {:>7} {:>7} {:>6} {:>9} {:>10} {:>8.1} {:>6.1} {:>9} \
             {:>9} {:>7}",
            some(figures.adds_per_s, 1),
            figures.seconds,
            some(figures.p50_ms, 0),
            some(figures.p99_ms, 0),
            some(figures.max_ms, 0),
            figures.failed_calls + figures.failed_dels,
            cost.conflicts,
            some(figures.pool_writes_per_pod, 2),
            mib,
            cost.cpu_s,
            some(cost.rss_mb, 0),
            some(cost.controller_rss_mb, 0),
            some(figures.dels_per_s, 1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(rows: impl IntoIterator<Item = (&'static str, Figures)>) -> Section {
        let rows = rows.into_iter();
        Section {
            key: "b",
            title: "one pool".to_owned(),
            rows: rows
                .map(|(key, figures)| Row::new(key, key, figures))
                .collect(),
            notes: vec![],
            is_rest: false,
        }
    }

    fn adds(adds_per_s: f64) -> Figures {
        Figures {
            adds_per_s,
            ..Figures::default()
        }
    }

    fn failing(failed_calls: usize, failed_dels: usize) -> Figures {
        Figures {
            failed_calls,
            failed_dels,
            first_failure: Some("no time".to_owned()),
            ..Figures::default()
        }
    }

    #[test]
    fn a_failed_call_of_the_product_fails_the_run_and_one_of_the_baseline_does_not() {
        let sound = section([(OURS, adds(1.0)), (BASELINE, failing(83, 0))]);
        assert!(sound.ensure_sound().is_ok());
        let error = section([(OURS, failing(1, 0))]).ensure_sound().unwrap_err();
        assert_eq!(
            error.to_string(),
            "one pool, ours: 1 calls failed at their first try, the first by: no time"
        );
        let error = section([(OURS, adds(1.0)), ("ours_live", failing(0, 2))]).ensure_sound();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ours_live: 2 calls"), "{error}");
    }

    #[test]
    fn a_write_is_no_failure_but_where_nothing_is_asked() {
        let mut figures = Figures::default();
        figures.cost.writes = 3;
        let mut section = section([(OURS, figures)]);
        assert!(section.ensure_sound().is_ok());
        section.is_rest = true;
        let error = section.ensure_sound().unwrap_err().to_string();
        assert!(error.contains("ours: 3 writes"), "{error}");
    }

    #[test]
    fn each_row_is_that_of_the_run_in_the_middle() {
        let runs = [(900.0, 13.0), (700.0, 15.0), (800.0, 14.0)];
        let runs = runs.map(|(ours, other)| section([(OURS, adds(ours)), (BASELINE, adds(other))]));
        let middle = Section::middle(&runs).unwrap();
        let speeds: Vec<_> = middle
            .rows
            .iter()
            .map(|row| row.figures.adds_per_s)
            .collect();
        assert_eq!(speeds, [800.0, 14.0]);
        let [first, second, _] = runs;
        let two = Section::middle(&[first, second]).unwrap();
        let worse = two.rows.first().map(|row| row.figures.adds_per_s);
        assert_eq!(worse, Some(700.0));
        assert!(Section::middle(&[]).is_none());
    }

    #[test]
    fn a_file_has_the_rows_by_key_and_what_they_are_compared_to() {
        let json = section([(OURS, adds(500.0)), (BASELINE, adds(10.0))]).as_json();
        assert_eq!(json["ratio"], 50.0);
        assert_eq!(json["ours"]["adds_per_s"], 500.0);
        assert_eq!(json["ours"]["conflicts"], 0);
        assert_eq!(json["ours"].get("p99_ms"), None, "it was not measured");
        assert_eq!(section([(OURS, adds(1.0))]).as_json().get("ratio"), None);
    }
}
