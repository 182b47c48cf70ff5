//! Times as logs write them.

use crate::civil::{days, nanoseconds};
use crate::event::Timestamp;

const NS: i64 = 1_000_000_000;

/// Seconds with a fraction, such as `1601998366.785668` or `1e-05`, as nanoseconds. Digits beyond the ninth are cut.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.is_empty() && is_number(whole) && is_number(fraction) {
        let whole: i64 = whole.parse().ok()?;
        return whole.checked_mul(NS)?.checked_add(nanoseconds(fraction)?);
    }
    // An exponent.
    let value: f64 = text.parse().ok()?;
    let ns = (value * NS as f64).round();
    (value >= 0.0 && ns < i64::MAX as f64).then_some(ns as i64)
}

/// `2021-06-06T15:59:46.457984+0200`, also with a colon in the offset, or `Z`.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-');
    let mut next = |digits: usize| number(parts.next()?, digits);
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    let (clock, offset_s) = offset(rest)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let mut next = || number(parts.next()?, 2);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let is_valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !is_valid {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_s;
    Some(Timestamp(seconds.checked_mul(NS)?.checked_add(nanoseconds(fraction)?)?))
}

/// The clock, and seconds to take away from it for UTC.
fn offset(rest: &str) -> Option<(&str, i64)> {
    if let Some(clock) = rest.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let at = rest.rfind(['+', '-'])?;
    let (clock, offset) = rest.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits = offset[1..].replace(':', "");
    if digits.len() != 4 {
        return None;
    }
    let (hours, minutes) = (number(digits.get(..2)?, 2)?, number(digits.get(2..)?, 2)?);
    (hours < 24 && minutes < 60).then_some((clock, sign * (hours * 3_600 + minutes * 60)))
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_keep_every_digit() {
        assert_eq!(seconds("1601998366.785668"), Some(1_601_998_366_785_668_000));
        assert_eq!(seconds("0.0018720000000023163"), Some(1_872_000));
        assert_eq!(seconds("22"), Some(22_000_000_000));
        assert_eq!(seconds("1e-05"), Some(10_000));
        for bad in ["", "-", "-1", "1.2.3", "0x10", "inf", "NaN", "1e300", "99999999999999999999"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn offsets_are_taken_away() {
        let utc = Timestamp(1_622_987_986_457_984_000);
        for text in
            ["2021-06-06T15:59:46.457984+0200", "2021-06-06T13:59:46.457984Z", "2021-06-06T08:29:46.457984-05:30"]
        {
            assert_eq!(rfc3339(text), Some(utc), "{text}");
        }
        assert_eq!(rfc3339("1970-01-01T00:00:00Z"), Some(Timestamp(0)));
        assert_eq!(rfc3339("2000-02-29T00:00:00Z"), Some(Timestamp(951_782_400 * NS)));
        for bad in [
            "",
            "2021-06-06",
            "2021-13-06T00:00:00Z",
            "2021-06-06T24:00:00Z",
            "2021-06-06T00:00:00",
            "2021-06-06T00:00:0éZ",
            "9999999-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }
}
