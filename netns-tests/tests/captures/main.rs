//! The whole underlay is listened to while containers talk: nothing of what they say on sealed networks is in it,
//! whatever happens meanwhile, and all kinds of it are found when they say the same on a plain one.

mod hardship;
mod ingress;
mod kinds;
mod members;
mod stage;
