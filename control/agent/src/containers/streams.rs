//! Between a container's pipes and whoever is attached.

use super::ContainerStreams;
use crate::executor::{Streams, Terminal};
use bytes::{Bytes, BytesMut};
use skep_model::session::LogStream;
use std::sync::{Arc, Weak};
use tokio::io::{AsyncRead, AsyncReadExt, DuplexStream};
use tokio::sync::mpsc;

/// As a pipe holds.
const STDIN_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 16 << 10;
/// Pieces waiting for a slow reader; then the container waits.
const OUTPUT_PIECES: usize = 32;

/// The container's ends of a [`ContainerStreams`].
pub(super) struct FarEnds {
    stdin: DuplexStream,
    output: mpsc::Sender<(LogStream, Bytes)>,
}

pub(super) fn pair() -> (ContainerStreams, FarEnds) {
    let (stdin, far_stdin) = tokio::io::duplex(STDIN_BYTES);
    let (far_output, output) = mpsc::channel(OUTPUT_PIECES);
    (ContainerStreams { stdin, output }, FarEnds { stdin: far_stdin, output: far_output })
}

impl FarEnds {
    /// Moves bytes until each side has ended. Returns the terminal, if there is one, for as long as that lasts.
    pub(super) fn connect(self, process: Streams) -> Weak<Terminal> {
        let Self { mut stdin, output } = self;
        let Streams { stdin: mut to_process, stdout, stderr, terminal } = process;
        let input = async move {
            // A container that reads no input closes it, which ends the copy and nothing else.
            let _ = tokio::io::copy(&mut stdin, &mut to_process).await;
        };
        let out = pump(stdout, LogStream::Stdout, output.clone());
        let terminal = terminal.map(Arc::new);
        let resizable = terminal.as_ref().map(Arc::downgrade).unwrap_or_default();
        let Some(stderr) = stderr else {
            // Nobody else can come to a terminal: when its user is gone it hangs up, and its programs are told.
            tokio::spawn(async move {
                tokio::select! {
                    () = input => {}
                    () = out => {}
                }
                drop(terminal);
            });
            return resizable;
        };
        tokio::spawn(input);
        tokio::spawn(out);
        tokio::spawn(pump(stderr, LogStream::Stderr, output));
        resizable
    }
}

/// Reads to the end even if nobody wants it any more: the container must not stand still for that.
async fn pump(mut from: impl AsyncRead + Unpin, stream: LogStream, output: mpsc::Sender<(LogStream, Bytes)>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) => return,
            // Fails when nobody reads.
            Ok(_) => _ = output.send((stream, buffer.split().freeze())).await,
            Err(error) => return tracing::debug!(%error, "a container's output broke off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn output_comes_in_pieces_and_ends_with_its_source() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let (output, mut pieces) = mpsc::channel(4);
        let pump = tokio::spawn(pump(reader, LogStream::Stderr, output));
        writer.write_all(b"one").await.unwrap();
        assert_eq!(pieces.recv().await.unwrap(), (LogStream::Stderr, Bytes::from_static(b"one")));
        drop(writer);
        assert_eq!(pieces.recv().await, None);
        pump.await.unwrap();
    }

    #[tokio::test]
    async fn output_nobody_reads_is_taken_all_the_same() {
        let (mut writer, reader) = tokio::io::duplex(16);
        let (output, pieces) = mpsc::channel(1);
        drop(pieces);
        let pump = tokio::spawn(pump(reader, LogStream::Stdout, output));
        writer.write_all(&[0; 4096]).await.unwrap();
        drop(writer);
        pump.await.unwrap();
    }
}
