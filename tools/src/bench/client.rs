//! A connection of its own: blocking, one thread, no more than the loads need.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use memchr::memchr;
use serde_json::Value;

/// How long a server may be silent while something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a buffer for what comes begins with.
const INPUT_BYTES: usize = 256 * 1024;
/// A message, with its line, that needs more is refused.
const INPUT_BYTES_MAX: usize = 128 << 20;

/// A connection to a server.
pub struct Client {
    stream: TcpStream,
    /// What is to be sent with the next flush.
    pub out: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` was taken, and how much of it has come.
    taken: usize,
    filled: usize,
    inbox: String,
    requests: u64,
    /// How often the server has answered a ping.
    pongs: u64,
}

/// Where the parts of a message stand.
struct Parsed {
    subject: (usize, usize),
    reply: (usize, usize),
    headers: (usize, usize),
    payload: (usize, usize),
    end: usize,
}

/// What stands next in what has come.
enum Step {
    /// Something else than a message; it is dealt with.
    Control,
    Message(Parsed),
    /// Not all of it is there.
    Part,
}

/// A message that came.
pub struct Message<'a> {
    pub subject: &'a [u8],
    pub reply: &'a [u8],
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

impl Client {
    /// Connects, and hears everything that is sent to its inbox.
    pub fn connect(address: &str) -> Result<Self> {
        Self::connect_with(address, INPUT_BYTES)
    }

    /// The same with a buffer of this size to begin with.
    pub fn connect_with(address: &str, input_bytes: usize) -> Result<Self> {
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
            input: vec![0; input_bytes],
            taken: 0,
            filled: 0,
            inbox,
            requests: 0,
            pongs: 0,
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
    pub fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        self.publish_on(
            |line| line.extend_from_slice(subject.as_bytes()),
            reply,
            payload,
        );
    }

    /// The same on the subject that `subject` appends. Loads measure the server: what they do for each message themselves is kept to a minimum.
    pub fn publish_on(&mut self, subject: impl FnOnce(&mut Vec<u8>), reply: &str, payload: &[u8]) {
        let out = &mut self.out;
        out.extend_from_slice(b"PUB ");
        subject(out);
        out.push(b' ');
        out.extend_from_slice(reply.as_bytes());
        out.push(b' ');
        push_number(out, payload.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    /// The same with headers: a whole block, with its first line and its last.
    pub fn publish_with_headers(
        &mut self,
        subject: &str,
        reply: &str,
        headers: std::fmt::Arguments<'_>,
        payload: &[u8],
    ) {
        let headers = headers.to_string();
        let total = headers.len() + payload.len();
        // Writing into memory does not fail.
        let _ = write!(
            self.out,
            "HPUB {subject} {reply} {} {total}\r\n{headers}",
            headers.len()
        );
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Subscribes with the next flush.
    pub fn subscribe(&mut self, subject: &str, sid: u64) {
        // Writing into memory does not fail.
        let _ = write!(self.out, "SUB {subject} {sid}\r\n");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Waits until the server has taken everything that was sent before.
    pub fn settle(&mut self) -> Result<()> {
        self.out.extend_from_slice(b"PING\r\n");
        self.flush()?;
        let before = self.pongs;
        while self.pongs == before {
            match self.step()? {
                Step::Control => {}
                Step::Message(parsed) => self.taken = parsed.end,
                Step::Part => self.read_more()?,
            }
        }
        Ok(())
    }

    /// Passes over the messages that look like `expected`, a line and as many bytes as `message_bytes` with it, and says how many there were;
    /// hands out any other. Waits until something has come.
    pub fn count(
        &mut self,
        expected: &[u8],
        message_bytes: usize,
        mut other: impl FnMut(&Message<'_>) -> Result<()>,
    ) -> Result<u64> {
        let mut count = 0;
        loop {
            let here = self.input.get(self.taken..self.filled).unwrap_or_default();
            let mut rest = here;
            while let (true, Some((_, after))) = (
                rest.starts_with(expected),
                rest.split_at_checked(message_bytes),
            ) {
                count += 1;
                rest = after;
            }
            self.taken += here.len() - rest.len();
            let is_part = rest.starts_with(expected) || expected.starts_with(rest);
            if !is_part {
                match self.step()? {
                    Step::Control => continue,
                    Step::Message(parsed) => {
                        other(&self.message(&parsed))?;
                        self.taken = parsed.end;
                        return Ok(count);
                    }
                    Step::Part => {}
                }
            }
            if count > 0 {
                return Ok(count);
            }
            self.read_more()?;
        }
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
                each(&self.message(&parsed))?;
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
        self.publish(subject, &reply, payload);
        self.flush()?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|message| {
                if message.subject == reply.as_bytes() {
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

    fn message(&self, parsed: &Parsed) -> Message<'_> {
        let bytes = |(from, to): (usize, usize)| self.input.get(from..to).unwrap_or_default();
        Message {
            subject: bytes(parsed.subject),
            reply: bytes(parsed.reply),
            headers: bytes(parsed.headers),
            payload: bytes(parsed.payload),
        }
    }

    fn read_more(&mut self) -> Result<()> {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
        } else if self.filled > self.input.len() / 2 {
            self.input.copy_within(self.taken..self.filled, 0);
            (self.taken, self.filled) = (0, self.filled - self.taken);
        }
        if self.filled > self.input.len() / 2 {
            if self.input.len() >= INPUT_BYTES_MAX {
                bail!("the server sends a message that is too long");
            }
            self.input.resize(self.input.len() * 2, 0);
        }
        let room = self.input.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(room)? {
            0 => bail!("the server closed the connection"),
            read => self.filled += read,
        }
        Ok(())
    }

    /// The next message that is there as a whole; what else the server says is dealt with on the way.
    fn next_message(&mut self) -> Result<Option<Parsed>> {
        loop {
            match self.step()? {
                Step::Control => {}
                Step::Message(parsed) => return Ok(Some(parsed)),
                Step::Part => return Ok(None),
            }
        }
    }

    /// Deals with the next line. A message is not taken yet.
    fn step(&mut self) -> Result<Step> {
        let rest = self.input.get(self.taken..self.filled).unwrap_or_default();
        let Some(length) = memchr(b'\n', rest) else {
            return Ok(Step::Part);
        };
        let line = rest.get(..length).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let after = self.taken + length + 1;
        if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
            let parsed = parse(line, self.taken, after)?;
            return Ok(match self.filled >= parsed.end {
                true => Step::Message(parsed),
                false => Step::Part,
            });
        }
        if line.starts_with(b"-ERR") {
            bail!("the server says {}", String::from_utf8_lossy(line));
        }
        let is_ping = line == b"PING";
        self.pongs += u64::from(line == b"PONG");
        self.taken = after;
        if is_ping {
            self.stream.write_all(b"PONG\r\n")?;
        }
        Ok(Step::Control)
    }
}

/// Takes the line of a message apart; it begins at `from`, and what follows it at `after`.
fn parse(line: &[u8], from: usize, after: usize) -> Result<Parsed> {
    let unclear = || anyhow!("the server says {:?}", String::from_utf8_lossy(line));
    let has_headers = line.starts_with(b"H");
    let mut tokens = [(0, 0); 6];
    let mut count = 0;
    let mut begin = 0;
    for (at, byte) in line.iter().chain(b" ").enumerate() {
        if *byte != b' ' {
            continue;
        }
        if at > begin {
            *tokens.get_mut(count).ok_or_else(unclear)? = (begin, at);
            count += 1;
        }
        begin = at + 1;
    }
    let sizes = if has_headers { 2 } else { 1 };
    let place = |token: usize| {
        let (begin, end) = tokens.get(token).copied().unwrap_or_default();
        (from + begin, from + end)
    };
    let reply = match count - sizes.min(count) {
        3 => (after, after),
        4 => place(3),
        _ => return Err(unclear()),
    };
    let size = |back: usize| {
        let (begin, end) = tokens.get(count - back).copied()?;
        number(line.get(begin..end)?)
    };
    let total = size(1).ok_or_else(unclear)?;
    let headers = match has_headers {
        true => size(2).ok_or_else(unclear)?,
        false => 0,
    };
    if headers > total || total > 1 << 30 {
        return Err(unclear());
    }
    Ok(Parsed {
        subject: place(1),
        reply,
        headers: (after, after + headers),
        payload: (after + headers, after + total),
        end: after + total + 2,
    })
}

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_usize, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_messages_come_apart() {
        let text = "MSG a.b 1 reply.to 5\r\nhello\r\n";
        let parsed = parse(&text.as_bytes()[..20], 0, 22).unwrap();
        let part = |(from, to): (usize, usize)| &text[from..to];
        assert_eq!(
            (part(parsed.subject), part(parsed.reply)),
            ("a.b", "reply.to")
        );
        assert_eq!((part(parsed.payload), parsed.end), ("hello", text.len()));
        let text = "HMSG a 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\n";
        let parsed = parse(&text.as_bytes()[..14], 0, 16).unwrap();
        let part = |(from, to): (usize, usize)| &text[from..to];
        assert_eq!(part(parsed.headers), "NATS/1.0\r\n\r\n");
        assert_eq!((part(parsed.reply), part(parsed.payload)), ("", "hello"));
        assert!(parse(b"MSG a", 0, 7).is_err());
        assert!(parse(b"HMSG a 1 9 5", 0, 14).is_err());
        assert!(parse(b"MSG a 1 -5", 0, 12).is_err());
        assert!(parse(b"MSG a 1 99999999999999999999", 0, 30).is_err());
        for value in [0, 9, 10, u64::MAX] {
            let mut digits = Vec::new();
            push_number(&mut digits, value);
            assert_eq!(digits, value.to_string().as_bytes());
        }
    }

    /// A server that says this to the first client, in pieces, and then nothing more.
    fn server_that_says(pieces: &'static [&'static [u8]]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for piece in pieces {
                stream.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            // Until the client goes.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        address
    }

    #[test]
    fn messages_are_counted_whatever_stands_between_them() {
        let address = server_that_says(&[
            b"INFO {}\r\nMSG a 7 2\r\nxx\r\nMSG a 7 2\r\nxx\r\nMSG",
            b" a 7 2\r\nx",
            b"x\r\nPING\r\nMSG a 7 2\r\nxx\r\nMSG a 7 1\r\n.\r\nMSG a 7 2\r\nxx\r\n",
        ]);
        let mut client = Client::connect(&address).unwrap();
        let line = b"MSG a 7 2\r\n";
        let (mut counted, mut others) = (0, 0);
        while counted < 5 {
            let count = client.count(line, line.len() + 4, |message| {
                assert_eq!((message.subject, message.payload), (&b"a"[..], &b"."[..]));
                others += 1;
                Ok(())
            });
            counted += count.unwrap();
        }
        assert_eq!((counted, others), (5, 1));
    }

    #[test]
    fn a_message_larger_than_the_buffer_comes_whole() {
        let address = server_that_says(&[b"MSG a 1 20\r\n0123456789", b"0123456789\r\n"]);
        let mut client = Client::connect_with(&address, 8).unwrap();
        let mut payload = Vec::new();
        let received = client.receive(|message| {
            payload = message.payload.to_vec();
            Ok(())
        });
        received.unwrap();
        assert_eq!(payload, b"01234567890123456789");
    }
}
