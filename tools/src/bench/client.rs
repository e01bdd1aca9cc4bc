//! A connection of its own: blocking, one thread, no more than the loads need.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long a server may be silent while something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 * 1024;

/// A connection to a server.
pub struct Client {
    stream: TcpStream,
    /// What is to be sent with the next flush.
    pub out: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` was taken.
    taken: usize,
    inbox: String,
    requests: u64,
}

/// Where the parts of a message stand.
struct Parsed {
    subject: (usize, usize),
    reply: (usize, usize),
    headers: (usize, usize),
    payload: (usize, usize),
    end: usize,
}

/// A message that came.
pub struct Message<'a> {
    pub subject: &'a str,
    pub reply: &'a str,
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

impl Client {
    /// Connects, and hears everything that is sent to its inbox.
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default()
            .as_nanos();
        let inbox = format!("_INBOX.{:x}.{:x}", now, stream.local_addr()?.port());
        let mut client = Self {
            stream,
            out: Vec::new(),
            input: Vec::new(),
            taken: 0,
            inbox,
            requests: 0,
        };
        let hello = r#"CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}"#;
        write!(client.out, "{hello}\r\nSUB {}.* 1\r\n", client.inbox)?;
        client.flush()?;
        Ok(client)
    }

    /// Where answers to this client go; a token is to follow.
    pub fn inbox(&self) -> &str {
        &self.inbox
    }

    /// Puts a publish into what is sent next.
    pub fn publish(&mut self, subject: &str, reply: std::fmt::Arguments<'_>, payload: &[u8]) {
        // Writing into memory does not fail.
        let _ = write!(self.out, "PUB {subject} {reply} {}\r\n", payload.len());
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Sends what was put together.
    pub fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for one message and hands out all that came with it.
    pub fn receive(&mut self, mut each: impl FnMut(&Message<'_>) -> Result<()>) -> Result<()> {
        let mut count = 0;
        while count == 0 {
            while let Some(parsed) = self.next_message()? {
                count += 1;
                let text = |(from, to): (usize, usize)| {
                    std::str::from_utf8(self.input.get(from..to).unwrap_or_default())
                };
                let bytes =
                    |(from, to): (usize, usize)| self.input.get(from..to).unwrap_or_default();
                each(&Message {
                    subject: text(parsed.subject)?,
                    reply: text(parsed.reply)?,
                    headers: bytes(parsed.headers),
                    payload: bytes(parsed.payload),
                })?;
                self.taken = parsed.end;
            }
            if count == 0 {
                self.read_more()?;
            }
        }
        Ok(())
    }

    /// Asks and waits for the answer.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> Result<Value> {
        self.requests += 1;
        let reply = format!("{}.r{}", self.inbox, self.requests);
        self.publish(subject, format_args!("{reply}"), payload);
        self.flush()?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|message| {
                if message.subject == reply {
                    answer = Some(message.payload.to_vec());
                }
                Ok(())
            })?;
        }
        let answer = answer.unwrap_or_default();
        let answer: Value = serde_json::from_slice(&answer)
            .with_context(|| format!("{subject}: {:?}", String::from_utf8_lossy(&answer)))?;
        match answer.get("error") {
            Some(error) => bail!("{subject}: {error}"),
            None => Ok(answer),
        }
    }

    fn read_more(&mut self) -> Result<()> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let from = self.input.len();
        self.input.resize(from + READ_BYTES, 0);
        let read = self
            .stream
            .read(self.input.get_mut(from..).unwrap_or_default());
        self.input.truncate(from + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => bail!("the server closed the connection"),
            _ => Ok(()),
        }
    }

    /// The next message that is there as a whole; what else the server says is dealt with on the way.
    fn next_message(&mut self) -> Result<Option<Parsed>> {
        loop {
            let rest = self.input.get(self.taken..).unwrap_or_default();
            let Some(length) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                return Ok(None);
            };
            let line = std::str::from_utf8(rest.get(..length).unwrap_or_default())?;
            let after = self.taken + length + 2;
            if line.starts_with("MSG ") || line.starts_with("HMSG ") {
                let parsed = parse(line, self.taken, after)?;
                return Ok((self.input.len() >= parsed.end).then_some(parsed));
            }
            if line.starts_with("-ERR") {
                bail!("the server says {line}");
            }
            let is_ping = line == "PING";
            self.taken = after;
            if is_ping {
                self.stream.write_all(b"PONG\r\n")?;
            }
        }
    }
}

/// Takes the line of a message apart; it begins at `from`, and what follows it at `after`.
fn parse(line: &str, from: usize, after: usize) -> Result<Parsed> {
    let base = line.as_ptr() as usize;
    let place = |text: &str| {
        let begin = from + (text.as_ptr() as usize - base);
        (begin, begin + text.len())
    };
    let has_headers = line.starts_with('H');
    let tokens: Vec<&str> = line.split_ascii_whitespace().collect();
    let sizes = if has_headers { 2 } else { 1 };
    let (subject, reply) = match tokens.len().checked_sub(sizes) {
        Some(3) => (tokens.get(1), None),
        Some(4) => (tokens.get(1), tokens.get(3)),
        _ => bail!("the server says {line:?}"),
    };
    let size = |back: usize| -> Result<usize> {
        let token = tokens.len().checked_sub(back).and_then(|at| tokens.get(at));
        Ok(token.context("a size is missing")?.parse()?)
    };
    let total = size(1)?;
    let headers = if has_headers { size(2)? } else { 0 };
    if headers > total || total > 1 << 30 {
        bail!("the server says {line:?}");
    }
    Ok(Parsed {
        subject: subject.copied().map_or((after, after), place),
        reply: reply.copied().map_or((after, after), place),
        headers: (after, after + headers),
        payload: (after + headers, after + total),
        end: after + total + 2,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_messages_come_apart() {
        let text = "MSG a.b 1 reply.to 5\r\nhello\r\n";
        let parsed = parse(&text[..20], 0, 22).unwrap();
        let part = |(from, to): (usize, usize)| &text[from..to];
        assert_eq!(
            (part(parsed.subject), part(parsed.reply)),
            ("a.b", "reply.to")
        );
        assert_eq!((part(parsed.payload), parsed.end), ("hello", text.len()));
        let text = "HMSG a 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\n";
        let parsed = parse(&text[..14], 0, 16).unwrap();
        let part = |(from, to): (usize, usize)| &text[from..to];
        assert_eq!(part(parsed.headers), "NATS/1.0\r\n\r\n");
        assert_eq!((part(parsed.reply), part(parsed.payload)), ("", "hello"));
        assert!(parse("MSG a", 0, 7).is_err());
        assert!(parse("HMSG a 1 9 5", 0, 14).is_err());
    }
}
