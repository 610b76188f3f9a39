//! The caller's side of a call: it receives the head, the comments and the pieces, and may be slow or gone.

use std::sync::Arc;
use std::time::Duration;

use ports::ai::CommentSink;
use tokio::sync::{mpsc, oneshot};

use super::answers::{AnswerHead, AnswerPiece};
use super::errors::CallError;

/// A reader that reads nothing for this long counts as gone.
const STALLED: Duration = Duration::from_secs(30);

/// The reader of the answer; `None` once it is gone.
pub(super) struct Reader(pub Option<mpsc::Sender<AnswerPiece>>);

impl Reader {
    pub async fn send(&mut self, piece: AnswerPiece) {
        if let Some(pieces) = &self.0
            && pieces.send_timeout(piece, STALLED).await.is_err()
        {
            self.0 = None;
        }
    }

    /// Returns once the reader is gone; never returns if it was gone before.
    pub async fn left(&self) {
        match &self.0 {
            Some(pieces) => pieces.closed().await,
            None => std::future::pending().await,
        }
    }
}

/// The channels to the caller.
pub(super) struct Asker {
    pub head: oneshot::Sender<Result<AnswerHead, CallError>>,
    pub comments: Arc<PassedComments>,
    pub pieces: mpsc::Sender<AnswerPiece>,
}

/// Comments on their way to the caller; those that do not fit into the channel are dropped.
pub(super) struct PassedComments(pub mpsc::Sender<Vec<u8>>);

impl CommentSink for PassedComments {
    fn comment(&self, bytes: Vec<u8>) {
        // A comment may be lost.
        self.0.try_send(bytes).ok();
    }
}
