//! Values in words, for people who read alerts.

use crate::feature::definition::Words;
use crate::feature::{FeatureKind, FeatureSpec, Subject};

/// Says in words what a feature's value means, such as `31 distinct ports in 10 s`.
///
/// Empty for a place that version 1 of the subject's features does not have.
pub fn describe(subject: Subject, feature: usize, value: f32) -> String {
    let Some(definition) = FeatureSpec::v1(subject).features.get(feature) else {
        return String::new();
    };
    if !value.is_finite() {
        return format!("{} unknown", definition.name.replace('_', " "));
    }
    match definition.words {
        Words::Flag(yes, no) => if value >= 0.5 { yes } else { no }.to_owned(),
        Words::Value(words) => words.replace("{}", &quantity(definition.kind, definition.unit, value)),
    }
}

fn quantity(kind: FeatureKind, unit: &str, value: f32) -> String {
    let value = match kind {
        FeatureKind::Logarithm | FeatureKind::Magnitude => libm::expm1(f64::from(value)),
        FeatureKind::Ratio => libm::exp(f64::from(value)),
        _ => f64::from(value),
    };
    match (kind, unit) {
        (FeatureKind::Fraction, _) => format!("{:.0} %", value * 100.0),
        (_, "milliseconds") => duration(value),
        (FeatureKind::Magnitude, _) => format!("about {}", size(value)),
        (_, "bytes" | "bytes/s") => size(value),
        (FeatureKind::Number | FeatureKind::Ratio, _) => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

fn duration(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 3_600_000.0 => format!("{:.1} min", ms / 60e3),
        ms if ms < 86_400_000.0 => format!("{:.1} h", ms / 3_600e3),
        ms => format!("{:.1} days", ms / 86_400e3),
    }
}

fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 999.5 {
        return format!("{bytes:.0} bytes");
    }
    let mut amount = bytes / 1e3;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"");
    for larger in units {
        if amount < 999.95 {
            break;
        }
        amount /= 1e3;
        unit = larger;
    }
    format!("{amount:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::MISSING;

    fn say(subject: Subject, name: &str, value: f32) -> String {
        let feature = FeatureSpec::v1(subject).index_of(name);
        describe(subject, feature.expect(name), value)
    }

    #[test]
    fn values_are_said_in_words_with_their_units() {
        let c = Subject::Connection;
        assert_eq!(
            say(c, "host_distinct_ports_10s", libm::log1pf(31.0)),
            "31 distinct ports contacted on this host in 10 s"
        );
        assert_eq!(say(c, "bytes_sent", libm::log1pf(2_500_000.0)), "about 2.5 MB sent");
        assert_eq!(say(c, "failed", 1.0), "it never was established");
        assert_eq!(say(c, "duration", libm::log1pf(1500.0)), "it lasted 1.5 s");
        assert_eq!(say(Subject::ProcessStart, "parent_is_shell", MISSING), "parent is shell unknown");
        assert_eq!(describe(c, usize::MAX, 1.0), "");
    }

    #[test]
    fn quantities_step_up_their_units() {
        assert_eq!(
            ["0 ms", "1.0 s", "1.0 min", "2.0 h", "3.0 days"].map(str::to_owned),
            [duration(0.0), duration(999.6), duration(60_000.0), duration(7.2e6), duration(3.0 * 86.4e6)]
        );
        assert_eq!(
            ["999 bytes", "1.0 kB", "1.0 MB", "3.0 PB"].map(str::to_owned),
            [size(999.0), size(1000.0), size(999_960.0), size(3e15)]
        );
    }
}
