//! This process's own terminal while a container's is shown on it.

use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns of the terminal on stdout; None where there is none.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_row, size.ws_col))
}

pub(crate) fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Every key goes to the container as it is typed, ^C too, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// None where stdin is no terminal.
    pub(crate) fn new() -> io::Result<Option<Self>> {
        if !is_input() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
