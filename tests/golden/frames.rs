//! What a server sends, cut into frames.

use serde_json::Value;

/// One frame of the client protocol, as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The server's description of itself.
    Info(Value),
    /// `MSG` or `HMSG`.
    Message(Message),
    /// Any other line, with its end.
    Line(String),
    /// The rest of a stream that ends inside a frame.
    Rest(String),
}

/// A delivered message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// The subscription it was delivered to.
    pub sid: String,
    /// The reply subject, or empty.
    pub reply: String,
    /// The header block, or empty.
    pub headers: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Cuts the first whole frame off; returns it with its length.
pub fn first(bytes: &[u8]) -> Option<(Frame, usize)> {
    let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let (line_bytes, after) = bytes.split_at(line_end);
    let line = String::from_utf8_lossy(line_bytes).into_owned();
    if let Some(info) = line.strip_prefix("INFO ") {
        let frame =
            serde_json::from_str(info).map_or_else(|_| Frame::Line(line.clone()), Frame::Info);
        return Some((frame, line_end));
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let message = match words.as_slice() {
        ["MSG", subject, sid, size] => (*subject, *sid, "", "0", *size),
        ["MSG", subject, sid, reply, size] => (*subject, *sid, *reply, "0", *size),
        ["HMSG", subject, sid, header, size] => (*subject, *sid, "", *header, *size),
        ["HMSG", subject, sid, reply, header, size] => (*subject, *sid, *reply, *header, *size),
        _ => return Some((Frame::Line(line), line_end)),
    };
    let (subject, sid, reply, header_bytes, total_bytes) = message;
    let (Ok(header_bytes), Ok(total_bytes)) =
        (header_bytes.parse::<usize>(), total_bytes.parse::<usize>())
    else {
        return Some((Frame::Line(line), line_end));
    };
    let body = after.get(..total_bytes)?;
    let end = after.get(total_bytes..total_bytes + 2)?;
    if end != b"\r\n" || header_bytes > total_bytes {
        return Some((Frame::Line(line), line_end));
    }
    let (headers, payload) = body.split_at(header_bytes);
    let frame = Frame::Message(Message {
        subject: subject.to_owned(),
        sid: sid.to_owned(),
        reply: reply.to_owned(),
        headers: headers.to_vec(),
        payload: payload.to_vec(),
    });
    Some((frame, line_end + total_bytes + 2))
}

/// Cuts all of a stream into frames.
pub fn all(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((frame, length)) = first(bytes) {
        frames.push(frame);
        bytes = &bytes[length..];
    }
    if !bytes.is_empty() {
        frames.push(Frame::Rest(String::from_utf8_lossy(bytes).into_owned()));
    }
    // The server pings when it likes.
    frames.retain(|frame| *frame != Frame::Line("PING\r\n".to_owned()));
    frames
}
