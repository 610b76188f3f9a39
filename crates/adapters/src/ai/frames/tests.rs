use proptest::prelude::*;

use super::*;

/// Pushes a body in pieces of `size` bytes; returns its frames and whether it ended.
fn cut(framing: StreamFraming, body: &[u8], size: usize) -> (Vec<Frame>, bool) {
    let mut splitter = Splitter::new(framing);
    let (mut frames, mut has_ended) = (Vec::new(), false);
    for piece in body.chunks(size) {
        splitter.push(piece);
        loop {
            match splitter.next().unwrap() {
                Cut::Frame(frame) => frames.push(frame),
                Cut::End => has_ended = true,
                Cut::More => break,
            }
        }
    }
    frames.extend(splitter.rest());
    (frames, has_ended)
}

fn frame(raw: &str, data: Option<&str>) -> Frame {
    Frame { raw: raw.into(), data: data.map(Into::into) }
}

#[test]
fn events_are_whole_wherever_they_are_cut() {
    let parts = [
        frame("\u{feff}data: {\"a\":\"é\"}\r\n\r\n", Some("{\"a\":\"é\"}")),
        frame(": ping\n\n", None),
        frame("event: x\ndata:one\ndata:  two\nid: 7\n\n", Some("one\n two")),
        frame("\r\n\ndata\ndatabase: no\n\n", Some("")),
        frame("event: lonely\n\n", None),
        frame("data: 🦀\r\n", Some("🦀")),
    ];
    let body: Vec<u8> = parts.iter().flat_map(|frame| frame.raw.clone()).collect();
    for size in 1..=body.len() {
        assert_eq!(cut(StreamFraming::ServerSentEvents, &body, size), (parts.to_vec(), false), "in pieces of {size}");
    }
}

#[test]
fn lines_that_end_with_cr_alone_are_lines() {
    let parts = [frame("data: a\rdata:b\r\r", Some("a\nb")), frame(": c\r\r", None), frame("data: d\r\r", Some("d"))];
    let body: Vec<u8> = parts.iter().flat_map(|frame| frame.raw.clone()).collect();
    for size in 1..=body.len() {
        assert_eq!(cut(StreamFraming::ServerSentEvents, &body, size), (parts.to_vec(), false), "in pieces of {size}");
    }
    let mut splitter = Splitter::new(StreamFraming::ServerSentEvents);
    splitter.push(b"data: a\r\r");
    assert_eq!(splitter.next(), Ok(Cut::Frame(frame("data: a\r\r", Some("a")))), "nothing is waited for");
}

#[test]
fn a_frame_that_is_too_long_is_surrendered_and_the_next_one_is_read() {
    let mut splitter = Splitter::new(StreamFraming::ServerSentEvents);
    splitter.push(b"data: a\n\ndata: long");
    assert_eq!(splitter.next(), Ok(Cut::Frame(frame("data: a\n\n", Some("a")))));
    assert_eq!(splitter.next(), Ok(Cut::More));
    assert_eq!(splitter.surrender(), b"data: long");
    splitter.push(b"er\n\ndata: b\n\n");
    assert_eq!(splitter.next(), Ok(Cut::Frame(frame("er\n\n", None))));
    assert_eq!(splitter.next(), Ok(Cut::Frame(frame("data: b\n\n", Some("b")))));
}

#[test]
fn what_remains_without_data_is_no_frame() {
    for rest in ["", "\n\n", ": ping", "event: x\n"] {
        assert_eq!(cut(StreamFraming::ServerSentEvents, rest.as_bytes(), 1).0, []);
    }
    assert_eq!(cut(StreamFraming::ServerSentEvents, b"data: half", 3).0, [frame("data: half", Some("half"))]);
}

#[test]
fn elements_are_whole_wherever_they_are_cut() {
    let one = r#"{"a":"]},{[\"\\","b":[{}, []]}"#;
    let two = "{\n  \"é\": 1\n}";
    for body in [format!("[{one},\r\n{two}]\n"), format!(" [ {one} , {two} ] ")] {
        for size in 1..=body.len() {
            let expected = vec![frame(one, Some(one)), frame(two, Some(two))];
            assert_eq!(cut(StreamFraming::JsonArray, body.as_bytes(), size), (expected, true));
        }
    }
    assert_eq!(cut(StreamFraming::JsonArray, b"[]", 1), (vec![], true));
    assert_eq!(cut(StreamFraming::JsonArray, b"[{}", 1), (vec![frame("{}", Some("{}"))], false));
}

#[test]
fn what_is_no_array_is_refused() {
    for body in ["{}", "[1]", "[{},]", "[{}{}]", "[,{}]", "[{}]x", "\0"] {
        let mut splitter = Splitter::new(StreamFraming::JsonArray);
        splitter.push(body.as_bytes());
        let refused = loop {
            match splitter.next() {
                Ok(Cut::Frame(_) | Cut::End) => {}
                other => break other,
            }
        };
        assert_eq!(refused, Err(CutRefused::NotAnArray), "{body}");
    }
}

#[test]
fn a_frame_without_an_end_is_given_up() {
    for (framing, body) in [(StreamFraming::ServerSentEvents, "data: "), (StreamFraming::JsonArray, "[{\"a\":\"")] {
        let mut splitter = Splitter::new(framing);
        splitter.push(body.as_bytes());
        splitter.push(&vec![b'x'; FRAME_BYTES_MAX - 100]);
        assert_eq!(splitter.next(), Ok(Cut::More));
        splitter.push(&[b'x'; 200]);
        assert_eq!(splitter.next(), Err(CutRefused::TooLong));
    }
}

proptest! {
    #[test]
    fn no_byte_is_lost_and_none_is_added(
        lines in prop::collection::vec("(data|event|:|)[:\\PC]{0,9}(\r\n|\n)", 0..20), size in 1..9_usize,
    ) {
        let body = lines.concat() + "data: end\n\n";
        let (frames, _) = cut(StreamFraming::ServerSentEvents, body.as_bytes(), size);
        let joined: Vec<u8> = frames.iter().flat_map(|frame| frame.raw.clone()).collect();
        prop_assert_eq!(joined, body.as_bytes());
        let (whole, _) = cut(StreamFraming::ServerSentEvents, body.as_bytes(), body.len());
        prop_assert_eq!(frames, whole);
    }

    #[test]
    fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..200), size in 1..9_usize) {
        for framing in [StreamFraming::ServerSentEvents, StreamFraming::JsonArray] {
            let mut splitter = Splitter::new(framing);
            for piece in body.chunks(size) {
                splitter.push(piece);
                while matches!(splitter.next(), Ok(Cut::Frame(_) | Cut::End)) {}
            }
            splitter.rest();
        }
    }
}
