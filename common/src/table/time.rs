//! Times as tables write them.
//!
//! * RFC 3339 and its relatives: `2021-06-06T15:59:46.45+02:00`, `2021-06-06 15:59`, `2021/06/06`, all UTC unless an offset says
//!   otherwise;
//! * day first with slashes: `7/11/2017 8:59:30 AM` is 7 November;
//! * seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size.

use crate::civil::{days, nanoseconds};
use crate::event::Timestamp;

const NS: i64 = 1_000_000_000;
const DAY_S: i64 = 86_400;

/// A time; nothing when the text is none.
pub fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let may_be_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E');
    if let Some(number) = text.parse::<f64>().ok().filter(|_| text.bytes().all(may_be_number)) {
        return since_1970(number);
    }
    let (date, clock) = text.split_once(['T', ' ']).map_or((text, ""), |(date, clock)| (date, clock.trim()));
    let day = day_of(date)?;
    let ns = if clock.is_empty() { 0 } else { clock_ns(clock)? };
    Some(Timestamp(day.checked_mul(DAY_S * NS)?.checked_add(ns)?))
}

/// Whether a number is likely to be a time since 1970: in seconds to nanoseconds, of the years 2000 to 2100.
pub fn is_plausible(number: f64) -> bool {
    const FROM: f64 = 946_684_800.0;
    const TO: f64 = 4_102_444_800.0;
    [1.0, 1e3, 1e6, 1e9].iter().any(|unit| (FROM * unit..TO * unit).contains(&number))
}

/// Seconds below 1e11 (the year 5138), milliseconds below 1e14, microseconds below 1e17, else nanoseconds.
fn since_1970(number: f64) -> Option<Timestamp> {
    let unit = match number.abs() {
        size if size < 1e11 => 1e9,
        size if size < 1e14 => 1e6,
        size if size < 1e17 => 1e3,
        _ => 1.0,
    };
    let ns = number * unit;
    (ns.abs() < i64::MAX as f64).then_some(Timestamp(ns as i64))
}

/// Days since 1970.
fn day_of(date: &str) -> Option<i64> {
    let separator = if date.contains('/') { '/' } else { '-' };
    let mut parts = date.split(separator).map(number);
    let (a, b, c) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let (year, month, day) = if a > 31 { (a, b, c) } else { (c, b, a) };
    let is_valid = (1..=12).contains(&month) && (1..=31).contains(&day) && (1000..=9999).contains(&year);
    is_valid.then(|| days(year, month, day))
}

/// Nanoseconds since midnight UTC.
fn clock_ns(clock: &str) -> Option<i64> {
    let (clock, afternoon) = match clock.rsplit_once(' ') {
        Some((clock, half)) if half.eq_ignore_ascii_case("am") => (clock, Some(false)),
        Some((clock, half)) if half.eq_ignore_ascii_case("pm") => (clock, Some(true)),
        Some((clock, "UTC" | "GMT")) => (clock, None),
        Some(_) => return None,
        None => (clock, None),
    };
    let (clock, offset_s) = offset(clock)?;
    let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(number);
    let (mut hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    if let Some(afternoon) = afternoon {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((hour * 3_600 + minute * 60 + second - offset_s) * NS + nanoseconds(fraction)?)
}

/// The clock, and seconds to take away from it for UTC.
fn offset(clock: &str) -> Option<(&str, i64)> {
    if let Some(clock) = clock.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = clock.rfind(['+', '-']) else { return Some((clock, 0)) };
    let (clock, offset) = clock.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits)?, 0),
        4 => (number(digits.get(..2)?)?, number(digits.get(2..)?)?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some((clock, sign * (hours * 3_600 + minutes * 60)))
}

/// One to four digits.
fn number(text: &str) -> Option<i64> {
    let is_number = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Hour of the day and day of the week as points on circles: sine and cosine of each.
pub(super) fn cycles(time: Timestamp) -> [f32; 4] {
    let second = time.0.div_euclid(NS);
    let of_day = second.rem_euclid(DAY_S) as f64 / DAY_S as f64;
    // 1970-01-01 was a Thursday; the week begins with Monday.
    let of_week = (second + 3 * DAY_S).rem_euclid(7 * DAY_S) as f64 / (7 * DAY_S) as f64;
    let mut circles = [0.0; 4];
    for (pair, part) in circles.chunks_exact_mut(2).zip([of_day, of_week]) {
        let angle = part * std::f64::consts::TAU;
        pair[0] = libm::sin(angle) as f32;
        pair[1] = libm::cos(angle) as f32;
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_however_tables_write_them() {
        let expected = Some(Timestamp(1_622_995_186_000_000_000));
        for text in [
            "2021-06-06T15:59:46Z",
            "2021-06-06 15:59:46",
            " 2021-06-06T17:59:46+02:00 ",
            "2021-06-06T17:59:46+0200",
            "2021/06/06 15:59:46.000",
            "06/06/2021 3:59:46 PM",
            "2021-06-06 15:59:46 UTC",
            "1622995186",
            "1622995186.0",
            "1622995186000",
            "1622995186000000",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse("1970-01-02"), Some(Timestamp(DAY_S * NS)));
        assert_eq!(parse("07/11/2017"), parse("2017-11-07"));
        for text in
            ["", "tcp", "15:59:46", "2021-13-06", "2021-06-06T25:00:00", "10.0.0.1", "1-2", "2021-06-06T15:59:46 X"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn midnight_and_monday_are_where_the_circles_begin() {
        // 1970-01-05 was a Monday.
        let [sin, cos, week_sin, week_cos] = cycles(Timestamp(4 * DAY_S * NS));
        assert_eq!([sin, cos, week_sin, week_cos], [0.0, 1.0, 0.0, 1.0]);
        let six = cycles(Timestamp(4 * DAY_S * NS + 6 * 3_600 * NS));
        assert!((six[0] - 1.0).abs() < 1e-6 && six[1].abs() < 1e-6 && six[2] > 0.0);
    }
}
