//! `docs/others-bugs.md` says by which test here a bug of others would be caught: each of them has to be there.

use crate::program::root;
use anyhow::{Context, Result, ensure};
use std::fs;

const TABLE: &str = "docs/others-bugs.md";

/// Rows, by their number in the first column.
const ROWS: usize = 39;

/// Paths and names, written as `` `path/to/file.rs::name_of_the_test` ``.
fn named(text: &str) -> Vec<(&str, &str)> {
    text.split('`').filter(|word| word.contains(".rs::")).filter_map(|word| word.rsplit_once("::")).collect()
}

fn rows(table: &str) -> Vec<&str> {
    table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect()
}

#[test]
fn every_test_that_is_named_is_there() -> Result<()> {
    let table = fs::read_to_string(root().join(TABLE)).with_context(|| format!("cannot read {TABLE}"))?;
    let named = named(&table);
    ensure!(named.len() > ROWS, "{TABLE} names {} tests", named.len());
    for (file, test) in named {
        let source =
            fs::read_to_string(root().join(file)).with_context(|| format!("{TABLE} names {file}"))?;
        ensure!(source.contains(&format!("fn {test}(")), "{TABLE}: there is no {test} in {file}");
    }
    Ok(())
}

#[test]
fn every_row_names_a_test_or_says_why_there_is_none() -> Result<()> {
    let table = fs::read_to_string(root().join(TABLE)).with_context(|| format!("cannot read {TABLE}"))?;
    let rows = rows(&table);
    ensure!(rows.len() == ROWS, "{TABLE} has {} rows", rows.len());
    for (row, number) in rows.into_iter().zip(1..) {
        ensure!(row.starts_with(&format!("| {number} |")), "row {number}: {row}");
        let says_why = row.contains("Can't be here:") || row.contains("Not here yet:");
        ensure!(
            says_why || !named(row).is_empty(),
            "row {number} neither names a test nor says why not: {row}"
        );
    }
    Ok(())
}
