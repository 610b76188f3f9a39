//! Takes the steps of an answer on a connection, and watches meanwhile whether the client is still there.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::time::sleep;

use super::bill::Ending;
use super::books::{Account, Books};
use super::control;
use super::http::{Inbox, Unread};
use super::steps::Step;

/// So long the bytes before a reset have to arrive: a reset overtakes what is not sent yet.
const BEFORE_RESET: Duration = Duration::from_millis(20);
/// Nothing hangs longer than this, not even on script.
const HANG_AT_MOST: Duration = Duration::from_mins(10);

/// Serves a connection to its end.
pub async fn serve(mut stream: TcpStream, books: &Books) {
    // Each write is to leave at once: where a body is cut is the point of the script.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut inbox = Inbox::new();
    loop {
        let request = match inbox.request(&mut stream).await {
            Ok(request) => request,
            Err(Unread::Left) => return,
            Err(Unread::Refused(status)) => {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // The client may be gone already, and nothing else is owed to it.
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
        let mut ending = Ending::Finished;
        for step in reply.steps {
            ending = take(step, &mut stream, &mut inbox, books, &mut account).await;
            if ending != Ending::Finished {
                break;
            }
        }
        books.close(&account, ending);
        if ending != Ending::Finished || !stays {
            return;
        }
    }
}

async fn take(step: Step, stream: &mut TcpStream, inbox: &mut Inbox, books: &Books, account: &mut Account) -> Ending {
    let (mut from_client, mut to_client) = stream.split();
    match step {
        Step::Wait(pause) => while_there(&mut from_client, inbox, sleep(pause)).await,
        Step::Write { wire, body, used } => {
            books.charge(account, used);
            let mut is_written = false;
            let write = async { is_written = to_client.write_all(&wire).await.is_ok() };
            let ending = while_there(&mut from_client, inbox, write).await;
            if !is_written {
                return Ending::ClientLeft;
            }
            books.deliver(account, body);
            ending
        }
        Step::Hold => {
            books.pages().held += 1;
            let released = async {
                let permit = books.let_go.acquire().await.expect("the semaphore is never closed");
                permit.forget();
            };
            let ending = while_there(&mut from_client, inbox, released).await;
            books.pages().held -= 1;
            ending
        }
        Step::Hang => match while_there(&mut from_client, inbox, sleep(HANG_AT_MOST)).await {
            Ending::Finished => Ending::BrokenOff,
            left => left,
        },
        Step::Reset => match while_there(&mut from_client, inbox, sleep(BEFORE_RESET)).await {
            Ending::Finished if stream.set_zero_linger().is_ok() => Ending::BrokenOff,
            left => left,
        },
        Step::Close => Ending::BrokenOff,
    }
}

/// Does the work, unless the client leaves first.
async fn while_there(from_client: &mut ReadHalf<'_>, inbox: &mut Inbox, work: impl Future<Output = ()>) -> Ending {
    tokio::select! {
        biased;
        () = gone(from_client, inbox) => Ending::ClientLeft,
        () = work => Ending::Finished,
    }
}

/// Is ready when the client has left. What it sends meanwhile is its next request and waits.
async fn gone(from_client: &mut ReadHalf<'_>, inbox: &mut Inbox) {
    let mut part = [0; 1024];
    while !inbox.is_full() {
        match from_client.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(length) => inbox.keep(part.get(..length).unwrap_or_default()),
        }
    }
    std::future::pending::<()>().await;
}
