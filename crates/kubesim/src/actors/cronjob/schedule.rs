//! The five fields of a schedule, as cron has them, in UTC.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Days that are looked at for the next time: any 29th of February is among them.
const DAYS: usize = 366 * 8;

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

/// The values of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// Bit `n`: the value `n` is in.
    bits: u64,
    /// Whether it was written as a star.
    star: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|bit| self.bits >> bit & 1 == 1)
    }

    /// `*`, `*/n`, `a`, `a-b`, `a-b/n`, `a/n`, and several with commas. `names` stand for `first`, ….
    fn parse(text: &str, first: u32, last: u32, names: &[&str]) -> Option<Self> {
        let number = |text: &str| {
            let at = names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(text));
            let value = at.and_then(|at| Some(u32::try_from(at).ok()? + first));
            value.or_else(|| text.parse().ok())
        };
        let mut bits = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(step.parse::<usize>().ok()?)),
                None => (part, None),
            };
            let (from, to) = match range.split_once('-') {
                _ if matches!(range, "*" | "?") => (first, last),
                Some((from, to)) => (number(from)?, number(to)?),
                None => (
                    number(range)?,
                    if step.is_some() { last } else { number(range)? },
                ),
            };
            if from < first || to > last || from > to || step == Some(0) {
                return None;
            }
            for value in (from..=to).step_by(step.unwrap_or(1)) {
                bits |= 1 << value;
            }
        }
        let star = text.starts_with(['*', '?']);
        Some(Self { bits, star })
    }
}

impl Schedule {
    /// Reads five fields, or one of the words for common ones.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return None;
        };
        let month_names = [
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ];
        let day_names = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        Some(Self {
            minutes: Field::parse(minutes, 0, 59, &[])?,
            hours: Field::parse(hours, 0, 23, &[])?,
            days: Field::parse(days, 1, 31, &[])?,
            months: Field::parse(months, 1, 12, &month_names)?,
            weekdays: Field::parse(weekdays, 0, 6, &day_names)?,
        })
    }

    /// The first time after `time`; none where there never is one.
    pub(super) fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = time.to_zoned(TimeZone::UTC).datetime();
        let start = start.checked_add(1.minute()).ok()?;
        let start = start.date().at(start.hour(), start.minute(), 0, 0);
        let days = std::iter::successors(Some(start.date()), |day| day.tomorrow().ok());
        let found = days
            .take(DAYS)
            .filter(|day| self.has_day(*day))
            .find_map(|day| {
                let from = start.max(day.at(0, 0, 0, 0));
                self.in_day(day, from)
            })?;
        Some(found.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// Day of the month and day of the week: both, where one is a star; else either will do.
    fn has_day(&self, day: Date) -> bool {
        let of_month = self.days.has(day.day());
        let of_week = self.weekdays.has(day.weekday().to_sunday_zero_offset());
        let day_fits = if self.days.star || self.weekdays.star {
            of_month && of_week
        } else {
            of_month || of_week
        };
        self.months.has(day.month()) && day_fits
    }

    fn in_day(&self, day: Date, from: DateTime) -> Option<DateTime> {
        let hours = (0..24).filter(|hour| self.hours.has(*hour));
        let mut times = hours.flat_map(|hour| {
            let minutes = (0..60).filter(|minute| self.minutes.has(*minute));
            minutes.map(move |minute| day.at(hour, minute, 0, 0))
        });
        times.find(|time| *time >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(schedule: &str, time: &str) -> Option<String> {
        let schedule = Schedule::parse(schedule).unwrap();
        schedule.after(time.parse().unwrap()).map(|t| t.to_string())
    }

    fn is(schedule: &str, time: &str, next: &str) {
        assert_eq!(
            after(schedule, time).as_deref(),
            Some(next),
            "{schedule} after {time}"
        );
    }

    #[test]
    fn the_next_time_is_after_the_one_given() {
        is(
            "*/15 * * * *",
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:15:00Z",
        );
        is("0 0 * * *", "2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z");
        is(
            "30 8-10/2 * * mon-fri",
            "2026-11-21T09:00:00Z",
            "2026-11-23T08:30:00Z",
        );
        is(
            "0 0 29 feb *",
            "2026-01-01T00:00:00Z",
            "2028-02-29T00:00:00Z",
        );
        is("@hourly", "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z");
    }

    #[test]
    fn two_kinds_of_days_mean_either() {
        is("0 0 13 * 5", "2026-11-09T00:00:00Z", "2026-11-13T00:00:00Z");
        is("0 0 13 * 5", "2026-11-14T00:00:00Z", "2026-11-20T00:00:00Z");
    }

    #[test]
    fn a_day_that_never_comes_has_no_time_and_nonsense_is_refused() {
        assert_eq!(after("0 0 31 2 *", "2026-01-01T00:00:00Z"), None);
        for text in [
            "* * * *",
            "60 * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
        ] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
    }
}
