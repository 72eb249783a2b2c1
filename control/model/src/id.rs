//! Object ids: 128 random bits written as 25 base-36 digits, as Swarm's ids are, so that scripts
//! which cut or match them keep working.

use rand::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// A new id from the system's randomness.
            pub fn random() -> Self {
                Self(random_id())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.to_owned())
            }
        }
    };
}

id!(/// The whole cluster.
    ClusterId);
id!(/// A host that is a member; also the common name of its certificate.
    NodeId);
id!(/// A network of the cluster.
    NetworkId);
id!(/// A service.
    ServiceId);
id!(/// One run of one instance of a service, or of an attachment.
    TaskId);

/// 25 base-36 digits hold 129 bits, so 128 random bits always fit.
const ID_DIGITS: usize = 25;

fn random_id() -> String {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    base36(&bytes, ID_DIGITS)
}

/// `bytes` as one big-endian number in base 36, padded with zeros on the left to `digits`.
pub(crate) fn base36(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = vec![b'0'; digits];
    for slot in out.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        *slot = char::from_digit(remainder, 36).map_or(b'0', |digit| digit as u8);
    }
    out.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base36_counts_like_any_positional_system() {
        assert_eq!(base36(&[0], 3), "000");
        assert_eq!(base36(&[35], 2), "0z");
        assert_eq!(base36(&[36], 2), "10");
        assert_eq!(base36(&[0x01, 0x00], 3), "074");
    }

    #[test]
    fn ids_are_25_digits_and_differ() {
        let (a, b) = (NodeId::random(), NodeId::random());
        assert_eq!(a.0.len(), 25);
        assert!(a.0.bytes().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()));
        assert_ne!(a, b);
    }
}
