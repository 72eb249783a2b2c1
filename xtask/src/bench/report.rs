//! Samples, and what is told of them.

use anyhow::Result;
use serde_json::{Map, Value, json};

/// By what was asked and of whom, in the order of their first coming.
#[derive(Default)]
pub(super) struct Samples {
    series: Vec<Series>,
    /// Whom the others are compared with; the first contestant if nobody is named.
    baselines: Vec<String>,
}

struct Series {
    contestant: String,
    what: String,
    figures: Vec<f64>,
}

impl Samples {
    /// Samples whose ratios are to these contestants, in this order.
    pub(super) fn against(baselines: &[&str]) -> Self {
        Self { series: Vec::new(), baselines: baselines.iter().map(|&name| name.to_owned()).collect() }
    }

    pub(super) fn add(&mut self, contestant: &str, what: &str, figure: f64) {
        let own =
            self.series.iter_mut().find(|series| (&*series.contestant, &*series.what) == (contestant, what));
        match own {
            Some(series) => series.figures.push(figure),
            None => self.series.push(Series {
                contestant: contestant.to_owned(),
                what: what.to_owned(),
                figures: vec![figure],
            }),
        }
    }

    /// Tables in Markdown, one for all figures of the same contestants: medians with their spread, and behind each the
    /// ratios to the baselines' medians.
    pub(super) fn print(&self) {
        for (contestants, figures) in self.tables() {
            println!("\n| | {} |", contestants.join(" | "));
            println!("|---|{}", "---|".repeat(contestants.len()));
            for what in figures {
                let cells: Vec<_> =
                    contestants.iter().map(|contestant| self.cell(contestant, what)).collect();
                println!("| {what} | {} |", cells.join(" | "));
            }
        }
    }

    /// Contestants that are asked in part the same share a table.
    fn tables(&self) -> Vec<(Vec<&str>, Vec<&str>)> {
        let mut tables: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
        for what in self.figures() {
            let asked: Vec<_> = self.of(what).into_iter().map(|(contestant, _)| contestant).collect();
            let known =
                tables.iter_mut().find(|(all, _)| asked.iter().any(|contestant| all.contains(contestant)));
            match known {
                Some((all, figures)) => {
                    *all = distinct(all.iter().copied().chain(asked));
                    figures.push(what);
                }
                None => tables.push((asked, vec![what])),
            }
        }
        tables
    }

    pub(super) fn figures(&self) -> Vec<&str> {
        distinct(self.series.iter().map(|series| &*series.what))
    }

    fn contestants(&self) -> Vec<&str> {
        distinct(self.series.iter().map(|series| &*series.contestant))
    }

    /// The least, the median and the most, by contestant.
    pub(super) fn of(&self, what: &str) -> Vec<(&str, [f64; 3])> {
        let own = self.series.iter().filter(|series| series.what == what);
        own.map(|series| (&*series.contestant, series.spread())).collect()
    }

    fn cell(&self, contestant: &str, what: &str) -> String {
        let Some(series) = self.find(contestant, what) else { return "–".to_owned() };
        let [least, median, most] = series.spread();
        let mut cell = format!("{} [{}–{}]", short(median), short(least), short(most));
        for baseline in self.baselines() {
            let base = self.find(baseline, what).map_or(0.0, |series| series.spread()[1]);
            if base > 0.0 && !self.baselines().contains(&contestant) {
                cell.push_str(&format!(" ×{:.2}", median / base));
            }
        }
        cell
    }

    fn baselines(&self) -> Vec<&str> {
        match self.baselines.is_empty() {
            true => self.contestants().into_iter().take(1).collect(),
            false => self.baselines.iter().map(String::as_str).collect(),
        }
    }

    fn find(&self, contestant: &str, what: &str) -> Option<&Series> {
        self.series.iter().find(|series| (&*series.contestant, &*series.what) == (contestant, what))
    }

    pub(super) fn json(&self, bench: &str, rounds: usize) -> Result<String> {
        let mut by_contestant = Map::new();
        for series in &self.series {
            let own = by_contestant.entry(&series.contestant).or_insert_with(|| json!({}));
            own[&series.what] = json!({ "median": series.spread()[1], "samples": series.figures });
        }
        let mut all = json!({ "rounds": rounds });
        all[bench] = Value::Object(by_contestant);
        Ok(serde_json::to_string_pretty(&all)?)
    }
}

impl Series {
    /// The least, the median and the most.
    fn spread(&self) -> [f64; 3] {
        let mut sorted = self.figures.clone();
        sorted.sort_by(f64::total_cmp);
        let (middle, last) = (sorted.len() / 2, sorted.len() - 1);
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        [sorted[0], median, sorted[last]]
    }
}

/// Three digits and more.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 1000.0 => format!("{figure:.0}"),
        size if size >= 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
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
        assert_eq!(samples.cell("kernel", "speed"), "11.00 [10.00–12.00]");
        assert_eq!(samples.cell("ours", "speed"), "6.00 [4.00–100.0] ×0.55");
        let even =
            Series { contestant: String::new(), what: String::new(), figures: vec![4.0, 1.0, 2.0, 9.0] };
        assert_eq!(even.spread(), [1.0, 3.0, 9.0]);
        let json: Value = serde_json::from_str(&samples.json("overlay", 3).unwrap()).unwrap();
        assert_eq!(json["overlay"]["ours"]["speed"]["samples"], json!([4.0, 6.0, 100.0]));
    }

    #[test]
    fn contestants_that_share_no_figure_share_no_table() {
        let mut samples = Samples::default();
        for (contestant, what) in [("a", "x"), ("b", "x"), ("a", "y"), ("c", "z")] {
            samples.add(contestant, what, 1.0);
        }
        assert_eq!(samples.tables(), [(vec!["a", "b"], vec!["x", "y"]), (vec!["c"], vec!["z"])]);
    }

    #[test]
    fn there_may_be_two_to_compare_with() {
        let mut samples = Samples::against(&["slow", "fast"]);
        for (contestant, figure) in [("ours", 4.0), ("slow", 2.0), ("fast", 8.0)] {
            samples.add(contestant, "speed", figure);
        }
        assert_eq!(samples.cell("ours", "speed"), "4.00 [4.00–4.00] ×2.00 ×0.50");
        assert_eq!(samples.cell("fast", "speed"), "8.00 [8.00–8.00]");
    }
}
