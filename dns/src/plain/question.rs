//! A plain question, read where it lies, and the frame of a reply to it.

use super::record::A_LEN;
use crate::message::{HEADER_LEN, MAX_UDP_ANSWER, PLAIN_UDP_ANSWER, Transport};

/// RFC 1035 §3.2.2 and §3.2.4, RFC 3596 §2.1.
pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
pub(super) const IN: u16 = 1;

/// Of a name, with its lengths (RFC 1035 §3.1).
pub(super) const MAX_NAME: usize = 255;
pub(super) const MAX_LABEL: usize = 63;
/// Type and class behind the name.
const KIND_LEN: usize = 4;

/// Of the header's flags: those of the question that come back, and those of an answer of this server's (RFC 1035
/// §4.1.1, RFC 4035 §3.2.2).
const RECURSION_DESIRED: u8 = 0x01;
const CHECKING_DISABLED: u8 = 0x10;
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;

/// An OPT record without options: the root's name, type 41, then the asker's room, version and flags (RFC 6891 §6.1.2).
const OPT_LEN: usize = 11;

pub(super) struct Question<'a> {
    /// Header and question.
    bytes: &'a [u8],
    pub(super) key: &'a str,
    pub(super) kind: u16,
    has_opt: bool,
    room: usize,
}

impl<'a> Question<'a> {
    /// None: a question for the codec.
    pub(super) fn parse(bytes: &'a [u8], transport: Transport, key: &'a mut [u8; MAX_NAME]) -> Option<Self> {
        let has_opt = has_opt(bytes.first_chunk()?)?;
        let key = read_key(&bytes[HEADER_LEN..], key)?;
        // A dot in the key for the length byte of every label but the first; that one, and the root's, come on top.
        let (bytes, rest) = bytes.split_at_checked(HEADER_LEN + key.len() + 2 + KIND_LEN)?;
        let kind @ (A | AAAA | PTR) = number(bytes, bytes.len() - KIND_LEN) else { return None };
        let is_in = number(bytes, bytes.len() - KIND_LEN + 2) == IN;
        let asker = match has_opt {
            true => read_opt(rest)?,
            false => PLAIN_UDP_ANSWER,
        };
        let room = match transport {
            Transport::Udp => asker.clamp(PLAIN_UDP_ANSWER, MAX_UDP_ANSWER),
            Transport::Tcp => u16::MAX,
        };
        (is_in && (has_opt || rest.is_empty())).then_some(Self {
            bytes,
            key,
            kind,
            has_opt,
            room: room.into(),
        })
    }

    /// With so many records. None: it does not fit.
    pub(super) fn reply(
        &self,
        code: u8,
        count: usize,
        records: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let mut reply = Vec::with_capacity(self.bytes.len() + A_LEN * count + OPT_LEN);
        reply.extend_from_slice(self.bytes);
        reply[2] = RESPONSE | self.bytes[2] & RECURSION_DESIRED;
        reply[3] = RECURSION_AVAILABLE | self.bytes[3] & CHECKING_DISABLED | code;
        reply[6..8].copy_from_slice(&u16::try_from(count).ok()?.to_be_bytes());
        records(&mut reply);
        if self.has_opt {
            let [high, low] = MAX_UDP_ANSWER.to_be_bytes();
            reply.extend_from_slice(&[0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]);
        }
        (reply.len() <= self.room).then_some(reply)
    }
}

/// Whether a query with one question has an OPT record, or rather something, behind it. None: another kind of message.
fn has_opt(header: &[u8; HEADER_LEN]) -> Option<bool> {
    // QR and the operation are 0 in a query.
    match (header[2] & 0xf8, &header[4..]) {
        (0, [0, 1, 0, 0, 0, 0, 0, 0]) => Some(false),
        (0, [0, 1, 0, 0, 0, 0, 0, 1]) => Some(true),
        _ => None,
    }
}

/// The name in the form that keys have: lower case, dots between labels. None: the root, a pointer, or a character that
/// keys may have in another form.
pub(super) fn read_key<'k>(mut name: &[u8], key: &'k mut [u8; MAX_NAME]) -> Option<&'k str> {
    let mut len = 0;
    while let (&label_len @ 1.., rest) = name.split_first()? {
        if usize::from(label_len) > MAX_LABEL {
            return None;
        }
        let (label, rest) = rest.split_at_checked(label_len.into())?;
        name = rest;
        // One byte less than there is, for the length that the name has more than the key: its first label's.
        let end = len + label.len() + 1;
        let space = key[..MAX_NAME - 1].get_mut(len..end)?;
        for (to, from) in space.iter_mut().zip(label) {
            if !is_plain(*from) {
                return None;
            }
            *to = from.to_ascii_lowercase();
        }
        space[label.len()] = b'.';
        len = end;
    }
    std::str::from_utf8(&key[..len.checked_sub(1)?]).ok()
}

pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// How much the asker takes.
fn read_opt(record: &[u8]) -> Option<u16> {
    let &[0, 0, 41, high, low, _rcode, 0, _flags, _more, 0, 0] = record else { return None };
    Some(u16::from_be_bytes([high, low]))
}

fn number(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
