//! Engines wired back to back in virtual time: what containers, peers and outside clients see.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod echo;
mod flood;
mod forgery;
mod fragments;
mod fuzz;
mod gateway;
#[path = "../identity/mod.rs"]
mod identity;
mod ingress;
mod merge;
mod moves;
mod offload;
mod paths;
mod refusals;
mod silence;
mod sim;
mod sweep;
mod switch;
mod vip;

/// How the networks of [`sim`] travel.
const POLICY: skep_dataplane::snapshot::Policy = skep_dataplane::snapshot::Policy::Plain;
