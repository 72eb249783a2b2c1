//! The handshake: `Noise_IK_25519_ChaChaPoly_BLAKE2s` (The Noise Protocol Framework, revision 34, §7.5), by `snow`.
//!
//! The initiator knows the responder's key beforehand. The prologue holds what both have to agree on: this protocol's
//! name, the suite of frames and the cluster.

use super::entropy::Entropy;
use super::keys::{Identity, KEY_LEN, PublicKey, SecretKey};
use crate::wire::sealed::handshake::{NOISE_1_LEN, NOISE_2_LEN, PAYLOAD_1_LEN, PAYLOAD_2_LEN};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use std::sync::Mutex;
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
const PROTOCOL: &[u8] = b"skep sealed 1";
/// Of the context.
const MAX_CONTEXT: usize = 64;

/// A message that its sender did not make, or that was not made for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// What a handshake ends with.
pub(crate) struct Agreed {
    pub(crate) send: Zeroizing<[u8; KEY_LEN]>,
    pub(crate) receive: Zeroizing<[u8; KEY_LEN]>,
}

/// This node's part of every handshake.
pub(crate) struct Noise {
    params: NoiseParams,
    key: SecretKey,
    prologue: Vec<u8>,
}

/// An initiation that waits for its response.
pub(crate) struct Initiated(Box<HandshakeState>);

/// An initiation that was read.
pub(crate) struct Received {
    state: Box<HandshakeState>,
    /// Who proved to have made it.
    pub(crate) from: PublicKey,
    pub(crate) payload: [u8; PAYLOAD_1_LEN],
}

impl Noise {
    pub(crate) fn new(identity: &Identity) -> Self {
        let context = &identity.context[..identity.context.len().min(MAX_CONTEXT)];
        let name = identity.suite.name();
        // Each part is told from the next by its length.
        let parts = [PROTOCOL, name.as_bytes(), context];
        let prologue = parts.iter().flat_map(|part| [&[part.len() as u8][..], part].concat()).collect();
        let params = PATTERN.parse().expect("snow knows its own pattern's name");
        Self { params, key: identity.key.clone(), prologue }
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.key.public()
    }

    #[cfg(test)]
    pub(crate) fn prologue(&self) -> &[u8] {
        &self.prologue
    }

    pub(crate) fn initiate(
        &self,
        responder: &PublicKey,
        payload: &[u8; PAYLOAD_1_LEN],
        entropy: &mut Entropy,
    ) -> Result<(Initiated, [u8; NOISE_1_LEN]), Forged> {
        let key = self.key.to_bytes();
        let builder = self.builder(&key, entropy)?.remote_public_key(&responder.0).map_err(|_| Forged)?;
        let mut state = Box::new(builder.build_initiator().map_err(|_| Forged)?);
        let mut message = [0; NOISE_1_LEN];
        // Fails for a key that is no point of use: nothing can be agreed on with it.
        state.write_message(payload, &mut message).map_err(|_| Forged)?;
        Ok((Initiated(state), message))
    }

    pub(crate) fn receive(
        &self,
        message: &[u8; NOISE_1_LEN],
        entropy: &mut Entropy,
    ) -> Result<Received, Forged> {
        let key = self.key.to_bytes();
        let mut state = Box::new(self.builder(&key, entropy)?.build_responder().map_err(|_| Forged)?);
        let mut payload = [0; PAYLOAD_1_LEN];
        state.read_message(message, &mut payload).map_err(|_| Forged)?;
        let from = state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(Forged)?;
        Ok(Received { from: PublicKey(from), payload, state })
    }

    fn builder<'a>(
        &'a self,
        key: &'a Zeroizing<[u8; KEY_LEN]>,
        entropy: &mut Entropy,
    ) -> Result<Builder<'a>, Forged> {
        let resolver = Resolver(Mutex::new(Some(entropy.branch())));
        Builder::with_resolver(self.params.clone(), Box::new(resolver))
            .local_private_key(&key[..])
            .and_then(|builder| builder.prologue(&self.prologue))
            .map_err(|_| Forged)
    }
}

impl Initiated {
    /// A response that is not the one to this initiation leaves it waiting.
    pub(crate) fn finish(
        &mut self,
        message: &[u8; NOISE_2_LEN],
    ) -> Result<(Agreed, [u8; PAYLOAD_2_LEN]), Forged> {
        let mut payload = [0; PAYLOAD_2_LEN];
        self.0.read_message(message, &mut payload).map_err(|_| Forged)?;
        let (mut send, mut receive) = self.0.dangerously_get_raw_split();
        let agreed = Agreed { send: Zeroizing::new(send), receive: Zeroizing::new(receive) };
        send.zeroize();
        receive.zeroize();
        Ok((agreed, payload))
    }
}

impl Received {
    pub(crate) fn respond(
        mut self,
        payload: &[u8; PAYLOAD_2_LEN],
    ) -> Result<(Agreed, [u8; NOISE_2_LEN]), Forged> {
        let mut message = [0; NOISE_2_LEN];
        self.state.write_message(payload, &mut message).map_err(|_| Forged)?;
        // The first of the two is the initiator's to send with (§5.2).
        let (mut receive, mut send) = self.state.dangerously_get_raw_split();
        let agreed = Agreed { send: Zeroizing::new(send), receive: Zeroizing::new(receive) };
        send.zeroize();
        receive.zeroize();
        Ok((agreed, message))
    }
}

/// Handshakes with nothing left to chance.
#[cfg(test)]
pub(super) mod vector {
    use super::*;

    pub(crate) struct Side {
        pub(crate) fixed: Vec<u8>,
        pub(crate) ephemeral: Vec<u8>,
    }

    pub(crate) struct Played {
        pub(crate) messages: [Vec<u8>; 2],
        /// The initiator's key to send with, and the responder's.
        pub(crate) split: ([u8; KEY_LEN], [u8; KEY_LEN]),
    }

    fn builder<'a>(prologue: &'a [u8], side: &'a Side) -> Builder<'a> {
        let entropy = Entropy::new(&Zeroizing::new([0; 32]));
        let resolver = Box::new(Resolver(Mutex::new(Some(entropy))));
        let builder = Builder::with_resolver(PATTERN.parse().unwrap(), resolver);
        let builder = builder.local_private_key(&side.fixed).unwrap().prologue(prologue).unwrap();
        builder.fixed_ephemeral_key_for_testing_only(&side.ephemeral)
    }

    pub(crate) fn play(prologue: &[u8], a: &Side, b: &Side, payloads: &[Vec<u8>; 2]) -> Played {
        let secret: [u8; KEY_LEN] = b.fixed.as_slice().try_into().unwrap();
        let public = SecretKey::from_bytes(Zeroizing::new(secret)).public();
        let mut initiator =
            builder(prologue, a).remote_public_key(&public.0).unwrap().build_initiator().unwrap();
        let mut responder = builder(prologue, b).build_responder().unwrap();
        let mut buffer = [0; 1024];
        let len = initiator.write_message(&payloads[0], &mut buffer).unwrap();
        let first = buffer[..len].to_vec();
        let len = responder.read_message(&first, &mut buffer).unwrap();
        assert_eq!(buffer[..len], payloads[0]);
        let len = responder.write_message(&payloads[1], &mut buffer).unwrap();
        let second = buffer[..len].to_vec();
        let len = initiator.read_message(&second, &mut buffer).unwrap();
        assert_eq!(buffer[..len], payloads[1]);
        let split = initiator.dangerously_get_raw_split();
        assert_eq!(responder.dangerously_get_raw_split(), split);
        Played { messages: [first, second], split }
    }
}

/// `snow`'s own hash and cipher; its randomness from the engine's, its key exchange one that zeroes private keys.
struct Resolver(Mutex<Option<Entropy>>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        let entropy = self.0.lock().ok()?.take()?;
        Some(Box::new(entropy))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

impl Random for Entropy {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.fill(dest);
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    private: Zeroizing<[u8; KEY_LEN]>,
    public: [u8; KEY_LEN],
}

impl X25519 {
    fn secret(&self) -> StaticSecret {
        StaticSecret::from(*self.private)
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        self.public = Point::from(&self.secret()).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = Zeroizing::new([0; KEY_LEN]);
        rng.try_fill_bytes(&mut *private)?;
        self.set(&*private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    /// A point of low order would make the result known to everybody (RFC 7748 §6.1).
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public: [u8; KEY_LEN] =
            public.get(..KEY_LEN).and_then(|key| key.try_into().ok()).ok_or(snow::Error::Dh)?;
        let shared = self.secret().diffie_hellman(&Point::from(public));
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out[..KEY_LEN].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}
