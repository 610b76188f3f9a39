//! Control requests from other processes: read the totals, or reset them. They are no client requests: they are neither
//! recorded nor charged.

use super::books::UpstreamBooks;
use super::http::UpstreamRequest;

pub fn answer(request: &UpstreamRequest, books: &UpstreamBooks) -> Option<Vec<u8>> {
    match (request.method.as_str(), request.path()) {
        ("GET", "/stub/totals") => {}
        ("POST", "/stub/clear") => books.pages().clear(),
        _ => return None,
    }
    let totals = books.pages().totals;
    let body = format!(
        r#"{{"requests":{},"answering":{},"answering_at_most":{},"finished":{},"clients_left":{},"broken_off":{},"input":{},"output":{},"nano_dollars":{}}}"#,
        totals.requests,
        totals.answering,
        totals.answering_at_most,
        totals.finished,
        totals.clients_left,
        totals.broken_off,
        totals.usage.input(),
        totals.usage.output(),
        totals.nano_dollars,
    );
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    Some([head, body].concat().into_bytes())
}
