//! A server on the loopback, and who asks it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use skep_dns::{Server, ServerConfig, View};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{message, records};

pub(crate) const HANG: Duration = Duration::from_secs(20);

/// A UDP and a TCP socket on one free port, as a container's namespace would have them on 53.
pub(crate) fn sockets() -> (std::net::UdpSocket, std::net::TcpListener, SocketAddr) {
    loop {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = tcp.local_addr().unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(at) {
            return (udp, tcp, at);
        }
    }
}

pub(crate) fn attach(server: &Server, id: &str, view: View) -> SocketAddr {
    let (udp, tcp, at) = sockets();
    server.attach(id.into(), view, udp, tcp).unwrap();
    at
}

pub(crate) async fn serving(view: View) -> (Server, SocketAddr) {
    serving_with(ServerConfig::default(), view).await
}

pub(crate) async fn serving_with(config: ServerConfig, view: View) -> (Server, SocketAddr) {
    let server = Server::new(config);
    server.publish(records());
    let at = attach(&server, "c1", view);
    (server, at)
}

/// A socket whose datagrams go to the server.
pub(crate) async fn asker(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(at).await.unwrap();
    socket
}

pub(crate) async fn ask_on(socket: &UdpSocket, asked: &Message) -> Message {
    socket.send(&asked.to_vec().unwrap()).await.unwrap();
    let mut reply = vec![0; 65_535];
    let len = timeout(HANG, socket.recv(&mut reply)).await.expect("no answer").unwrap();
    let reply = Message::from_vec(&reply[..len]).unwrap();
    assert_eq!(reply.metadata.id, asked.metadata.id);
    assert!(reply.metadata.recursion_available);
    reply
}

pub(crate) async fn ask_with(at: SocketAddr, asked: &Message) -> Message {
    ask_on(&asker(at).await, asked).await
}

pub(crate) async fn ask(at: SocketAddr, name: &str) -> Message {
    ask_with(at, &message(name, RecordType::A, None)).await
}

pub(crate) async fn ask_stream(stream: &mut TcpStream, name: &str) -> Message {
    let bytes = message(name, RecordType::A, None).to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let len = timeout(HANG, stream.read_u16()).await.expect("no answer").unwrap();
    let mut reply = vec![0; usize::from(len)];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

/// Nothing more comes: the server closed the connection.
pub(crate) async fn assert_closed(stream: &mut TcpStream) {
    assert_eq!(timeout(HANG, stream.read(&mut [0; 1])).await.expect("still open").unwrap_or(0), 0);
}
