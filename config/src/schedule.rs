//! When something is done again and again: a cron line of five fields, in local time.

use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const SHORTHANDS: [(&str, &str); 4] =
    [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *")];

/// Minute, hour, day of the month, month, day of the week (0 and 7 are Sunday). Lists, ranges, steps and English names
/// are understood; when both days are restricted, either is enough, as cron has always done it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

/// One minute of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    pub minute: u8,
    pub hour: u8,
    pub day: u8,
    pub month: u8,
    /// 0 is Sunday.
    pub weekday: u8,
}

impl Schedule {
    /// The error says which field is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let line = SHORTHANDS.iter().find(|(name, _)| *name == text).map_or(text, |(_, line)| line);
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("a cron line has five fields, not {}", fields.len()));
        };
        let weekdays = field("day of the week", weekdays, 0..=7, &DAYS, 0)?;
        Ok(Self {
            text: text.to_owned(),
            minutes: field("minute", minutes, 0..=59, &[], 0)?,
            hours: field("hour", hours, 0..=23, &[], 0)?,
            days: field("day of the month", days, 1..=31, &[], 0)?,
            months: field("month", months, 1..=12, &MONTHS, 1)?,
            // Seven is Sunday, too.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
        })
    }

    pub fn matches(&self, at: Minute) -> bool {
        let has = |mask: u64, value: u8| mask >> value & 1 == 1;
        let (any_day, any_weekday) = (self.days == full(1..=31), self.weekdays == full(0..=6));
        let (day, weekday) = (has(self.days, at.day), has(self.weekdays, at.weekday));
        let on_this_day = if any_day || any_weekday { day && weekday } else { day || weekday };
        has(self.minutes, at.minute) && has(self.hours, at.hour) && has(self.months, at.month) && on_this_day
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn full(range: RangeInclusive<u8>) -> u64 {
    range.fold(0, |mask, value| mask | 1 << value)
}

/// `names` stand for the values from `first` on.
fn field(what: &str, text: &str, range: RangeInclusive<u8>, names: &[&str], first: u8) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no {what} ({} to {})", range.start(), range.end());
    let value = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text)).and_then(|at| u8::try_from(at).ok());
        let value = named.map(|at| at + first).or_else(|| text.parse().ok()).ok_or_else(wrong)?;
        if range.contains(&value) { Ok(value) } else { Err(wrong()) }
    };
    let mut mask = 0;
    for part in text.split(',') {
        let (span, step) = part.split_once('/').unwrap_or((part, "1"));
        let step: usize = step.parse().ok().filter(|step| *step > 0).ok_or_else(wrong)?;
        let (from, to) = match span.split_once('-') {
            _ if span == "*" => (*range.start(), *range.end()),
            Some((from, to)) => (value(from)?, value(to)?),
            // `5/10` goes on to the end.
            None if part.contains('/') => (value(span)?, *range.end()),
            None => (value(span)?, value(span)?),
        };
        if from > to {
            return Err(wrong());
        }
        mask |= (from..=to).step_by(step).fold(0, |mask, value| mask | 1 << value);
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Friday, 27 November, at `hour`:`minute`.
    fn friday(hour: u8, minute: u8) -> Minute {
        Minute { minute, hour, day: 27, month: 11, weekday: 5 }
    }

    #[test]
    fn lines_match_as_cron_has_always_done_it() {
        for (line, at, expected) in [
            ("* * * * *", friday(3, 4), true),
            ("30 3 * * *", friday(3, 30), true),
            ("30 3 * * *", friday(3, 31), false),
            ("*/15 9-17 * * mon-fri", friday(9, 45), true),
            ("*/15 9-17 * * mon-fri", friday(18, 45), false),
            ("0 0 1,15 * 5", friday(0, 0), true),
            ("0 0 1,15 * 4", friday(0, 0), false),
            ("0 0 27 nov *", friday(0, 0), true),
            ("5/20 * * * *", friday(1, 45), true),
            ("0 0 * * 7", Minute { day: 29, weekday: 0, ..friday(0, 0) }, true),
            ("0 0 * * 5-7", Minute { day: 29, weekday: 0, ..friday(0, 0) }, true),
            ("@daily", friday(0, 0), true),
            ("@hourly", friday(7, 1), false),
        ] {
            assert_eq!(Schedule::parse(line).map(|it| it.matches(at)), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused_by_its_field() {
        for line in ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *"] {
            assert!(Schedule::parse(line).is_err(), "{line}");
        }
        for line in ["5-1 * * * *", "x * * * *", "@sometimes", "1,,2 * * * *", "* * * * -1"] {
            assert!(Schedule::parse(line).is_err(), "{line}");
        }
    }
}
