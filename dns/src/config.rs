//! The server's capacities. Each bounds what one container can make the daemon hold.

use std::time::Duration;

/// Questions of one container waiting for an upstream. Moby allows 1,024 and then lets further ones wait; here a
/// question beyond the limit is refused at once, which the asker notices and repeats. 128 covers a crawler's burst and
/// keeps one container to a few hundred of the daemon's descriptors.
pub const FORWARDS_PER_CONTAINER: usize = 128;

/// Of these, the ones a container has whatever the others do: enough for an application that looks up what it needs.
pub const SURE_FORWARDS_PER_CONTAINER: usize = 8;

/// Questions of all containers beyond those sure ones that wait for an upstream. Each holds up to three sockets, and a
/// daemon may have as few as 4,096 descriptors.
pub const FORWARDS_PER_NODE: usize = 1_024;

/// Questions a second of one container, of whatever kind, so that no container takes a core from the others. Well
/// beyond any application that keeps an answer for a second; a busy mail server asks some 1,000.
pub const QUESTIONS_PER_SECOND: u32 = 20_000;
/// How many it may ask at once after a rest: a tenth of a second's.
pub const QUESTION_BURST: u32 = 2_000;

/// TCP connections of one container. A resolver library opens one per truncated answer; further ones are closed at
/// once.
pub const TCP_CONNECTIONS_PER_CONTAINER: usize = 32;

/// How long a TCP connection may take to deliver its next whole question, or to accept an answer. RFC 7766 §6.2.3
/// leaves the value to the server, "on the order of a few seconds".
pub const TCP_IDLE: Duration = Duration::from_secs(5);

/// How long an upstream may stay silent before the next one is asked as well (it may still win). With the time a
/// living one takes to answer, a dead first resolver costs at most 300 ms.
pub const HEDGE: Duration = Duration::from_millis(250);

/// After this long without an answer from any upstream the question gets SERVFAIL: below 2 s, and well below the 5 s
/// after which glibc and musl ask again.
pub const FORWARD_DEADLINE: Duration = Duration::from_millis(1_800);

/// Capacities and times of a [`crate::Server`]; the defaults are the constants of this module.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub forwards_per_container: usize,
    pub sure_forwards_per_container: usize,
    pub forwards_per_node: usize,
    pub questions_per_second: u32,
    pub question_burst: u32,
    pub tcp_connections_per_container: usize,
    pub tcp_idle: Duration,
    pub hedge: Duration,
    pub forward_deadline: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            forwards_per_container: FORWARDS_PER_CONTAINER,
            sure_forwards_per_container: SURE_FORWARDS_PER_CONTAINER,
            forwards_per_node: FORWARDS_PER_NODE,
            questions_per_second: QUESTIONS_PER_SECOND,
            question_burst: QUESTION_BURST,
            tcp_connections_per_container: TCP_CONNECTIONS_PER_CONTAINER,
            tcp_idle: TCP_IDLE,
            hedge: HEDGE,
            forward_deadline: FORWARD_DEADLINE,
        }
    }
}
