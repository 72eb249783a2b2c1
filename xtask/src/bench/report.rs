//! Samples, and what is told of them.

use anyhow::Result;
use serde_json::{Map, Value, json};

/// By what was asked and of whom, in the order of their first coming.
#[derive(Default)]
pub(super) struct Samples(Vec<Series>);

struct Series {
    contestant: &'static str,
    what: &'static str,
    figures: Vec<f64>,
}

impl Samples {
    pub(super) fn add(&mut self, contestant: &'static str, what: &'static str, figure: f64) {
        let own = self.0.iter_mut().find(|series| (series.contestant, series.what) == (contestant, what));
        match own {
            Some(series) => series.figures.push(figure),
            None => self.0.push(Series { contestant, what, figures: vec![figure] }),
        }
    }

    /// A table in Markdown: medians, and behind each the ratio to the first contestant's.
    pub(super) fn print(&self) {
        let contestants = distinct(self.0.iter().map(|series| series.contestant));
        println!("\n| | {} |", contestants.join(" | "));
        println!("|---|{}", "---|".repeat(contestants.len()));
        for what in distinct(self.0.iter().map(|series| series.what)) {
            let base = self.series(contestants[0], what).map(Series::median);
            let cells: Vec<_> =
                contestants.iter().map(|contestant| self.cell(contestant, what, base)).collect();
            println!("| {what} | {} |", cells.join(" | "));
        }
    }

    fn cell(&self, contestant: &str, what: &str, base: Option<f64>) -> String {
        let Some(series) = self.series(contestant, what) else { return String::new() };
        let (median, (least, most)) = (series.median(), series.spread());
        match base {
            Some(base) if base > 0.0 && base != median => {
                format!("{median:.2} [{least:.2}–{most:.2}] ×{:.2}", median / base)
            }
            _ if median == 0.0 => "–".to_owned(),
            _ => format!("{median:.2} [{least:.2}–{most:.2}]"),
        }
    }

    fn series(&self, contestant: &str, what: &str) -> Option<&Series> {
        self.0.iter().find(|series| (series.contestant, series.what) == (contestant, what))
    }

    pub(super) fn json(&self, rounds: usize) -> Result<String> {
        let mut by_contestant = Map::new();
        for series in &self.0 {
            let own = by_contestant.entry(series.contestant).or_insert_with(|| json!({}));
            own[series.what] = json!({ "median": series.median(), "samples": series.figures });
        }
        let all = json!({ "rounds": rounds, "overlay": Value::Object(by_contestant) });
        Ok(serde_json::to_string_pretty(&all)?)
    }
}

impl Series {
    fn median(&self) -> f64 {
        let mut sorted = self.figures.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
    }

    fn spread(&self) -> (f64, f64) {
        let least = self.figures.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.figures.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

fn distinct(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_medians() {
        let mut samples = Samples::default();
        for (base, other) in [(10.0, 4.0), (12.0, 6.0), (11.0, 100.0)] {
            samples.add("kernel", "speed", base);
            samples.add("ours", "speed", other);
        }
        assert_eq!(samples.cell("kernel", "speed", Some(11.0)), "11.00 [10.00–12.00]");
        assert_eq!(samples.cell("ours", "speed", Some(11.0)), "6.00 [4.00–100.00] ×0.55");
        let even = Series { contestant: "", what: "", figures: vec![4.0, 1.0, 2.0, 9.0] };
        assert_eq!(even.median(), 3.0);
        let json: Value = serde_json::from_str(&samples.json(3).unwrap()).unwrap();
        assert_eq!(json["overlay"]["ours"]["speed"]["samples"], json!([4.0, 6.0, 100.0]));
    }
}
