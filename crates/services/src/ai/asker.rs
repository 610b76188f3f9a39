//! Whoever asks for a call: who is told of its head, its comments and its pieces, and may be slow or gone.

use std::sync::Arc;
use std::time::Duration;

use ports::ai::CommentSink;
use tokio::sync::{mpsc, oneshot};

use super::answers::{AnswerHead, AnswerPiece};
use super::errors::CallError;

/// How long a reader may not read until it counts as gone.
const STALLED: Duration = Duration::from_secs(30);

/// Whoever reads the answer, until they are gone.
pub(super) struct Reader(pub Option<mpsc::Sender<AnswerPiece>>);

impl Reader {
    pub async fn send(&mut self, piece: AnswerPiece) {
        if let Some(pieces) = &self.0
            && pieces.send_timeout(piece, STALLED).await.is_err()
        {
            self.0 = None;
        }
    }

    /// Comes back once the reader is gone; never where they were gone before.
    pub async fn left(&self) {
        match &self.0 {
            Some(pieces) => pieces.closed().await,
            None => std::future::pending().await,
        }
    }
}

/// Where a call is told of.
pub(super) struct Asker {
    pub head: oneshot::Sender<Result<AnswerHead, CallError>>,
    pub comments: Arc<PassedComments>,
    pub pieces: mpsc::Sender<AnswerPiece>,
}

/// Comments on their way to whoever asked, as many as there is room for.
pub(super) struct PassedComments(pub mpsc::Sender<Vec<u8>>);

impl CommentSink for PassedComments {
    fn comment(&self, bytes: Vec<u8>) {
        // Nobody misses a comment.
        self.0.try_send(bytes).ok();
    }
}
