//! Dates as people write them for a backfill.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use super::{Error, program};
use crate::time::CommitTime;

/// Dates that are understood as they are meant. `date` accepts more: an empty text is today to it, and "a" an hour of today.
static DATE: LazyLock<Regex> = LazyLock::new(|| {
    let day = r"(?P<day>\d{4}-\d\d-\d\d)([T ]\d\d?:\d\d(:\d\d)?( ?(Z|UTC|GMT|[+-]\d\d:?\d\d))?)?";
    let ago = r"\d+[ .](second|minute|hour|day|week|month|year)s?[ .]ago";
    Regex::new(&format!("(?-u)^({day}|{ago}|yesterday)$")).expect("the pattern is valid")
});

fn is_date(text: &str) -> bool {
    let is_in_calendar = |day: &str| humantime::parse_rfc3339_weak(&format!("{day} 00:00:00")).is_ok();
    DATE.captures(text).is_some_and(|found| found.name("day").is_none_or(|day| is_in_calendar(day.as_str())))
}

fn is_day(text: &str) -> bool {
    DATE.captures(text).and_then(|found| found.name("day")).is_some_and(|day| day.as_str() == text)
}

/// Returns the time that a date means on this machine. `date` is asked, which knows the time zone.
///
/// # Errors
/// If it is not one.
pub(super) fn parse(text: &str) -> Result<CommitTime, Error> {
    let not_one = || Error::Date(text.to_owned());
    if !is_date(text) {
        return Err(not_one());
    }
    let words = if text.ends_with("ago") { text.replace('.', " ") } else { text.to_owned() };
    let ask = |words: &str| {
        let mut date: Command = program::command("date");
        program::ask("date", date.arg("--date").arg(words).arg("+%s").env("LC_ALL", "C"), Path::new("date"))
    };
    let printed = match ask(&words) {
        // Where the clocks go forward at midnight, the day begins an hour later.
        Err(Error::Says { .. }) if is_day(&words) => ask(&format!("{words} 01:00")),
        printed => printed,
    };
    let printed = match printed {
        // Such as an hour 25.
        Err(Error::Says { .. }) => return Err(not_one()),
        printed => printed?,
    };
    let seconds = String::from_utf8_lossy(&printed).trim().parse().map_err(|_| not_one())?;
    Ok(CommitTime::from_seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_might_be_misread_is_not_a_date() {
        let dates =
            ["2026-01-31", "2026-01-31T10:00:00Z", "2026-01-31 10:00 +0100", "3 weeks ago", "1.day.ago", "yesterday"];
        assert!(dates.iter().all(|text| is_date(text) && parse(text).is_ok()));
        let others =
            ["whenever", "2026-13-45", "3 wekks ago", "", "--all", "3 weeks", "2026-01-31 tomorrow", "midnight"];
        assert!(others.iter().all(|text| !is_date(text) && parse(text).is_err()));
    }

    #[test]
    fn a_day_begins_at_midnight() {
        let midnight = parse("2026-01-31 00:00").ok();
        assert!(midnight.is_some() && parse("2026-01-31").ok() == midnight);
    }

    #[test]
    fn a_date_with_its_zone_is_the_same_everywhere() {
        assert_eq!(parse("2026-01-31T10:00:00Z").ok(), Some(CommitTime::from_seconds(1_769_853_600)));
        assert_eq!(parse("2026-01-31 10:00 +0100").ok(), Some(CommitTime::from_seconds(1_769_850_000)));
    }
}
