//! What became of every question, by name. The sum of the outcomes is the number of questions and stray datagrams.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decide::Outcome;
use crate::message::Unfit;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A reading of the server's counters, over all containers and since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name.
            pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }

            /// What was refused or dropped, or got no answer, by reason.
            pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
                self.by_name().filter(|(name, _)| !["answered", "no_such_name", "forwarded"].contains(name))
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counting {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counting {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Answered from the records.
    answered,
    /// Answered NXDOMAIN: a reverse look-up of an address of the container's networks that nobody has.
    no_such_name,
    /// Answered by an upstream.
    forwarded,
    /// Answered SERVFAIL: every upstream failed, stayed silent or can't be reached.
    upstreams_failed,
    /// Answered SERVFAIL: the container's view has no upstreams.
    no_upstreams,
    /// Answered REFUSED: the container, or the node, already waits for as many forwarded questions as it may.
    too_many_forwards,
    /// Answered FORMERR: not one question, or not to be read.
    malformed,
    /// Answered NOTIMP: another operation than a query.
    not_a_query,
    /// Answered BADVERS: an unknown version of EDNS.
    bad_edns_version,
    /// Answered REFUSED: a class other than IN.
    refused_class,
    /// Answered REFUSED: AXFR or IXFR.
    refused_transfer,
    /// Dropped: too short to answer, or itself an answer (answering those would make loops).
    not_a_question,
    /// Dropped: the container's socket didn't take the answer.
    unsendable,
    /// TCP connections closed because the container already had as many as it may.
    too_many_connections,
    /// TCP connections closed because no whole question came in time.
    idle_connections,
    /// TCP connections closed because a question was longer than questions are.
    oversized,
    /// Times a container had to wait because it asked faster than it may. What it sends meanwhile its own kernel
    /// drops once the socket's buffer is full.
    throttled,
    /// Datagrams in an upstream's name that don't answer what it was asked: forged, or very late. Dropped.
    forged,
}

impl Counting {
    pub(crate) fn count_outcome(&self, outcome: Outcome) {
        count(match outcome {
            Outcome::Answered => &self.answered,
            Outcome::NoSuchName => &self.no_such_name,
            Outcome::NoUpstreams => &self.no_upstreams,
            Outcome::Unfit(Unfit::Malformed) => &self.malformed,
            Outcome::Unfit(Unfit::Operation) => &self.not_a_query,
            Outcome::Unfit(Unfit::EdnsVersion) => &self.bad_edns_version,
            Outcome::Unfit(Unfit::Class) => &self.refused_class,
            Outcome::Unfit(Unfit::Transfer) => &self.refused_transfer,
        });
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
