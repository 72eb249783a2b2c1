//! Sealed networks: sessions and what goes through them, on an underlay of every kind; and that containers, peers and
//! outside clients see the same as on plain ones: some tests of the engines, once more.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]
#![allow(dead_code, reason = "not every helper is of use to this half of the tests")]

mod audit;
mod classes;
mod forged;
mod hardship;
mod path_mtu;
mod sessions;
mod wire;
mod world;

#[path = "../engines/echo.rs"]
mod echo;
#[path = "../engines/gateway.rs"]
mod gateway;
#[path = "../identity/mod.rs"]
mod identity;
#[path = "../engines/refusals.rs"]
mod refusals;
#[path = "../engines/silence.rs"]
mod silence;
#[path = "../engines/sim.rs"]
mod sim;
#[path = "../engines/vip.rs"]
mod vip;

/// How the networks of [`sim`] travel.
const POLICY: skep_dataplane::snapshot::Policy = skep_dataplane::snapshot::Policy::Sealed;
