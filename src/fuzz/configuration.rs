//! What an operator writes.

use std::io;
use std::path::Path;

use super::Target;
use crate::config::parser::{Surroundings, parse_text};
use crate::config::{Command, Options, duration};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "configuration",
        run: configuration,
        seeds: configurations,
    },
    Target {
        name: "command_line",
        run: command_line,
        seeds: command_lines,
    },
];

/// No files and no environment.
struct Nothing;

impl Surroundings for Nothing {
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn configurations() -> Vec<Vec<u8>> {
    [
        &b"port: 4222 # c\nserver_name = \"n\\x41\"\njetstream { store_dir: '/x', max_mem: 64MB, key: k, cipher: aes }\n"[..],
        b"authorization {\n users [ {user: a, password: $2a$11$abc}\n {user: b, permissions: {publish: [\"a.>\"]}} ]\n timeout: 0.5 }\n",
        b"SIZE: 1k\nmax_payload: $SIZE; when: 2016-05-04T18:53:41Z\nbig (\nx\n)\ninclude 'x.conf'\n",
        b"listen: \"127.0.0.1:-1\"\nhttp: 8222\nping_interval: \"2m\"\nlogtime: true\nmax_connections: 10\n",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn configuration(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = parse_text(text, &Nothing);
        let _ = Options::from_text(text, &Nothing);
        let _ = duration::parse_nanoseconds(text);
    }
}

fn command_lines() -> Vec<Vec<u8>> {
    [
        &b"-js -p 4222 -a=127.0.0.1 --store_dir /x -m -1 -DV"[..],
        b"--signal reload=12 --user a --pass b --auth c -t -c x.conf",
        b"--help -v",
    ]
    .map(<[u8]>::to_vec)
    .into()
}

fn command_line(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = Command::parse(text.split(' ').map(str::to_owned));
    }
}
