use super::super::tests::super_frame;
use super::*;
use crate::wire::{put_u16, put_u32};
use proptest::prelude::*;

const ROOM: usize = 64;
const PORT: PortId = PortId(3);

fn partial() -> VnetHdr {
    VnetHdr { flags: VnetHdr::NEEDS_CSUM, ..VnetHdr::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Options {
    None,
    Timestamps,
    /// Behind the timestamps, what was received beyond a gap.
    Sack,
}

#[derive(Clone, Debug)]
struct Segment {
    flow: u16,
    flags: u8,
    payload: usize,
    options: Options,
    seq: u32,
    ack: u32,
    window: u16,
    timestamp: u32,
    ttl: u8,
    is_fragment: bool,
}

impl Segment {
    fn bare(flow: u16) -> Self {
        let (options, ttl) = (Options::Timestamps, 64);
        Self {
            flow,
            flags: tcp::ACK,
            payload: 0,
            options,
            seq: 7,
            ack: 5,
            window: 9,
            timestamp: 1,
            ttl,
            is_fragment: false,
        }
    }

    fn frame(&self) -> Vec<u8> {
        let options: &[u8] = match self.options {
            Options::None => &[],
            Options::Timestamps => &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 3],
            Options::Sack => &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 3, 1, 1, 5, 10, 0, 0, 0, 90, 0, 0, 0, 99],
        };
        let buf = super_frame(true, self.flags, options.len(), &vec![1; self.payload]);
        let mut frame = buf[ROOM..].to_vec();
        put_u16(&mut frame, TRANSPORT_AT, self.flow);
        put_u32(&mut frame, TRANSPORT_AT + tcp::SEQUENCE, self.seq);
        put_u32(&mut frame, ACKNOWLEDGED, self.ack);
        put_u16(&mut frame, TRANSPORT_AT + 14, self.window);
        frame[IP_AT + 8] = self.ttl;
        frame[IP_AT + 6] |= if self.is_fragment { 0x20 } else { 0 };
        frame[OPTIONS..OPTIONS + options.len()].copy_from_slice(options);
        if self.options != Options::None {
            put_u32(&mut frame, OPTIONS + 4, self.timestamp);
        }
        frame
    }

    /// By looking ahead, where the code looks back.
    fn is_needless_before(&self, next: &Self) -> bool {
        let is_bare = self.flags == tcp::ACK && self.payload == 0 && self.options != Options::Sack;
        let says_no_more = next.flags & !(tcp::PSH | tcp::FIN) == tcp::ACK && !next.is_fragment;
        let has_its_own = next.payload > 0 || next.flags & tcp::FIN != 0;
        let is_no_older = next.ack.wrapping_sub(self.ack) < 1 << 31
            && (self.options == Options::None || next.timestamp >= self.timestamp);
        is_bare
            && !self.is_fragment
            && says_no_more
            && has_its_own
            && is_no_older
            && (self.options, self.seq, self.ttl) == (next.options, next.seq, next.ttl)
    }
}

fn segment() -> impl Strategy<Value = Segment> {
    let flags = prop::sample::select(vec![
        tcp::ACK,
        tcp::ACK,
        tcp::ACK,
        tcp::ACK | tcp::PSH,
        tcp::ACK | tcp::FIN,
        tcp::ACK | tcp::SYN,
        tcp::ACK | tcp::RST,
        tcp::ACK | tcp::CWR,
    ]);
    let options =
        prop::sample::select(vec![Options::None, Options::Timestamps, Options::Timestamps, Options::Sack]);
    let numbers = (
        prop::sample::select(vec![7u32, 7, 7, 8]),
        (0u32..3).prop_map(|n| u32::MAX.wrapping_add(n)),
        1u32..3,
    );
    let rest = (any::<u16>(), prop::sample::select(vec![64u8, 64, 64, 63]), 0u8..20);
    (1u16..4, flags, 0usize..3, options, numbers, rest).prop_map(
        |(flow, flags, payload, options, (seq, ack, timestamp), (window, ttl, fragment))| Segment {
            flow,
            flags,
            payload: payload.saturating_sub(1),
            options,
            seq,
            ack,
            window,
            timestamp,
            ttl,
            is_fragment: fragment == 0,
        },
    )
}

/// What is left of them, as of one batch.
fn pass(segments: &[Segment]) -> Vec<Vec<u8>> {
    let (mut held, mut left) = (Acknowledgements::new(), Vec::new());
    for segment in segments {
        let frame = segment.frame();
        if !held.hold_back(PORT, partial(), &frame, &mut |_, _, frame| left.push(frame.to_vec())) {
            left.push(frame);
        }
    }
    held.release(&mut |_, _, frame| left.push(frame.to_vec()));
    left
}

fn of_flow(frames: &[Vec<u8>], flow: u16) -> Vec<&[u8]> {
    frames.iter().filter(|frame| u16_at(frame, TRANSPORT_AT) == flow).map(Vec::as_slice).collect()
}

proptest! {
    /// Each connection keeps its segments in their order, all but the acknowledgements that the next one repeats.
    #[test]
    fn only_what_is_said_again_is_left_out(segments in prop::collection::vec(segment(), 1..40)) {
        let is_needless = |at: usize| {
            let own = &segments[at];
            let next = segments[at + 1..].iter().find(|next| next.flow == own.flow || next.is_fragment);
            next.is_some_and(|next| next.flow == own.flow && own.is_needless_before(next))
        };
        let needed: Vec<_> =
            (0..segments.len()).filter(|at| !is_needless(*at)).map(|at| segments[at].frame()).collect();
        let left = pass(&segments);
        for flow in 1..4 {
            prop_assert_eq!(of_flow(&left, flow), of_flow(&needed, flow));
        }
    }
}

#[test]
fn a_question_takes_the_end_of_its_handshake_along() {
    let question = Segment { flags: tcp::ACK | tcp::PSH, payload: 100, ..Segment::bare(1) };
    let bare = [Segment::bare(1), Segment::bare(2)];
    let left = pass(&[bare[0].clone(), bare[1].clone(), question.clone()]);
    assert_eq!(left, [question.frame(), bare[1].frame()]);
}

#[test]
fn duplicates_are_counted_by_who_hears_them() {
    let data = Segment { payload: 100, ..Segment::bare(1) };
    let left = pass(&[Segment::bare(1), Segment::bare(1), Segment::bare(1), data]);
    assert_eq!(left.len(), 3, "one of them goes with the data, as it would have been sent");
    let marked = Segment { options: Options::Sack, ..Segment::bare(1) };
    let data = Segment { options: Options::Sack, payload: 100, ..Segment::bare(1) };
    assert_eq!(pass(&[marked.clone(), marked.clone(), marked, data]).len(), 4, "of who says what it has");
}

#[test]
fn one_more_than_there_is_room_for_lets_all_go() {
    let (mut held, mut left) = (Acknowledgements::new(), 0);
    for flow in 0..=MOST_HELD as u16 {
        let frame = Segment::bare(flow).frame();
        assert!(held.hold_back(PORT, partial(), &frame, &mut |_, _, _| left += 1));
        assert_eq!(left, if usize::from(flow) < MOST_HELD { 0 } else { MOST_HELD });
    }
    held.release(&mut |_, _, _| left += 1);
    assert_eq!(left, MOST_HELD + 1);
}
