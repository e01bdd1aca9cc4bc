//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::Bench;

/// Looks into, checks and exports the files of a nats-server store, brings other stores over, and measures servers.
#[derive(Debug, Parser)]
#[command(name = "nats-tool", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The files that hold streams
    #[command(subcommand)]
    Filestore(Filestore),
    /// Load servers and compare them
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Subcommand)]
pub enum Filestore {
    /// Show streams, blocks and journal segments
    Inspect(Inspect),
    /// Check every checksum, and indexes against records
    ///
    /// Exit status: 0 when all is well, 1 when something is damaged, 2 when the check could not be made.
    Verify(Verify),
    /// Write the live messages to standard output
    Cat(Cat),
    /// Bring over the streams and consumers of a stopped nats-server's own store
    ///
    /// Streams that are there already are left as they are: after an interruption the same command goes on. Exit status: 0 when
    /// everything is there, 1 when streams were not imported, 2 when nothing could be done.
    Import(Import),
    /// Write a stream with its consumers as the archive that `nats stream restore` takes, for either server
    Export(Export),
}

#[derive(Debug, Args)]
pub struct Export {
    /// The store that has it. Its server must not run
    #[arg(long)]
    pub from: PathBuf,
    /// Which stream: its name, `account/name` or its storage id
    #[arg(long)]
    pub stream: String,
    /// The archive to write; in a directory that is there, `stream.tar.s2` with a `backup.json` beside it, as the stock tools have them
    #[arg(long)]
    pub to: PathBuf,
    /// The passphrase of an encrypted store. Better in NATS_JETSTREAM_KEY or a file
    #[arg(long, conflicts_with = "key_file")]
    pub key: Option<String>,
    /// A file whose first line is the passphrase
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// The passphrase before the last change
    #[arg(long)]
    pub previous_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct Import {
    /// The other server's `store_dir`, or the `jetstream` directory in it. Nothing is changed there
    #[arg(long)]
    pub from: PathBuf,
    /// The `store_dir` of the server that is to have the streams. It must not run
    #[arg(long)]
    pub to: PathBuf,
    /// Only this stream: its name or `account/name`
    #[arg(long)]
    pub stream: Option<String>,
    /// Leave out records that are damaged and name them, instead of not importing their stream
    #[arg(long)]
    pub skip_damaged: bool,
    #[command(flatten)]
    pub from_keys: FromKeys,
    #[command(flatten)]
    pub to_keys: ToKeys,
}

/// How the store is encrypted that is read.
#[derive(Debug, Args)]
pub struct FromKeys {
    /// The key of the other server, as `key` in its `jetstream` block; the cipher is found out
    #[arg(long, env = "NATS_IMPORT_FROM_KEY", hide_env_values = true)]
    pub from_key: Option<String>,
    /// Its `prev_encryption_key`
    #[arg(long, env = "NATS_IMPORT_FROM_PREVIOUS_KEY", hide_env_values = true)]
    pub from_previous_key: Option<String>,
}

/// How the store is encrypted that is written.
#[derive(Debug, Args)]
pub struct ToKeys {
    /// The key under which the new store is encrypted, as `key` in the server's `jetstream` block
    #[arg(long, env = "NATS_JETSTREAM_KEY", hide_env_values = true)]
    pub to_key: Option<String>,
    /// Its `prev_encryption_key`
    #[arg(long, env = "NATS_JETSTREAM_PREVIOUS_KEY", hide_env_values = true)]
    pub to_previous_key: Option<String>,
    /// The cipher of the new store
    #[arg(long, value_enum, default_value = "chacha")]
    pub to_cipher: ImportCipher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportCipher {
    Chacha,
    Aes,
}

#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    pub scope: Scope,
    /// List records too
    #[arg(long)]
    pub records: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub scope: Scope,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Cat {
    #[command(flatten)]
    pub scope: Scope,
    /// Write each payload as it is, followed by a line feed, instead of a line of JSON per message
    #[arg(long)]
    pub raw: bool,
}

/// What is looked at, and with which key.
#[derive(Debug, Args)]
pub struct Scope {
    /// A store directory, the directory of one stream, or one block file
    pub path: PathBuf,
    /// Only this stream: its name, `account/name` or its storage id
    #[arg(long)]
    pub stream: Option<String>,
    /// Only the block with this number
    #[arg(long)]
    pub block: Option<u64>,
    /// Only this sequence, or a range such as 100-200
    #[arg(long)]
    pub seq: Option<Sequences>,
    /// The passphrase of an encrypted store, as `key` in the server's `jetstream` block. Better kept out of sight: in a file, or in
    /// the environment variable NATS_JETSTREAM_KEY
    #[arg(long, conflicts_with = "key_file")]
    pub key: Option<String>,
    /// A file whose first line is the passphrase
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// The passphrase before the last change (`prev_encryption_key`), for what is still encrypted under it
    #[arg(long)]
    pub previous_key: Option<String>,
}

/// A range of sequences, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequences {
    pub first: u64,
    pub last: u64,
}

impl Sequences {
    pub fn contains(&self, sequence: u64) -> bool {
        (self.first..=self.last).contains(&sequence)
    }

    pub fn overlaps(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }
}

impl FromStr for Sequences {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("`{text}` is not a sequence"))
        };
        let (first, last) = match text.split_once('-') {
            None => (number(text)?, number(text)?),
            Some((first, "")) => (number(first)?, u64::MAX),
            Some((first, last)) => (number(first)?, number(last)?),
        };
        if first > last {
            return Err("the range ends before it begins".to_owned());
        }
        Ok(Self { first, last })
    }
}

impl Scope {
    pub fn wants_block(&self, number: u64) -> bool {
        self.block.is_none_or(|wanted| wanted == number)
    }

    pub fn wants_sequence(&self, sequence: u64) -> bool {
        self.seq.is_none_or(|wanted| wanted.contains(sequence))
    }

    pub fn wants_range(&self, range: Option<(u64, u64)>) -> bool {
        match (self.seq, range) {
            (Some(wanted), Some((first, last))) => wanted.overlaps(first, last),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sequences_are_read() {
        let range = |first, last| Ok(Sequences { first, last });
        assert_eq!("7".parse(), range(7, 7));
        assert_eq!("7-9".parse(), range(7, 9));
        assert_eq!("7-".parse(), range(7, u64::MAX));
        assert!("9-7".parse::<Sequences>().is_err());
        assert!("x".parse::<Sequences>().is_err());
    }
}
