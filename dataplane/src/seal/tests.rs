//! Vectors: of others for the handshake, and our own, which `docs/wire.md` shows.

use super::aead::{Aead, Key};
use super::entropy::Entropy;
use super::freshness::Claim;
use super::keys::{Identity, KEY_LEN, SecretKey, Suite};
use super::macs::MacKeys;
use super::noise::{Noise, vector};
use super::session::Session;
use super::{REJECT_AFTER, REKEY_AFTER};
use crate::ids::Vni;
use crate::verdict::DropReason;
use crate::wire::sealed::{self, FRAME_AT, HEADER_LEN, Kind, Marks, Shim, TAG_LEN, handshake};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Noise_IK_25519_ChaChaPoly_BLAKE2s of the vectors of cacophony, which other implementations are checked against too.
#[test]
fn the_handshake_is_noise_s() {
    let prologue = unhex("4a6f686e2047616c74");
    let initiator = vector::Side {
        fixed: unhex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1"),
        ephemeral: unhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a"),
    };
    let responder = vector::Side {
        fixed: unhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893"),
        ephemeral: unhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b"),
    };
    let payloads = [unhex("4c756477696720766f6e204d69736573"), unhex("4d757272617920526f746862617264")];
    let played = vector::play(&prologue, &initiator, &responder, &payloads);
    assert_eq!(
        hex(&played.messages[0]),
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79440b03ddc7aac5123d06a1b23b71670e32\
         e76c28239a7ca4ac8f784de7e44c1adbfc6e83fef7352a58d9d56157400c0a737b1d171ce368229c7b752ac25b8faf4e\
         ca690f6d896f543be02c996ab2b86b76"
    );
    assert_eq!(
        hex(&played.messages[1]),
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843d9b5a8927f0ac9655ef76833bc7e5561\
         f42e691ac8404efd6fbd6308b6a27c"
    );
    // The first transport message of each direction, whose counter and so whose nonce is zero.
    for (key, text, sealed) in [
        (&played.split.0, "462e20412e20486179656b", "2c256ed08fcd08c2980f954ee4beaccb61c9581340f5dd2fd1cf3b"),
        (&played.split.1, "4361726c204d656e676572", "d6033f70eee20945c7c9dba304e397ee3b284ff5e00fd9efb095d3"),
    ] {
        let mut bytes = unhex(text);
        let tag = Key::new(Suite::ChaCha20Poly1305, key).seal(0, &[], &mut bytes);
        bytes.extend(tag);
        assert_eq!(hex(&bytes), sealed);
    }
}

fn identity(n: u8) -> Identity {
    Identity {
        key: SecretKey::from_bytes(Zeroizing::new([n; KEY_LEN])),
        suite: Suite::ChaCha20Poly1305,
        context: b"example".to_vec(),
        entropy: Zeroizing::new([0; 32]),
    }
}

/// A handshake and a frame whose every input is fixed, by the names they have in the document.
fn ours() -> BTreeMap<&'static str, Vec<u8>> {
    let (a, b) = (identity(1), identity(2));
    let (keys_a, keys_b) = (a.key.public(), b.key.public());
    let claim = Claim { life: 0x11, time: 250, token: 0x22, repeated: 0x33 }.to_bytes();
    let answer: Vec<u8> = [0x44u64, 0x55].iter().flat_map(|word| word.to_be_bytes()).collect();
    let side = |identity: &Identity, n| vector::Side {
        fixed: identity.key.to_bytes().to_vec(),
        ephemeral: vec![n; KEY_LEN],
    };
    let prologue = Noise::new(&a).prologue().to_vec();
    let played = vector::play(&prologue, &side(&a, 3), &side(&b, 4), &[claim.to_vec(), answer]);
    let mut initiation = handshake::initiation(0x0a0a_0a0a, &played.messages[0].clone().try_into().unwrap());
    MacKeys::of(&keys_b).sign(&mut initiation, None);
    let second = &played.messages[1].clone().try_into().unwrap();
    let mut response = handshake::response(0x0b0b_0b0b, 0x0a0a_0a0a, second);
    MacKeys::of(&keys_a).sign(&mut response, Some(&[0xcc; 16]));

    let marks = Marks { partial: Some(34), ingress: false };
    let frame: Vec<u8> = (0..64).collect();
    let mut datagram = vec![0; FRAME_AT];
    datagram[HEADER_LEN..].copy_from_slice(&Shim::Frame(marks).to_bytes());
    datagram.extend(&frame);
    sealed::write_header(&mut datagram, Vni::new(4097), 0x0b0b_0b0b, 7);
    let (header, text) = datagram.split_at_mut(HEADER_LEN);
    let tag = Key::new(Suite::ChaCha20Poly1305, &played.split.0).seal(7, header, text);
    datagram.extend(tag);
    let mut again = datagram.clone();
    let (header, text) = again.split_at_mut(HEADER_LEN);
    text[..68].copy_from_slice(&[&Shim::Frame(marks).to_bytes()[..], &frame].concat());
    let tag = Key::new(Suite::Aes256Gcm, &played.split.0).seal(7, header, &mut text[..68]);
    text[68..].copy_from_slice(&tag);
    BTreeMap::from([
        ("initiator public", keys_a.0.to_vec()),
        ("responder public", keys_b.0.to_vec()),
        ("prologue", prologue),
        ("initiation", initiation.to_vec()),
        ("response", response.to_vec()),
        ("key initiator to responder", played.split.0.to_vec()),
        ("key responder to initiator", played.split.1.to_vec()),
        ("sealed frame chacha20-poly1305", datagram),
        ("sealed frame aes-256-gcm", again),
    ])
}

#[test]
fn the_vectors_of_the_document_are_what_we_send() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md");
    let document = std::fs::read_to_string(path).unwrap();
    for (name, bytes) in ours() {
        let wanted = format!("{name}\n{}\n", wrapped(&bytes));
        assert!(document.contains(&wanted), "docs/wire.md should have\n{wanted}");
    }
}

/// As the document has it: 32 bytes a line.
fn wrapped(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|line| format!("  {}", hex(line))).collect::<Vec<_>>().join("\n")
}

fn pair(now: u64) -> (Session, Session) {
    let mut entropy = Entropy::new(&Zeroizing::new([9; 32]));
    let (a, b) = (Noise::new(&identity(1)), Noise::new(&identity(2)));
    let (mut initiated, first) = a.initiate(&b.public(), &[0; 32], &mut entropy).unwrap_or_else(|_| panic!());
    let received = b.receive(&first, &mut entropy).unwrap_or_else(|_| panic!());
    assert_eq!(received.from, a.public());
    let (theirs, second) = received.respond(&[0; 16]).unwrap_or_else(|_| panic!());
    let mut garbage = second;
    garbage[40] ^= 1;
    assert!(initiated.finish(&garbage).is_err());
    let (ours, _) = initiated.finish(&second).unwrap_or_else(|_| panic!("garbage before ended it"));
    let suite = Suite::ChaCha20Poly1305;
    (Session::new(suite, &ours, (1, 2), true, now), Session::new(suite, &theirs, (2, 1), false, now))
}

fn sealed_by(session: &mut Session) -> (sealed::Header, Vec<u8>) {
    let mut datagram = vec![7; HEADER_LEN + 30 + TAG_LEN];
    session.seal(None, &mut datagram);
    let Ok(Kind::Session(header)) = sealed::parse(&datagram) else { panic!("not of a session") };
    (header, datagram)
}

#[test]
fn a_session_wears_out_by_what_it_has_sealed_and_by_time() {
    let (mut a, mut b) = pair(1_000);
    let (header, mut datagram) = sealed_by(&mut a);
    assert_eq!((header.counter, header.index), (0, 2));
    assert_eq!(b.open(header, &mut datagram.clone(), 1_000 + REJECT_AFTER - 1), Ok(()));
    assert_eq!(datagram.split_off(HEADER_LEN).len(), 46);

    assert_eq!(a.rekey_at(), 1_000 + REKEY_AFTER);
    a.wear_out((1 << 60) - 1);
    assert_eq!(a.rekey_at(), 1_000 + REKEY_AFTER);
    sealed_by(&mut a);
    assert_eq!(a.rekey_at(), 0, "2^60 datagrams are enough for one key");

    let limit = u64::MAX - (1 << 13);
    a.wear_out(limit - 1);
    assert!(a.can_send(1_000));
    let (header, datagram) = sealed_by(&mut a);
    assert!(!a.can_send(1_000), "no counter may come twice, so none may overflow");
    assert_eq!(b.open(header, &mut datagram.clone(), 1_000), Ok(()));
    let beyond = sealed::Header { counter: limit, ..header };
    assert_eq!(b.open(beyond, &mut { datagram }, 1_000), Err(DropReason::SessionExpired));

    let (mut a, mut b) = pair(1_000);
    let (header, mut datagram) = sealed_by(&mut a);
    assert!(a.can_send(1_000 + REJECT_AFTER - 1) && !a.can_send(1_000 + REJECT_AFTER));
    assert_eq!(b.open(header, &mut datagram, 1_000 + REJECT_AFTER), Err(DropReason::SessionExpired));
}

/// RFC 7748 §6.1: with such a key everybody would know what was agreed on.
#[test]
fn no_handshake_is_begun_with_a_key_of_low_order() {
    let mut entropy = Entropy::new(&Zeroizing::new([9; 32]));
    let noise = Noise::new(&identity(1));
    for low in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert!(noise.initiate(&super::PublicKey(low), &[0; 32], &mut entropy).is_err());
    }
}
