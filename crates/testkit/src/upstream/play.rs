//! Runs the steps of a response on a connection, and watches meanwhile whether the client is still connected.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::sleep;

use super::bill::BillEnding;
use super::books::{UpstreamAccount, UpstreamBooks};
use super::control;
use super::http::{RequestInbox, UnreadRequest};
use super::steps::PlayStep;

/// Time for the bytes before a reset to arrive: a reset discards what is not sent yet.
const BEFORE_RESET: Duration = Duration::from_millis(20);
/// The longest hang, also on script.
const HANG_AT_MOST: Duration = Duration::from_mins(10);

/// Serves a connection to its end.
pub async fn serve(mut stream: TcpStream, books: &UpstreamBooks) {
    // Each write must leave at once: the script defines where a body is cut.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut inbox = RequestInbox::new();
    loop {
        let request = match inbox.request(&mut stream).await {
            Ok(request) => request,
            Err(UnreadRequest::Left) => return,
            Err(UnreadRequest::Refused(status)) => {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // The client may be gone already, which is no error here.
                drop(stream.write_all(answer.as_bytes()).await);
                return;
            }
        };
        let stays = request.stays();
        if let Some(answer) = control::answer(&request, books) {
            if stream.write_all(&answer).await.is_err() || !stays {
                return;
            }
            continue;
        }
        let (reply, mut account) = books.open(request);
        let mut ending = BillEnding::Finished;
        for step in reply.steps {
            ending = take(step, &mut stream, &mut inbox, books, &mut account).await;
            if ending != BillEnding::Finished {
                break;
            }
        }
        books.close(&account, ending);
        if ending != BillEnding::Finished || !stays {
            return;
        }
    }
}

async fn take(
    step: PlayStep,
    stream: &mut TcpStream,
    inbox: &mut RequestInbox,
    books: &UpstreamBooks,
    account: &mut UpstreamAccount,
) -> BillEnding {
    let (mut from_client, mut to_client) = stream.split();
    match step {
        PlayStep::Wait(pause) => while_there(&mut from_client, inbox, sleep(pause)).await,
        PlayStep::Write { wire, body, used } => {
            books.charge(account, used);
            let mut is_written = false;
            let write = async { is_written = to_client.write_all(&wire).await.is_ok() };
            let ending = while_there(&mut from_client, inbox, write).await;
            if !is_written {
                return BillEnding::ClientLeft;
            }
            books.deliver(account, body);
            ending
        }
        PlayStep::Hold => {
            books.pages().held += 1;
            let released = async {
                let permit = books.let_go.acquire().await.expect("the semaphore is never closed");
                permit.forget();
            };
            let ending = while_there(&mut from_client, inbox, released).await;
            books.pages().held -= 1;
            ending
        }
        PlayStep::Hang => match while_there(&mut from_client, inbox, sleep(HANG_AT_MOST)).await {
            BillEnding::Finished => BillEnding::BrokenOff,
            left => left,
        },
        PlayStep::Reset => match while_there(&mut from_client, inbox, sleep(BEFORE_RESET)).await {
            BillEnding::Finished if stream.set_zero_linger().is_ok() => BillEnding::BrokenOff,
            left => left,
        },
        PlayStep::Close => BillEnding::BrokenOff,
    }
}

/// Does the work, unless the client disconnects first.
async fn while_there(
    from_client: &mut ReadHalf<'_>,
    inbox: &mut RequestInbox,
    work: impl Future<Output = ()>,
) -> BillEnding {
    tokio::select! {
        biased;
        () = gone(from_client, inbox) => BillEnding::ClientLeft,
        () = work => BillEnding::Finished,
    }
}

/// Completes when the client has disconnected. Bytes that arrive meanwhile are its next request and are kept.
async fn gone(from_client: &mut ReadHalf<'_>, inbox: &mut RequestInbox) {
    let mut part = [0; 1024];
    while !inbox.is_full() {
        match from_client.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(length) => inbox.keep(part.get(..length).unwrap_or_default()),
        }
    }
    std::future::pending::<()>().await;
}
