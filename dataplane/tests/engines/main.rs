//! Engines wired back to back in virtual time: what containers, peers and outside clients see.

mod fuzz;
mod sim;
mod switch;
