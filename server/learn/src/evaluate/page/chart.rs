//! Plots as inline SVG. Colours and fonts are the page's: they follow its style on screen, in the dark and in print.

use std::fmt::Write as _;

/// Size of a plot in its own units; the page scales it.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 36.0;
/// Height of a bar with its gap.
const BAR: f64 = 18.0;
/// Room for the names of bars.
const BAR_NAMES: f64 = 220.0;
const TICKS: u8 = 5;

/// A plot over 0..=1 on both axes unless `y_max` says otherwise.
pub(crate) struct Chart {
    svg: String,
    y_max: f64,
}

impl Chart {
    /// An empty plot with its axes. `y_max` is above 0.
    pub(crate) fn new(x_name: &str, y_name: &str, y_max: f64) -> Self {
        let mut chart = Self { svg: String::new(), y_max };
        chart.write(format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_name} over {x_name}\">"
        ));
        for tick in 0..=TICKS {
            let part = f64::from(tick) / f64::from(TICKS);
            let (x, y) = (chart.x(part), chart.y(part * y_max));
            let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
            chart.write(format_args!("<line class=\"grid\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>"));
            chart.write(format_args!("<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\"/>"));
            chart.write(format_args!(
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{part}</text>",
                HEIGHT - BOTTOM + 14.0
            ));
            chart.write(format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 5.0,
                y + 4.0,
                short(part * y_max)
            ));
        }
        chart.write(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{x_name}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 6.0
        ));
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        chart.write(format_args!(
            "<text x=\"11\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 11 {middle})\">{y_name}</text>"
        ));
        chart
    }

    /// A line through points.
    pub(crate) fn line(mut self, class: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut list = String::new();
        for (x, y) in points {
            // Writing to a String cannot fail.
            write!(list, "{:.1},{:.1} ", self.x(x), self.y(y)).ok();
        }
        self.write(format_args!("<polyline class=\"{class}\" points=\"{}\"/>", list.trim_end()));
        self
    }

    /// Dots, with a text each that shows when pointed at.
    pub(crate) fn dots(mut self, points: impl IntoIterator<Item = (f64, f64, String)>) -> Self {
        for (x, y, text) in points {
            let (x, y) = (self.x(x), self.y(y));
            let text = escaped(&text);
            self.write(format_args!(
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{text}</title></circle>"
            ));
        }
        self
    }

    /// Bars of equal width side by side from 0 to 1; each takes the `part`-th half of its place.
    pub(crate) fn bars(mut self, class: &str, part: u8, heights: &[f64]) -> Self {
        let width = 1.0 / heights.len().max(1) as f64;
        for (index, height) in heights.iter().enumerate() {
            let left = self.x(width * (index as f64 + 0.5 * f64::from(part)));
            let (top, bottom) = (self.y(*height), self.y(0.0));
            let across = self.x(width / 2.0) - self.x(0.0) - 0.5;
            self.write(format_args!(
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{across:.1}\" height=\"{:.1}\"/>",
                bottom - top
            ));
        }
        self
    }

    /// An upright line.
    pub(crate) fn upright(mut self, class: &str, x: f64) -> Self {
        let (x, bottom) = (self.x(x), HEIGHT - BOTTOM);
        self.write(format_args!("<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"));
        self
    }

    /// The element.
    pub(crate) fn finish(mut self) -> String {
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        self.write(format_args!(
            "<rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\"/></svg>"
        ));
        self.svg
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value / self.y_max).clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        self.svg.write_fmt(text).ok();
    }
}

/// Lying bars with names, the longest over the whole width.
pub(crate) fn ranking(entries: &[(&str, f64)]) -> String {
    let height = BAR * entries.len() as f64;
    let most = entries.iter().map(|entry| entry.1).fold(f64::MIN_POSITIVE, f64::max);
    let room = WIDTH - BAR_NAMES - 60.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"importance of features\">");
    for (index, (name, value)) in entries.iter().enumerate() {
        let top = BAR * index as f64;
        let (length, text) = (value / most * room, escaped(name));
        // Writing to a String cannot fail.
        write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{text}</text>\
             <rect class=\"benign\" x=\"{BAR_NAMES}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.4}</text>",
            BAR_NAMES - 6.0,
            top + 13.0,
            top + 3.0,
            BAR - 6.0,
            BAR_NAMES + length + 4.0,
            top + 13.0
        )
        .ok();
    }
    svg + "</svg>"
}

/// Text as it may stand in HTML, in an attribute, too.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing of a report needs them, and terminals that show the file would obey them.
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

fn short(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
