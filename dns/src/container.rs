//! One container's sockets.
//!
//! Own loops instead of `hickory-server`'s: that one spawns a task for every datagram before a handler sees it and
//! every TCP connection it is offered, both without a limit, so a container could make the daemon hold as much as it
//! likes. Here an answer from the records is computed and sent by the loop itself, and only a question for the
//! upstreams becomes a task, after it got one of the container's places.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::batch::{self, Outgoing};
use crate::counters::{Counting, count};
use crate::decide::{Decision, decide};
use crate::forward;
use crate::message::{MAX_QUESTION, Question, Transport};
use crate::pace::Pace;
use crate::places::{Place, Places};
use crate::resolver::Answer;
use crate::server::Shared;
use crate::turns::Turns;
use crate::view::View;

/// How long a loop rests after its socket failed (out of descriptors or buffers): such errors repeat at once, and a
/// busy loop would make the shortage worse.
const AFTER_SOCKET_ERROR: Duration = Duration::from_millis(50);

/// Questions after which a loop lets others of the runtime have their turn, with the batch it is at: some 0.3 ms. The
/// runtime would let a loop go on for several times that, and look for other containers' questions only after 61 such
/// turns.
const QUESTIONS_PER_TURN: u32 = 32;

pub(crate) struct Container {
    id: String,
    view: Arc<ArcSwap<View>>,
    shared: Arc<Shared>,
    turns: Turns,
    pace: Pace,
    forwards: Places,
    connections: Arc<Semaphore>,
}

/// What is to be done with a message.
enum Step {
    Send(Vec<u8>),
    Forward(Question, Place),
    Nothing,
}

impl Container {
    pub(crate) fn new(id: String, view: Arc<ArcSwap<View>>, shared: Arc<Shared>) -> Self {
        let config = &shared.config;
        let forwards = Places::new(
            config.forwards_per_container,
            config.sure_forwards_per_container,
            shared.places.clone(),
        );
        let pace = Pace::new(config.questions_per_second, config.question_burst);
        let connections = Arc::new(Semaphore::new(config.tcp_connections_per_container));
        Self { id, view, turns: Turns::default(), pace, forwards, connections, shared }
    }

    /// Runs until it is dropped; its forwarded questions and connections end with it.
    pub(crate) async fn serve(self, udp: UdpSocket, tcp: TcpListener) {
        let this = Arc::new(self);
        tokio::join!(Arc::clone(&this).serve_udp(Arc::new(udp)), this.serve_tcp(tcp));
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut forwards = JoinSet::new();
        let mut unsent = Vec::new();
        let mut turn = 0;
        loop {
            let ready = tokio::select! {
                ready = socket.readable() => ready,
                Some(_) = forwards.join_next() => continue,
            };
            let served = ready.and_then(|()| {
                batch::serve(&socket, &mut unsent, |bytes, from| {
                    self.answer_datagram(bytes, from, &socket, &mut forwards)
                })
            });
            let questions = match served {
                Ok(questions) => questions,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    self.rest("UDP", error).await;
                    continue;
                }
            };
            for Outgoing { bytes, to } in unsent.drain(..) {
                self.send(&socket, &bytes, to).await;
            }
            self.take_turns(questions, &mut turn).await;
        }
    }

    /// None: nothing to say, or not yet.
    fn answer_datagram(
        self: &Arc<Self>,
        bytes: &[u8],
        from: SocketAddrV4,
        socket: &Arc<UdpSocket>,
        forwards: &mut JoinSet<()>,
    ) -> Option<Vec<u8>> {
        match self.step(bytes, Transport::Udp) {
            Step::Send(reply) => return Some(reply),
            Step::Forward(question, place) => {
                let (this, socket) = (Arc::clone(self), Arc::clone(socket));
                forwards.spawn(async move {
                    let reply = this.forward(&question, place).await;
                    this.send(&socket, &reply, from).await;
                });
            }
            Step::Nothing => {}
        }
        None
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut turn = 0;
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
            self.take_turns(1, &mut turn).await;
        }
    }

    /// One question after the other, each whole within the idle time, so that a connection that trickles bytes is
    /// closed like one that sends none.
    async fn serve_stream(self: Arc<Self>, mut stream: TcpStream, _place: OwnedSemaphorePermit) {
        let idle = self.shared.config.tcp_idle;
        let mut turn = 0;
        loop {
            let bytes = match timeout(idle, read_message(&mut stream)).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return count(&self.counting().oversized),
                Ok(Err(_)) => return,
                Err(_) => return count(&self.counting().idle_connections),
            };
            let reply = match self.step(&bytes, Transport::Tcp) {
                Step::Send(reply) => reply,
                Step::Forward(question, place) => self.forward(&question, place).await,
                Step::Nothing => return,
            };
            if !matches!(timeout(idle, write_message(&mut stream, &reply)).await, Ok(Ok(()))) {
                return count(&self.counting().unsendable);
            }
            self.take_turns(1, &mut turn).await;
        }
    }

    fn step(&self, bytes: &[u8], transport: Transport) -> Step {
        let (records, view) = (self.shared.records.load(), self.view.load());
        match decide(bytes, transport, &records, &view, |key| self.turns.next(key)) {
            Decision::Reply(reply, outcome) => {
                self.counting().count_outcome(outcome);
                Step::Send(reply)
            }
            Decision::Forward(question) => self.admit(question),
            Decision::Drop => {
                count(&self.counting().not_a_question);
                Step::Nothing
            }
        }
    }

    fn admit(&self, question: Question) -> Step {
        if let Some(place) = self.forwards.take() {
            return Step::Forward(question, place);
        }
        count(&self.counting().too_many_forwards);
        self.shared.busy_log.say(|| {
            let limit = self.shared.config.forwards_per_container;
            tracing::warn!(
                container = %self.id,
                "more questions wait for the host's resolvers than may ({limit} of a container): refusing further ones"
            );
        });
        Step::Send(question.reply(ResponseCode::Refused, Answer::default()))
    }

    async fn forward(&self, question: &Question, _place: Place) -> Vec<u8> {
        let view = self.view.load_full();
        match forward::forward(question, &view.upstreams, &self.shared).await {
            Some(reply) => {
                count(&self.counting().forwarded);
                reply
            }
            None => {
                count(&self.counting().upstreams_failed);
                question.reply(ResponseCode::ServFail, Answer::default())
            }
        }
    }

    async fn send(&self, socket: &UdpSocket, reply: &[u8], to: SocketAddrV4) {
        if let Err(error) = socket.send_to(reply, to).await {
            count(&self.counting().unsendable);
            tracing::debug!(container = %self.id, %error, "a DNS answer can't be delivered");
        }
    }

    /// After so many questions: lets others have the thread, and waits where the container asks faster than it may.
    async fn take_turns(&self, questions: u32, turn: &mut u32) {
        if let Some(wait) = self.pace.take(questions, self.shared.start.elapsed()) {
            count(&self.counting().throttled);
            return sleep(wait).await;
        }
        *turn += questions;
        if *turn >= QUESTIONS_PER_TURN {
            *turn = 0;
            yield_now().await;
        }
    }

    async fn rest(&self, transport: &str, error: io::Error) {
        self.shared.socket_log.say(|| {
            tracing::warn!(container = %self.id, transport, %error, "a container's DNS socket fails: trying again");
        });
        sleep(AFTER_SOCKET_ERROR).await;
    }

    fn counting(&self) -> &Counting {
        &self.shared.counting
    }
}

/// A message over TCP comes with its length in two bytes before it (RFC 1035 §4.2.2). None: longer than a question.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let len = usize::from(stream.read_u16().await?);
    if len > MAX_QUESTION {
        return Ok(None);
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

async fn write_message(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await
}
