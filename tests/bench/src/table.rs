//! One row per figure, printed as one table.

use std::fmt::Write as _;

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    Seconds,
    /// Frames a second.
    Fps,
    /// Frames.
    Frames,
    /// Things a second.
    PerSecond,
    /// KB of 1,000 bytes.
    Kb,
    /// MB of 1,000,000 bytes.
    Mb,
    /// Hundredths of one core.
    Percent,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ms if value < 100.0 => format!("{value:.2} ms"),
            Self::Ms => format!("{value:.0} ms"),
            Self::Seconds => format!("{value:.2} s"),
            Self::Fps => format!("{value:.2} fps"),
            Self::Frames => format!("{value:.0}"),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Kb => format!("{value:.1} KB"),
            Self::Mb => format!("{value:.0} MB"),
            Self::Percent => format!("{value:.2} %"),
        }
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Ours, at most this.
    AtMost(f64),
    /// Ours, at least this.
    AtLeast(f64),
    /// Ours by the other's, at most this.
    RatioAtMost(f64),
    /// Ours by the other's, at least this.
    RatioAtLeast(f64),
}

impl Target {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {}", unit.show(limit)),
            Self::AtLeast(limit) => format!(">= {}", unit.show(limit)),
            Self::RatioAtMost(limit) => format!("ratio <= {limit}"),
            Self::RatioAtLeast(limit) => format!("ratio >= {limit}"),
        }
    }

    /// Whether it is met; `None` for a ratio without another's figure.
    fn is_met(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(ours <= limit),
            Self::AtLeast(limit) => Some(ours >= limit),
            Self::RatioAtMost(limit) => ratio.map(|ratio| ratio <= limit),
            Self::RatioAtLeast(limit) => ratio.map(|ratio| ratio >= limit),
        }
    }
}

/// One figure, or why there is none.
#[derive(Debug, Clone)]
pub struct Row {
    what: String,
    unit: Unit,
    /// Ours, or the reason that it was not measured.
    ours: Result<f64, String>,
    /// Whose the other figure is, and the figure or the reason.
    other: Option<(&'static str, Result<f64, String>)>,
    target: Option<Target>,
}

impl Row {
    /// A figure of ours.
    pub fn new(what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self { what: what.into(), unit, ours: Ok(ours), other: None, target: None }
    }

    /// A figure that could not be taken.
    pub fn missing(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), unit: Unit::Ms, ours: Err(reason.into()), other: None, target: None }
    }

    /// The same thing done by `name`.
    pub fn against(mut self, name: &'static str, other: Result<f64, String>) -> Self {
        self.other = Some((name, other));
        self
    }

    /// What the figure should be.
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The cells of its line; reasons go below the table.
    fn cells(&self, notes: &mut Vec<String>) -> [String; 6] {
        let mut missing = |reason: &String| {
            let known = notes.iter().position(|note| note == reason);
            let n = known.unwrap_or_else(|| {
                notes.push(reason.clone());
                notes.len() - 1
            });
            format!("not measured [{}]", n + 1)
        };
        let ours = self.ours.as_ref().map_or_else(&mut missing, |value| self.unit.show(*value));
        let other = match &self.other {
            None => dash(),
            Some((name, Ok(value))) => format!("{} ({name})", self.unit.show(*value)),
            Some((name, Err(reason))) => format!("{} ({name})", missing(reason)),
        };
        let ratio = self.ratio();
        let target = self.target.map_or_else(dash, |target| target.show(self.unit));
        let met = self.target.map_or_else(dash, |target| self.verdict(target).to_owned());
        [self.what.clone(), ours, other, ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")), target, met]
    }

    fn ratio(&self) -> Option<f64> {
        let (Ok(ours), Some((_, Ok(other)))) = (&self.ours, &self.other) else { return None };
        (*other > 0.0).then(|| ours / other)
    }

    fn verdict(&self, target: Target) -> &'static str {
        let met = self.ours.as_ref().ok().and_then(|ours| target.is_met(*ours, self.ratio()));
        match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        }
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// The table as text: columns as wide as what is in them.
pub fn table(rows: &[Row]) -> String {
    let head = ["what", "ours", "the other", "ratio", "target", ""].map(str::to_owned);
    let (mut lines, mut notes) = (vec![head], Vec::new());
    lines.extend(rows.iter().map(|row| row.cells(&mut notes)));
    let width = |n: usize| lines.iter().map(|cells| cells[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for (n, cells) in lines.iter().enumerate() {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end_matches([' ', '-']).trim_end());
        if n == 0 {
            let _ = writeln!(text, "{}", "-".repeat(widths.iter().sum::<usize>() + 10));
        }
    }
    for (n, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "[{}] {note}", n + 1);
    }
    text
}

/// The middle value; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The value that so many hundredths of all do not exceed; `None` of nothing.
pub fn percentile(values: &[f64], hundredths: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The largest value; `None` of nothing.
pub fn largest(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}
