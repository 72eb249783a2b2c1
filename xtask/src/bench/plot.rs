//! Pictures, drawn by gnuplot.

use super::report::Samples;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// One row of pictures is this many figures wide.
const COLUMNS: usize = 3;
const WIDTH: usize = 520;
const HEIGHT: usize = 360;

/// The medians with their spread, a picture for each figure.
pub(super) fn bars(name: &str, samples: &Samples, file: &Path) -> Result<()> {
    let figures = samples.figures();
    let rows = figures.len().div_ceil(COLUMNS);
    let mut script = head(file, COLUMNS * WIDTH, rows * HEIGHT);
    script.push_str("set style fill solid 0.6\nset boxwidth 0.7\nset yrange [0:*]\nunset key\n");
    let _ = writeln!(script, "set multiplot layout {rows},{COLUMNS} title {}", quoted(name));
    for figure in figures {
        let _ = writeln!(script, "set title {}", quoted(figure));
        let mut block = String::new();
        for (at, (contestant, [low, median, high])) in samples.of(figure).into_iter().enumerate() {
            // In data, only these quotes keep words together.
            let _ = writeln!(block, "{at} {median} {low} {high} \"{contestant}\"");
        }
        let _ = write!(script, "$data << EOD\n{block}EOD\nset xtics rotate by -20 font ',8'\n");
        script.push_str(
            "plot $data using 1:2:xtic(5) with boxes, $data using 1:2:3:4 with yerrorbars lc black pt 0\n",
        );
    }
    script.push_str("unset multiplot\n");
    draw(&script)
}

/// Curves over one number, both scales logarithmic.
pub(super) fn curves(title: [&str; 3], curves: &[(String, Vec<(f64, f64)>)], file: &Path) -> Result<()> {
    let [title, x, y] = title;
    let mut script = head(file, 2 * WIDTH, 2 * HEIGHT);
    let _ = write!(
        script,
        "set title {}\nset xlabel {}\nset ylabel {}\nset logscale x 10\nset yrange [0:*]\nset key outside bottom\n",
        quoted(title),
        quoted(x),
        quoted(y)
    );
    let mut plots = Vec::new();
    for (at, (curve, points)) in curves.iter().enumerate() {
        let _ = writeln!(script, "$c{at} << EOD");
        for (x, y) in points {
            let _ = writeln!(script, "{x} {y}");
        }
        script.push_str("EOD\n");
        plots.push(format!("$c{at} using 1:2 with linespoints title {}", quoted(curve)));
    }
    let _ = writeln!(script, "plot {}", plots.join(", "));
    draw(&script)
}

fn head(file: &Path, width: usize, height: usize) -> String {
    format!(
        "set terminal pngcairo noenhanced size {width},{height}\nset output {}\nset grid ytics\n",
        quoted(&file.display().to_string())
    )
}

/// As a string of gnuplot's; single quotes are doubled in them.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn draw(script: &str) -> Result<()> {
    let mut gnuplot = Command::new("gnuplot").stdin(Stdio::piped()).spawn().context("cannot run gnuplot")?;
    gnuplot.stdin.take().context("standard input is piped")?.write_all(script.as_bytes())?;
    let status = gnuplot.wait()?;
    ensure!(status.success(), "gnuplot: {status}");
    Ok(())
}
