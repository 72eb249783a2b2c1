//! Writing to stdout without dying of a closed pipe: `println!` panics there, this returns the error.

use std::fmt::Display;
use std::io::{self, Write};

pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// As it is, without a line's end.
pub(crate) fn raw(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout();
    write!(stdout, "{text}")?;
    stdout.flush()
}
