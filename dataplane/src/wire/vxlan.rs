//! The VXLAN header (RFC 7348 §5).
//!
//! ```text
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |R|R|R|R|I|R|R|R|            Reserved                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                VXLAN Network Identifier (VNI) |     mark      |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//! I is set and the mark zero in RFC 7348. I unset and a mark of 1 mean that what follows is [sealed](super::sealed).
//! Every VTEP drops what comes without I (§5), whatever extensions it has on; of the mark that is not so: a kernel's with
//! remote checksum offload ignores it.

use super::u32_at;
use crate::tunnel::PlainVni;
use crate::verdict::DropReason;

pub(crate) const HEADER_LEN: usize = 8;

/// The I flag alone. A receiver that ignored other bits would take extensions it does not know for plain frames.
const FLAGS: u32 = 0x0800_0000;

/// First word and mark of what is sealed.
const NO_FLAGS: u32 = 0;
const SEALED: u32 = 1;

/// Which of the two ways a datagram travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The VNI of the frame that follows.
    Plain(u32),
    Sealed,
}

pub(crate) fn parse(datagram: &[u8]) -> Result<Mark, DropReason> {
    if datagram.len() < HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    let word = u32_at(datagram, 4);
    match (u32_at(datagram, 0), word & 0xff) {
        (FLAGS, 0) => Ok(Mark::Plain(word >> 8)),
        (NO_FLAGS, SEALED) => Ok(Mark::Sealed),
        (FLAGS, _) => Err(DropReason::VxlanMark),
        _ => Err(DropReason::VxlanFlags),
    }
}

/// Takes a VNI whose network is plain: no other can be written this way.
pub(crate) fn write_plain(header: &mut [u8], vni: PlainVni) {
    write(header, FLAGS, vni.vni().as_u32() << 8);
}

pub(crate) fn write_sealed(header: &mut [u8], vni: u32) {
    write(header, NO_FLAGS, vni << 8 | SEALED);
}

fn write(header: &mut [u8], flags: u32, word: u32) {
    header[..4].copy_from_slice(&flags.to_be_bytes());
    header[4..HEADER_LEN].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Vni;
    use crate::snapshot::Policy;
    use crate::tunnel::Way;

    #[test]
    fn is_laid_out_as_in_rfc_7348() {
        let mut header = [0xaa; 8];
        let Way::Plain(vni) = Way::of(Vni::new(0x12_3456).unwrap(), Policy::Plain) else { panic!() };
        write_plain(&mut header, vni);
        assert_eq!(header, [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(parse(&header), Ok(Mark::Plain(0x12_3456)));
        write_sealed(&mut header, 0x12_3456);
        assert_eq!(header, [0, 0, 0, 0, 0x12, 0x34, 0x56, 1]);
        assert_eq!(parse(&header), Ok(Mark::Sealed));
    }

    #[test]
    fn refuses_other_flags_and_other_marks() {
        assert_eq!(parse(&[0, 0, 0, 0, 0, 0, 1, 0]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x0c, 0, 0, 0, 0, 0, 1, 0]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x08, 0, 0, 1, 0, 0, 1, 0]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 1, 1]), Err(DropReason::VxlanMark));
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 1, 2]), Err(DropReason::VxlanMark));
        assert_eq!(parse(&[0, 0, 0, 0, 0, 0, 1, 2]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x08, 0, 0, 1, 0, 0, 1, 1]), Err(DropReason::VxlanFlags));
        assert_eq!(parse(&[0x08, 0, 0, 0, 0, 0, 1]), Err(DropReason::Truncated));
    }
}
