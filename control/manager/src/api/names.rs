//! Names of services, networks and attachments: they are labels of DNS names.

use rand::RngExt;

/// RFC 1035 §2.3.4: longest label.
const MAX_LABEL: usize = 63;

/// The texts are Swarm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("name must be valid as a DNS name component")]
    Malformed,
    #[error("name must be 63 characters or fewer")]
    TooLong,
}

/// Swarm's rule: letters, digits, and inside also `-` and `_` (stacks name their services `app_web`).
pub fn check(name: &str) -> Result<(), NameError> {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !edge(bytes.first()) || !edge(bytes.last()) || !bytes.iter().all(inside) {
        return Err(NameError::Malformed);
    }
    if name.len() > MAX_LABEL { Err(NameError::TooLong) } else { Ok(()) }
}

const TEMPERS: [&str; 16] = [
    "amber", "brave", "busy", "calm", "clever", "dusky", "eager", "gentle", "golden", "humming", "keen",
    "merry", "nimble", "quiet", "sunny", "swift",
];
const BEES: [&str; 16] = [
    "andrena", "bombus", "carder", "drone", "forager", "heather", "honeybee", "keeper", "linden", "mason",
    "meadow", "nectar", "pollen", "queen", "scout", "worker",
];

/// A name for a service the user gave none, as Docker does.
pub(crate) fn random(taken: impl Fn(&str) -> bool) -> String {
    let mut rng = rand::rng();
    let plain = format!("{}_{}", TEMPERS[rng.random_range(0..16)], BEES[rng.random_range(0..16)]);
    if !taken(&plain) {
        return plain;
    }
    let numbered = (2u64..).map(|n| format!("{plain}{n}"));
    numbered.into_iter().find(|name| !taken(name)).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_with_underscores_inside() {
        for good in ["a", "web", "app_web", "web-2", "9lives", &"x".repeat(63)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "-web", "web-", "_web", "we b", "web.1", "wéb", "a/b"] {
            assert_eq!(check(bad), Err(NameError::Malformed), "{bad}");
        }
        assert_eq!(check(&"x".repeat(64)), Err(NameError::TooLong));
    }

    #[test]
    fn a_made_up_name_is_valid_and_free() {
        let first = random(|_| false);
        assert_eq!(check(&first), Ok(()));
        let second = random(|name| !name.ends_with('3'));
        assert!(second.ends_with('3'));
        assert_eq!(check(&second), Ok(()));
    }
}
