//! The server's capacities. Each bounds what one container can make the daemon hold.

use std::time::Duration;

/// Questions of one container waiting for an upstream. Moby allows 1,024 and then lets further ones wait; here a
/// question beyond the limit is refused at once, which the asker notices and repeats. 128 covers a crawler's burst and
/// keeps one container to a few hundred of the daemon's descriptors.
pub const FORWARDS_PER_CONTAINER: usize = 128;

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
    pub tcp_connections_per_container: usize,
    pub tcp_idle: Duration,
    pub hedge: Duration,
    pub forward_deadline: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            forwards_per_container: FORWARDS_PER_CONTAINER,
            tcp_connections_per_container: TCP_CONNECTIONS_PER_CONTAINER,
            tcp_idle: TCP_IDLE,
            hedge: HEDGE,
            forward_deadline: FORWARD_DEADLINE,
        }
    }
}
