//! Reading the Prometheus text exposition format: series and values, nothing else.
//!
//! Not a validator: `promtool` judges the format, this only lets a test ask for a number.

use std::collections::BTreeMap;

/// The series of one scrape, by name and labels as they were written: `name{label="value"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    series: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads `text`; comments, exemplars, timestamps and lines without a number are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { series: text.lines().filter_map(sample).collect() }
    }

    /// The value of exactly `series`, labels included.
    #[must_use]
    pub fn value(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }

    /// The sum over all series called `name`, whatever their labels; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str) -> Option<f64> {
        let mut values = self.named(name).map(|(_, value)| value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// All series called `name`, with their labels.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        self.series
            .iter()
            .filter(move |(series, _)| series.split('{').next() == Some(name))
            .map(|(series, value)| (series.as_str(), *value))
    }

    /// Every series.
    #[must_use]
    pub fn series(&self) -> &BTreeMap<String, f64> {
        &self.series
    }
}

fn sample(line: &str) -> Option<(String, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let end = end_of_series(line)?;
    let (series, rest) = line.split_at(end);
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((series.trim_end().to_owned(), value))
}

/// Where the series ends: behind its labels, whose quoted values may hold spaces and braces, or at the first space.
fn end_of_series(line: &str) -> Option<usize> {
    let (mut quoted, mut escaped, mut braces) = (false, false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => braces = true,
            b'}' if !quoted => return Some(at + 1),
            b' ' if !quoted && !braces => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP accepted_total Messages.\n# TYPE accepted_total counter\n\
        accepted_total{listener=\"smtp\"} 3\naccepted_total{listener=\"a } b\\\" c\"} 4 1700000000\nqueued 0.5\n# EOF\n";

    #[test]
    fn values_are_found_by_series_and_summed_by_name() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.value("accepted_total{listener=\"smtp\"}"), Some(3.0));
        assert_eq!(metrics.sum("accepted_total"), Some(7.0));
        assert_eq!(metrics.value("queued"), Some(0.5));
    }

    #[test]
    fn a_name_without_series_has_no_sum() {
        assert_eq!(Metrics::parse(TEXT).sum("accepted"), None);
    }
}
