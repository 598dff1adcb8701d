//! Dates as WSAPI reads and writes them: ISO 8601 in, UTC with milliseconds out.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;

/// Returns the present moment in the form of the wire.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    format(i64::try_from(since.as_millis()).expect("the clock is before the year 292 million"))
}

/// Returns a date in the form of the wire, or `None` if WSAPI could not read it.
///
/// A date alone is midnight UTC; a time needs its zone.
pub fn normalize(text: &str) -> Option<String> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers::<3>(date, '-')?;
    if date.len() != 10 || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let of_day = time.map_or(Some(0), time_of_day)?;
    Some(format(days_since_1970(year, month, day) * DAY_MS + of_day))
}

/// Returns the milliseconds since midnight UTC, negative if the zone moves the day.
fn time_of_day(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', '+', '-'])?;
    let (clock, zone) = text.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers::<3>(clock, ':')?;
    if clock.len() != 8 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let digits = fraction.get(..3).unwrap_or(fraction);
    let scale = 10_i64.pow(u32::try_from(3 - digits.len()).ok()?);
    let [milliseconds] = numbers::<1>(digits, ' ')?;
    let local = ((hour * 60 + minute) * 60 + second) * 1000 + milliseconds * scale;
    Some(local - offset_minutes(zone)? * 60_000)
}

fn offset_minutes(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = zone.split_at(1);
    let compact: String = rest.chars().filter(|&c| c != ':').collect();
    if compact.len() != 4 {
        return None;
    }
    let [hour] = numbers::<1>(compact.get(..2)?, ' ')?;
    let [minute] = numbers::<1>(compact.get(2..)?, ' ')?;
    let minutes = hour * 60 + minute;
    Some(if sign == "-" { -minutes } else { minutes })
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut all = [0; N];
    for slot in &mut all {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(all)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Counts days by the civil calendar, with the year beginning in March so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn format(milliseconds: i64) -> String {
    let days = milliseconds.div_euclid(DAY_MS);
    let rest = milliseconds.rem_euclid(DAY_MS);
    let (mut year, mut left) = (1970 + days.div_euclid(366), 0);
    // The guess above is never too late; at most a few steps remain.
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    left += days - days_since_1970(year, 1, 1);
    let mut month = 1;
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    let (seconds, milliseconds) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let day = left + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_the_accepted_forms() {
        for (text, read) in [
            ("2026-02-03T04:05:06Z", Some("2026-02-03T04:05:06.000Z")),
            ("2026-02-03T04:05:06.789Z", Some("2026-02-03T04:05:06.789Z")),
            ("2026-02-03T04:05:06.7Z", Some("2026-02-03T04:05:06.700Z")),
            ("2026-02-03T04:05:06+02:00", Some("2026-02-03T02:05:06.000Z")),
            ("2026-01-01T01:00:00+0200", Some("2025-12-31T23:00:00.000Z")),
            ("2024-02-28T23:30:00-01:00", Some("2024-02-29T00:30:00.000Z")),
            ("2014-12-17", Some("2014-12-17T00:00:00.000Z")),
            ("1969-12-31T23:59:59Z", Some("1969-12-31T23:59:59.000Z")),
            ("2000-02-29", Some("2000-02-29T00:00:00.000Z")),
            ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59.000Z")),
            ("2026-02-03 04:05:06Z", None),
            ("2026-02-03T04:05:06", None),
            ("2026-02-30", None),
            ("2026-13-01", None),
            ("1900-02-29", None),
            ("yesterday", None),
            ("", None),
            ("2026-02-03T25:00:00Z", None),
            ("2026-02-03T04:05:06+é1", None),
        ] {
            assert_eq!(normalize(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn now_is_a_date_of_its_own() {
        let now = now();
        assert_eq!(normalize(&now), Some(now));
    }
}
