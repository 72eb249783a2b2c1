//! The VXLAN header (RFC 7348 §5).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |     mark      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//! The mark is zero in RFC 7348. Any other value means that what follows is sealed, or with no VNI a path
//! [probe](super::probe): kernel VTEPs drop both whatever extensions they have on, which they do not for a bit in the
//! first word.

use super::u32_at;
use crate::ids::Vni;
use crate::verdict::DropReason;

pub(crate) const HEADER_LEN: usize = 8;

/// The I flag alone. A receiver that ignored other bits would take extensions it does not know for plain frames.
const FLAGS: u32 = 0x0800_0000;

/// The VNI of a plain frame.
pub(crate) fn parse(datagram: &[u8]) -> Result<u32, DropReason> {
    if datagram.len() < HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    if u32_at(datagram, 0) != FLAGS {
        return Err(DropReason::VxlanFlags);
    }
    let word = u32_at(datagram, 4);
    if word & 0xff != 0 {
        return Err(DropReason::VxlanSealed);
    }
    Ok(word >> 8)
}

pub(crate) fn write_plain(header: &mut [u8], vni: Vni) {
    header[..4].copy_from_slice(&FLAGS.to_be_bytes());
    header[4..HEADER_LEN].copy_from_slice(&(vni.as_u32() << 8).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_laid_out_as_in_rfc_7348() {
        let mut header = [0xaa; 8];
        write_plain(&mut header, Vni::new(0x12_3456).unwrap());
        assert_eq!(header, [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(parse(&header), Ok(0x12_3456));
    }

    #[test]
    fn refuses_other_flags_and_the_mark_of_a_sealed_frame() {
        assert_eq!(parse(&[0, 0, 0, 0, 0, 0, 1, 0]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x0c, 0, 0, 0, 0, 0, 1, 0]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x08, 0, 0, 1, 0, 0, 1, 0]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 1, 1]), Err(DropReason::VxlanSealed));
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 1]), Err(DropReason::Truncated));
    }
}
