use std::collections::HashSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

/// A few askers and lengths, so that many are alike.
fn answers() -> impl Strategy<Value = Vec<Outgoing>> {
    let answer = (0..4u16, 12..18usize, any::<u8>()).prop_map(|(port, len, byte)| Outgoing {
        to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        bytes: vec![byte; len],
    });
    prop::collection::vec(answer, 0..=BATCH)
}

fn shown(answer: &Outgoing) -> (SocketAddrV4, &[u8]) {
    (answer.to, &answer.bytes)
}

/// What the kernel makes of one datagram that is to be cut every `len` bytes.
fn cut(together: &[Outgoing]) -> Vec<(SocketAddrV4, Vec<u8>)> {
    let (to, len) = (together[0].to, together[0].bytes.len());
    let bytes: Vec<_> = together.iter().flat_map(|answer| answer.bytes.clone()).collect();
    bytes.chunks(len).map(|bytes| (to, bytes.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn answers_that_go_together_arrive_as_they_were(mut answers in answers()) {
        sort(&mut answers);
        let arrived: Vec<_> = Together(&answers).flat_map(cut).collect();
        let arrived: Vec<_> = arrived.iter().map(|(to, bytes)| (*to, bytes.as_slice())).collect();
        prop_assert_eq!(arrived, answers.iter().map(shown).collect::<Vec<_>>());
    }

    #[test]
    fn only_an_asker_s_shortest_answer_goes_alone(mut answers in answers()) {
        sort(&mut answers);
        let firsts: Vec<_> = Together(&answers).map(|together| (together[0].to, together[0].bytes.len())).collect();
        let distinct: HashSet<_> = firsts.iter().collect();
        prop_assert_eq!(distinct.len(), firsts.len());
        let alone = Together(&answers).filter(|together| together.len() == 1);
        let askers: HashSet<_> = answers.iter().map(|answer| answer.to).collect();
        prop_assert!(alone.count() <= askers.len());
    }
}
