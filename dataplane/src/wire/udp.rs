//! UDP (RFC 768).

use super::u16_at;

pub(crate) const HEADER_LEN: usize = 8;
pub(crate) const LENGTH: usize = 4;
pub(crate) const CHECKSUM: usize = 6;

/// Source and destination port; `None` if the header does not fit in `bytes`.
pub(crate) fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    (bytes.len() >= HEADER_LEN).then(|| (u16_at(bytes, 0), u16_at(bytes, 2)))
}

/// A computed zero is sent as ones: zero means "no checksum".
pub(crate) fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
