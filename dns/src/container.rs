//! One container's sockets.
//!
//! Own loops instead of `hickory-server`'s: that one spawns a task for every datagram before a handler sees it and
//! every TCP connection it is offered, both without a limit, so a container could make the daemon hold as much as it
//! likes. Here an answer from the records is computed and sent by the loop itself, and only a question for the
//! upstreams becomes a task, after it got one of the container's places.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::counters::{Counting, count};
use crate::message::{Question, Rejected, Transport};
use crate::resolver::{Resolution, resolve};
use crate::server::Shared;
use crate::turns::Turns;
use crate::view::View;
use crate::{forward, message};

/// A question is a header, one name of at most 255 bytes and perhaps an OPT record with a few options.
const MAX_UDP_QUESTION: usize = message::MAX_UDP_ANSWER as usize;

/// How long a loop rests after its socket failed (out of descriptors or buffers): such errors repeat at once, and a
/// busy loop would make the shortage worse.
const AFTER_SOCKET_ERROR: Duration = Duration::from_millis(50);

pub(crate) struct Container {
    id: String,
    view: Arc<ArcSwap<View>>,
    shared: Arc<Shared>,
    turns: Turns,
    forwards: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// What is to be done with a message.
enum Step {
    Send(Vec<u8>),
    Forward(Question, OwnedSemaphorePermit),
    Nothing,
}

impl Container {
    pub(crate) fn new(id: String, view: Arc<ArcSwap<View>>, shared: Arc<Shared>) -> Self {
        let forwards = Arc::new(Semaphore::new(shared.config.forwards_per_container));
        let connections = Arc::new(Semaphore::new(shared.config.tcp_connections_per_container));
        Self { id, view, shared, turns: Turns::default(), forwards, connections }
    }

    /// Runs until it is dropped; its forwarded questions and connections end with it.
    pub(crate) async fn serve(self, udp: UdpSocket, tcp: TcpListener) {
        let this = Arc::new(self);
        tokio::join!(Arc::clone(&this).serve_udp(Arc::new(udp)), this.serve_tcp(tcp));
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut forwards = JoinSet::new();
        let mut buffer = vec![0; MAX_UDP_QUESTION];
        loop {
            let (len, from) = tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok(received) => received,
                    Err(error) => { self.rest("UDP", error).await; continue }
                },
                Some(_) = forwards.join_next() => continue,
            };
            match self.step(&buffer[..len], Transport::Udp) {
                Step::Send(reply) => self.send(&socket, &reply, from).await,
                Step::Forward(question, place) => {
                    let (this, socket, bytes) =
                        (Arc::clone(&self), Arc::clone(&socket), buffer[..len].to_vec());
                    forwards.spawn(async move {
                        let reply = this.forward(&bytes, &question, place).await;
                        this.send(&socket, &reply, from).await;
                    });
                }
                Step::Nothing => {}
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => { self.rest("TCP", error).await; continue }
                },
                Some(_) = connections.join_next() => continue,
            };
            match Arc::clone(&self.connections).try_acquire_owned() {
                Ok(place) => {
                    connections.spawn(Arc::clone(&self).serve_stream(stream, place));
                }
                Err(_) => count(&self.counting().too_many_connections),
            }
        }
    }

    /// One question after the other, each whole within the idle time, so that a connection that trickles bytes is
    /// closed like one that sends none.
    async fn serve_stream(self: Arc<Self>, mut stream: TcpStream, _place: OwnedSemaphorePermit) {
        let idle = self.shared.config.tcp_idle;
        while let Ok(Ok(bytes)) = timeout(idle, read_message(&mut stream)).await {
            let reply = match self.step(&bytes, Transport::Tcp) {
                Step::Send(reply) => reply,
                Step::Forward(question, place) => self.forward(&bytes, &question, place).await,
                Step::Nothing => return,
            };
            if !matches!(timeout(idle, write_message(&mut stream, &reply)).await, Ok(Ok(()))) {
                return count(&self.counting().unsendable);
            }
        }
    }

    fn step(&self, bytes: &[u8], transport: Transport) -> Step {
        let question = match Question::parse(bytes, transport) {
            Ok(question) => question,
            Err(Rejected::Reply(reply)) => {
                count(&self.counting().rejected);
                return Step::Send(reply);
            }
            Err(Rejected::Drop) => {
                count(&self.counting().not_a_question);
                return Step::Nothing;
            }
        };
        let (records, view) = (self.shared.records.load(), self.view.load());
        match resolve(&question.query, &records, &view, self.turns.next(&question.query)) {
            Resolution::Answer(answers) => {
                count(&self.counting().answered);
                Step::Send(question.reply(ResponseCode::NoError, answers))
            }
            Resolution::Forward if view.upstreams.is_empty() => {
                count(&self.counting().no_upstreams);
                Step::Send(question.reply(ResponseCode::ServFail, Vec::new()))
            }
            Resolution::Forward => self.admit(question),
        }
    }

    fn admit(&self, question: Question) -> Step {
        match Arc::clone(&self.forwards).try_acquire_owned() {
            Ok(place) => Step::Forward(question, place),
            Err(_) => {
                count(&self.counting().too_many_forwards);
                self.shared.busy_log.warn(&self.id, self.shared.config.forwards_per_container);
                Step::Send(question.reply(ResponseCode::Refused, Vec::new()))
            }
        }
    }

    async fn forward(&self, bytes: &[u8], question: &Question, _place: OwnedSemaphorePermit) -> Vec<u8> {
        let view = self.view.load_full();
        match forward::forward(bytes, question, &view.upstreams, &self.shared.config).await {
            Some(reply) => {
                count(&self.counting().forwarded);
                reply
            }
            None => {
                count(&self.counting().upstreams_failed);
                question.reply(ResponseCode::ServFail, Vec::new())
            }
        }
    }

    async fn send(&self, socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
        if let Err(error) = socket.send_to(reply, to).await {
            count(&self.counting().unsendable);
            tracing::debug!(container = %self.id, %error, "a DNS answer can't be delivered");
        }
    }

    async fn rest(&self, transport: &str, error: io::Error) {
        tracing::warn!(container = %self.id, transport, %error, "the container's DNS socket fails: trying again");
        sleep(AFTER_SOCKET_ERROR).await;
    }

    fn counting(&self) -> &Counting {
        &self.shared.counting
    }
}

/// A message over TCP comes with its length in two bytes before it (RFC 1035 §4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(len)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_message(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await
}
