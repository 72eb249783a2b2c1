//! ICMP (RFC 792).

use super::checksum::{self, Delta};
use super::{put_u16, u16_at};

pub(crate) const HEADER_LEN: usize = 8;
pub(crate) const CHECKSUM: usize = 2;
/// Of an echo request or reply.
pub(crate) const IDENTIFIER: usize = 4;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    EchoRequest {
        id: u16,
    },
    EchoReply {
        id: u16,
    },
    /// Quotes the packet it is about.
    Error,
    Other,
}

/// `None` if the header does not fit in `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    if bytes.len() < HEADER_LEN {
        return None;
    }
    let id = u16_at(bytes, IDENTIFIER);
    Some(match bytes[0] {
        ECHO_REQUEST => Message::EchoRequest { id },
        ECHO_REPLY => Message::EchoReply { id },
        UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => Message::Error,
        _ => Message::Other,
    })
}

/// Turns a request, in place, into its reply.
pub(crate) fn answer_echo(bytes: &mut [u8]) {
    let old = u16_at(bytes, 0);
    let new = u16::from_be_bytes([ECHO_REPLY, bytes[1]]);
    put_u16(bytes, 0, new);
    put_u16(bytes, CHECKSUM, Delta::default().word(old, new).full(u16_at(bytes, CHECKSUM)));
}

/// An error the engine sends itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    NetUnreachable,
    PortUnreachable,
    /// RFC 1191 §4: with the size that would have fitted, in bytes.
    FragmentationNeeded(u16),
    TimeExceeded,
}

/// Writes the message's header and sums `bytes`, whose quotation is in place already.
pub(crate) fn write_error(bytes: &mut [u8], error: Error) {
    let (kind, code, mtu) = match error {
        Error::NetUnreachable => (UNREACHABLE, 0, 0),
        Error::PortUnreachable => (UNREACHABLE, 3, 0),
        Error::FragmentationNeeded(mtu) => (UNREACHABLE, 4, mtu),
        Error::TimeExceeded => (TIME_EXCEEDED, 0, 0),
    };
    bytes[..HEADER_LEN].fill(0);
    bytes[0] = kind;
    bytes[1] = code;
    put_u16(bytes, 6, mtu);
    finish(bytes);
}

/// Sums the message anew.
pub(crate) fn finish(bytes: &mut [u8]) {
    put_u16(bytes, CHECKSUM, 0);
    let checksum = checksum::of(bytes);
    put_u16(bytes, CHECKSUM, checksum);
}
