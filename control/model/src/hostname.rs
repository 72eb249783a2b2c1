//! Host names of containers. They are written into files of one entry a line, so that nothing else may pass.

/// The kernel's HOST_NAME_MAX.
pub const MAX_BYTES: usize = 64;

/// RFC 1123 §2.1, in labels of RFC 1035 §2.3.4.
pub fn is_valid(hostname: &str) -> bool {
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && letters(label) && !label.starts_with('-') && !label.ends_with('-')
    };
    hostname.len() <= MAX_BYTES && hostname.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_letters_digits_and_dashes() {
        for good in ["a", "front-1", "web.example", "9", &"x".repeat(63)] {
            assert!(is_valid(good), "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a", "a-", "a_b", "a b", "a\nb", "wéb", &"x".repeat(64), &"x.".repeat(40)]
        {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }
}
