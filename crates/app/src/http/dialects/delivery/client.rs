//! The channel from the task that renders a stream to the connection that sends it.
//!
//! Promises: the body of a stream ends in order only if its writer marked it as complete. If the writer is dropped
//! before, by a slow reader or an error, the connection is cut, so that a part is not taken for the whole. Costs a
//! bounded channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::web::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

/// The writer was dropped, and the stream is not complete.
#[derive(Debug, Error)]
#[error("the answer was broken off before its end")]
pub struct CutOff;

/// The client has gone, or has not read in time.
#[derive(Debug)]
pub struct UnreadAnswer;

pub struct ClientWriter {
    pieces: mpsc::Sender<Bytes>,
    is_whole: Arc<AtomicBool>,
}

pub struct ClientReader {
    pieces: mpsc::Receiver<Bytes>,
    is_whole: Arc<AtomicBool>,
    /// Whether the cut was reported.
    is_cut: bool,
}

/// Both ends, with room for `room` pieces.
pub fn channel(room: usize) -> (ClientWriter, ClientReader) {
    let (sender, receiver) = mpsc::channel(room);
    let is_whole = Arc::new(AtomicBool::new(false));
    let writer = ClientWriter { pieces: sender, is_whole: Arc::clone(&is_whole) };
    (writer, ClientReader { pieces: receiver, is_whole, is_cut: false })
}

impl ClientWriter {
    pub async fn send(&self, bytes: Bytes, patience: Duration) -> Result<(), UnreadAnswer> {
        self.pieces.send_timeout(bytes, patience).await.map_err(|_| UnreadAnswer)
    }

    /// Sends it if there is room at once.
    pub fn try_send(&self, bytes: Bytes) {
        self.pieces.try_send(bytes).ok();
    }

    /// Returns once the client has gone.
    pub async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// Marks the stream as complete.
    pub fn finish(self) {
        self.is_whole.store(true, Ordering::Release);
    }
}

impl ClientReader {
    /// The next piece, and after the last one of a broken stream the error that cuts the connection.
    pub async fn next(&mut self) -> Option<Result<Bytes, CutOff>> {
        match self.pieces.recv().await {
            Some(bytes) => Some(Ok(bytes)),
            None if self.is_cut || self.is_whole.load(Ordering::Acquire) => None,
            None => {
                self.is_cut = true;
                Some(Err(CutOff))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_finished_stream_ends_in_order() {
        let (writer, mut reader) = channel(2);
        writer.send(Bytes::from_static(b"a"), Duration::from_secs(1)).await.unwrap();
        writer.finish();
        assert_eq!(reader.next().await.unwrap().unwrap(), "a");
        assert!(reader.next().await.is_none());

        let (writer, mut reader) = channel(1);
        writer.send(Bytes::from_static(b"a"), Duration::from_secs(1)).await.unwrap();
        assert!(writer.send(Bytes::from_static(b"b"), Duration::from_millis(10)).await.is_err(), "nobody reads");
        drop(writer);
        assert_eq!(reader.next().await.unwrap().unwrap(), "a");
        assert!(reader.next().await.unwrap().is_err());
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_noticed() {
        let (writer, reader) = channel(1);
        drop(reader);
        writer.closed().await;
        assert!(writer.send(Bytes::new(), Duration::from_secs(1)).await.is_err());
    }
}
