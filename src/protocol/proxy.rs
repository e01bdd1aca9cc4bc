//! The PROXY protocol, versions 1 and 2: who is behind the proxy that connects.
//!
//! # Invariant
//! Pure, and bounded: a header is at most [`HEADER_BYTES_MAX`] bytes, whatever it says of its own length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// Longest header that is read. The addresses of version 2 take 36 bytes; the rest is for what proxies add to them.
pub const HEADER_BYTES_MAX: usize = 4096;
const LINE_PREFIX: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version with command, family with protocol, and the length of the rest.
const FIXED_BYTES: usize = 16;

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed to say.
    Incomplete,
    /// No header: the client itself speaks.
    Absent,
    /// A header of so many bytes. Without a source the proxy speaks for itself.
    Present {
        /// Where the client is.
        source: Option<SocketAddr>,
        /// Its length.
        bytes: usize,
    },
}

/// Bytes that begin as a header and are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// A line that does not end.
    #[error("invalid PROXY protocol header: v1 line too long")]
    LineTooLong,
    /// A line with other words.
    #[error("invalid PROXY protocol header: invalid v1 format")]
    Line,
    /// Addresses of another family than the one that is named.
    #[error("invalid PROXY protocol header: the address is of another family")]
    Family,
    /// It begins as version 2 does and goes on otherwise.
    #[error("invalid PROXY protocol header: invalid signature")]
    Signature,
    /// A version that does not exist.
    #[error("invalid PROXY protocol header: version {0}")]
    Version(u8),
    /// A command that does not exist.
    #[error("invalid PROXY protocol header: command {0}")]
    Command(u8),
    /// Sockets of other kinds: unix, or datagrams.
    #[error("unsupported PROXY protocol feature: family and protocol 0x{0:02x}")]
    Unsupported(u8),
    /// The addresses do not fit into what is announced.
    #[error("invalid PROXY protocol header: address data too short")]
    TooShort,
    /// More is announced than any proxy adds.
    #[error("invalid PROXY protocol header: too long")]
    TooLong,
}

impl Header {
    /// Looks at the bytes that a connection begins with.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidHeader> {
        if agrees(bytes, LINE_PREFIX) {
            return line(bytes);
        }
        // As in the reference the first half of the signature is enough to expect the rest.
        let begin = bytes.get(..6).unwrap_or(bytes);
        if !agrees(begin, SIGNATURE) {
            return Ok(Self::Absent);
        }
        if !agrees(bytes, SIGNATURE) {
            return Err(InvalidHeader::Signature);
        }
        binary(bytes)
    }
}

/// Whether one is the beginning of the other.
fn agrees(bytes: &[u8], whole: &[u8]) -> bool {
    let length = bytes.len().min(whole.len());
    bytes.get(..length) == whole.get(..length)
}

fn line(bytes: &[u8]) -> Result<Header, InvalidHeader> {
    let seen = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return match seen.len() < LINE_BYTES_MAX {
            true => Ok(Header::Incomplete),
            false => Err(InvalidHeader::LineTooLong),
        };
    };
    let text = seen.get(..end).unwrap_or_default();
    let text = std::str::from_utf8(text).map_err(|_| InvalidHeader::Line)?;
    let words: Vec<&str> = text.split_ascii_whitespace().skip(1).collect();
    let present = |source| {
        Ok(Header::Present {
            source,
            bytes: end + 2,
        })
    };
    let (family, source, target, port) = match words.as_slice() {
        ["UNKNOWN", ..] => return present(None),
        [family, source, target, port, target_port] => {
            target_port
                .parse::<u16>()
                .map_err(|_| InvalidHeader::Line)?;
            (*family, *source, *target, *port)
        }
        _ => return Err(InvalidHeader::Line),
    };
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| InvalidHeader::Line);
    let (source, target) = (address(source)?, address(target)?);
    let port: u16 = port.parse().map_err(|_| InvalidHeader::Line)?;
    match family {
        "TCP4" if source.is_ipv4() && target.is_ipv4() => present(Some((source, port).into())),
        "TCP6" if source.is_ipv6() && target.is_ipv6() => present(Some((source, port).into())),
        "TCP4" | "TCP6" => Err(InvalidHeader::Family),
        _ => Err(InvalidHeader::Line),
    }
}

fn binary(bytes: &[u8]) -> Result<Header, InvalidHeader> {
    let Some(&[version, family, high, low]) = bytes
        .get(SIGNATURE.len()..FIXED_BYTES)
        .and_then(|fixed| fixed.first_chunk::<4>())
    else {
        return Ok(Header::Incomplete);
    };
    if version >> 4 != 2 {
        return Err(InvalidHeader::Version(version >> 4));
    }
    let length = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_BYTES_MAX {
        return Err(InvalidHeader::TooLong);
    }
    let Some(addresses) = bytes.get(FIXED_BYTES..length) else {
        return Ok(Header::Incomplete);
    };
    let source = match (version & 0x0f, family) {
        // The proxy asks for itself, whether the server is there.
        (0, _) => None,
        (1, 0x11) => {
            let parts = addresses
                .first_chunk::<12>()
                .ok_or(InvalidHeader::TooShort)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *parts;
            let port = u16::from_be_bytes([high, low]);
            Some((Ipv4Addr::new(a, b, c, d), port).into())
        }
        (1, 0x21) => {
            let parts = addresses
                .first_chunk::<36>()
                .ok_or(InvalidHeader::TooShort)?;
            let (source, rest) = parts
                .split_first_chunk::<16>()
                .ok_or(InvalidHeader::TooShort)?;
            let port = match rest {
                [
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    _,
                    high,
                    low,
                    ..,
                ] => u16::from_be_bytes([*high, *low]),
                _ => return Err(InvalidHeader::TooShort),
            };
            Some((Ipv6Addr::from(*source), port).into())
        }
        // Nothing is known of the client.
        (1, 0x00) => None,
        (1, family) => return Err(InvalidHeader::Unsupported(family)),
        (command, _) => return Err(InvalidHeader::Command(command)),
    };
    Ok(Header::Present {
        source,
        bytes: length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(source: &str, bytes: usize) -> Result<Header, InvalidHeader> {
        let source = (!source.is_empty()).then(|| source.parse().unwrap());
        Ok(Header::Present { source, bytes })
    }

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [
            SIGNATURE.as_slice(),
            &[0x20 | command, family],
            &length,
            addresses,
        ]
        .concat()
    }

    #[test]
    fn a_line_says_who_is_behind_the_proxy() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 4222\r\nPING\r\n";
        assert_eq!(Header::parse(line), present("192.0.2.1:1234", 42));
        let line = b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n";
        assert_eq!(Header::parse(line), present("[2001:db8::1]:1", line.len()));
        assert_eq!(Header::parse(b"PROXY UNKNOWN a b\r\n"), present("", 19));
        for length in 0..42 {
            let cut = &b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 4222\r\n"[..length];
            assert_eq!(Header::parse(cut), Ok(Header::Incomplete), "{length}");
        }
        for (wrong, error) in [
            ("PROXY TCP4 ::1 ::1 1 2\r\n", InvalidHeader::Family),
            (
                "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
                InvalidHeader::Family,
            ),
            (
                "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
                InvalidHeader::Line,
            ),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", InvalidHeader::Line),
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 1 70000\r\n",
                InvalidHeader::Line,
            ),
        ] {
            assert_eq!(Header::parse(wrong.as_bytes()), Err(error), "{wrong}");
        }
        let long = [b"PROXY ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(Header::parse(&long), Err(InvalidHeader::LineTooLong));
    }

    #[test]
    fn the_binary_form_says_the_same() {
        let four = version_2(1, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 4, 210, 16, 126]);
        assert_eq!(Header::parse(&four), present("192.0.2.1:1234", 28));
        for length in 0..four.len() {
            assert_eq!(
                Header::parse(&four[..length]),
                Ok(Header::Incomplete),
                "{length}"
            );
        }
        let mut addresses = [0; 40];
        addresses[15] = 1;
        addresses[33] = 9;
        let six = version_2(1, 0x21, &addresses);
        assert_eq!(Header::parse(&six), present("[::1]:9", 56));
        assert_eq!(Header::parse(&version_2(0, 0, &[])), present("", 16));
        for (wrong, error) in [
            (version_2(1, 0x11, &[1, 2]), InvalidHeader::TooShort),
            (
                version_2(1, 0x31, &[0; 216]),
                InvalidHeader::Unsupported(0x31),
            ),
            (version_2(3, 0x11, &[0; 12]), InvalidHeader::Command(3)),
            (version_2(1, 0x11, &[0; 5000]), InvalidHeader::TooLong),
        ] {
            assert_eq!(Header::parse(&wrong), Err(error));
        }
        let mut other = four.clone();
        other[12] = 0x31;
        assert_eq!(Header::parse(&other), Err(InvalidHeader::Version(3)));
        other[8] = b'X';
        assert_eq!(Header::parse(&other), Err(InvalidHeader::Signature));
    }

    #[test]
    fn a_client_that_speaks_for_itself_has_no_header() {
        for bytes in [
            b"CONNECT {}".as_slice(),
            b"PING\r\n",
            b"PUB a",
            &[0x16, 3, 1],
        ] {
            assert_eq!(Header::parse(bytes), Ok(Header::Absent));
        }
        assert_eq!(Header::parse(b"P"), Ok(Header::Incomplete));
    }
}
