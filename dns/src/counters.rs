//! What became of every question, by name. The sum of the outcomes is the number of questions and stray datagrams.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A reading of the server's counters, over all containers and since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
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
    /// Answered by an upstream.
    forwarded,
    /// Answered SERVFAIL: every upstream failed, stayed silent or can't be reached.
    upstreams_failed,
    /// Answered SERVFAIL: the container's view has no upstreams.
    no_upstreams,
    /// Answered REFUSED: the container already waits for as many forwarded questions as it may.
    too_many_forwards,
    /// Answered FORMERR, NOTIMP, BADVERS or REFUSED: not a question this server takes.
    rejected,
    /// Dropped: too short to answer, or itself an answer (answering those would make loops).
    not_a_question,
    /// Dropped: the container's socket didn't take the answer.
    unsendable,
    /// TCP connections closed because the container already had as many as it may.
    too_many_connections,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
