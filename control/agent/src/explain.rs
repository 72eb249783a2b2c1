//! Errors as one line for people.

use std::error::Error;

/// The error and what caused it, `: ` in between. A cause the text quotes already isn't repeated.
pub(crate) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::GwbridgeError;
    use std::io;

    #[test]
    fn a_cause_is_told_once() {
        let source = io::Error::other("no such device");
        let error = GwbridgeError::Step { step: "make the bridge".to_owned(), source };
        assert_eq!(explain(&error), "cannot make the bridge: no such device");
        let transparent = crate::agent::JoinError::Gwbridge(error);
        assert_eq!(transparent.to_string(), "cannot make the bridge: no such device");
    }

    #[test]
    fn a_layer_without_words_adds_none() {
        let source = io::Error::other("no such device");
        let error = GwbridgeError::Step { step: "make the bridge".to_owned(), source };
        let transparent = crate::host::SandboxError::Gwbridge(error);
        assert_eq!(explain(&transparent), "cannot make the bridge: no such device");
    }
}
