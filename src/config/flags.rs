//! The command line, as Go's flag package takes it: one dash or two, `-name value` or `-name=value`, the last one wins.
//!
//! [`Flags::parse`] turns that into what clap takes and clap into values; which names exist is said once, in [`Flags`].

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

/// The command line in values. `None` is a flag that was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(
    name = "nats-server",
    disable_help_flag = true,
    disable_version_flag = true
)]
#[command(args_override_self = true)]
#[allow(missing_docs, reason = "each flag is described in USAGE, for people")]
pub struct Flags {
    #[arg(long, visible_aliases = ["a", "net"], allow_hyphen_values = true)]
    pub addr: Option<String>,
    #[arg(long, visible_alias = "p", value_parser = number, allow_hyphen_values = true)]
    pub port: Option<i64>,
    #[arg(long = "server_name", visible_aliases = ["n", "name"], allow_hyphen_values = true)]
    pub server_name: Option<String>,
    #[arg(long, visible_alias = "P", allow_hyphen_values = true)]
    pub pid: Option<String>,
    #[arg(long = "http_port", visible_alias = "m", value_parser = number, allow_hyphen_values = true)]
    pub http_port: Option<i64>,
    #[arg(long = "https_port", visible_alias = "ms", value_parser = number, allow_hyphen_values = true)]
    pub https_port: Option<i64>,
    #[arg(long = "http_base_path", allow_hyphen_values = true)]
    pub http_base_path: Option<String>,
    #[arg(long, visible_alias = "c", allow_hyphen_values = true)]
    pub config: Option<String>,
    #[arg(long = "t", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub check: Option<bool>,
    #[arg(long, visible_alias = "sl", allow_hyphen_values = true)]
    pub signal: Option<String>,
    #[arg(long = "client_advertise", allow_hyphen_values = true)]
    pub client_advertise: Option<String>,
    #[arg(long = "ports_file_dir", allow_hyphen_values = true)]
    pub ports_file_dir: Option<String>,

    #[arg(long, visible_alias = "l", allow_hyphen_values = true)]
    pub log: Option<String>,
    #[arg(long, visible_alias = "T", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub logtime: Option<bool>,
    #[arg(long = "logtime_utc", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub logtime_utc: Option<bool>,
    #[arg(long, visible_alias = "s", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub syslog: Option<bool>,
    #[arg(
        long = "remote_syslog",
        visible_alias = "r",
        allow_hyphen_values = true
    )]
    pub remote_syslog: Option<String>,
    #[arg(long, visible_alias = "D", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub debug: Option<bool>,
    #[arg(long, visible_alias = "V", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub trace: Option<bool>,
    #[arg(long = "VV", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub trace_verbose: Option<bool>,
    #[arg(long = "DV", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub debug_trace: Option<bool>,
    #[arg(long = "DVV", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub debug_trace_verbose: Option<bool>,
    #[arg(long = "log_size_limit", value_parser = number, allow_hyphen_values = true)]
    pub log_size_limit: Option<i64>,
    #[arg(long = "log_level_override", allow_hyphen_values = true, action = ArgAction::Append)]
    pub log_level_override: Vec<String>,
    #[arg(long = "max_traced_msg_len", value_parser = number, allow_hyphen_values = true)]
    pub max_traced_msg_len: Option<i64>,

    #[arg(long, visible_alias = "js", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub jetstream: Option<bool>,
    #[arg(long = "store_dir", visible_alias = "sd", allow_hyphen_values = true)]
    pub store_dir: Option<String>,

    #[arg(long, allow_hyphen_values = true)]
    pub user: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pass: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub auth: Option<String>,

    #[arg(long, value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls: Option<bool>,
    #[arg(long, allow_hyphen_values = true)]
    pub tlscert: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub tlskey: Option<String>,
    #[arg(long, value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tlsverify: Option<bool>,
    #[arg(long, allow_hyphen_values = true)]
    pub tlscacert: Option<String>,

    #[arg(long, allow_hyphen_values = true)]
    pub routes: Option<String>,
    #[arg(long, visible_alias = "cluster_listen", allow_hyphen_values = true)]
    pub cluster: Option<String>,
    #[arg(long = "cluster_name", allow_hyphen_values = true)]
    pub cluster_name: Option<String>,
    #[arg(long = "cluster_advertise", allow_hyphen_values = true)]
    pub cluster_advertise: Option<String>,
    #[arg(long = "no_advertise", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_advertise: Option<bool>,
    #[arg(long = "connect_retries", value_parser = number, allow_hyphen_values = true)]
    pub connect_retries: Option<i64>,
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    pub profile: Option<i64>,

    #[arg(long, visible_alias = "h", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub help: Option<bool>,
    #[arg(long, visible_alias = "v", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub version: Option<bool>,
    #[arg(long = "help_tls", value_parser = switch, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub help_tls: Option<bool>,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Run(Box<Flags>),
    /// Check the configuration file and exit.
    Check(Box<Flags>),
    /// Send a signal to a running server: `<signal>[=<pid>]`.
    Signal(String),
    /// Print the version and exit.
    Version,
    /// Print the usage and exit.
    Help,
    /// Print what there is of TLS and exit.
    HelpTls,
}

/// A command line that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// No flag has this name.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The flag needs a value and the command line ends.
    #[error("flag needs an argument: -{0}")]
    MissingValue(String),
    /// The flag's value has another type.
    #[error("invalid value {value:?} for flag -{flag}: {reason}")]
    InvalidValue {
        /// The flag as written.
        flag: String,
        /// The value as written.
        value: String,
        /// Why not.
        reason: String,
    },
    /// A dash and nothing after it that could be a flag.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// An argument that is no flag.
    #[error("unrecognized command: {0:?}")]
    UnknownCommand(String),
}

impl Command {
    /// What these arguments ask for; the program's own name is not among them.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, FlagError> {
        let (flags, words) = Flags::parse_words(arguments)?;
        if flags.version == Some(true) {
            return Ok(Command::Version);
        }
        if flags.help == Some(true) {
            return Ok(Command::Help);
        }
        if flags.help_tls == Some(true) {
            return Ok(Command::HelpTls);
        }
        match words.first().map(String::as_str) {
            Some("version") => return Ok(Command::Version),
            Some("help") => return Ok(Command::Help),
            Some(word) => return Err(FlagError::UnknownCommand(word.to_owned())),
            None => {}
        }
        if let Some(signal) = flags.signal.clone().filter(|signal| !signal.is_empty()) {
            return Ok(Command::Signal(signal));
        }
        Ok(match flags.check {
            Some(true) => Command::Check(Box::new(flags)),
            _ => Command::Run(Box::new(flags)),
        })
    }
}

impl Flags {
    /// The flags, and the words after them.
    pub fn parse_words(
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<(Self, Vec<String>), FlagError> {
        let command = Flags::command();
        let mut arguments = arguments.into_iter();
        let mut normal = vec![String::from("nats-server")];
        let mut words = Vec::new();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                words.push(argument);
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            if flag.is_empty() {
                break;
            }
            if flag.starts_with('-') || flag.starts_with('=') {
                return Err(FlagError::Syntax(argument));
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let known = find(&command, name).ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
            let takes_value = known
                .get_num_args()
                .is_none_or(|count| count.min_values() > 0);
            let value = match value {
                Some(value) => value,
                None if takes_value => arguments
                    .next()
                    .ok_or_else(|| FlagError::MissingValue(name.to_owned()))?,
                None => "true".to_owned(),
            };
            check(known, name, &value)?;
            normal.push(format!("--{name}={value}"));
        }
        words.extend(arguments);
        let flags = command
            .try_get_matches_from(normal)
            .and_then(|matches| Flags::from_arg_matches(&matches))
            .map_err(|error| FlagError::Syntax(error.to_string()))?;
        Ok((flags, words))
    }
}

fn find<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|argument| {
        argument
            .get_long_and_visible_aliases()
            .is_some_and(|names| names.contains(&name))
    })
}

/// Values are checked here so that the complaint names the flag as it was written.
fn check(argument: &clap::Arg, flag: &str, value: &str) -> Result<(), FlagError> {
    let kind = argument.get_value_parser().type_id();
    let result = if kind == std::any::TypeId::of::<i64>() {
        number(value).map(drop)
    } else if kind == std::any::TypeId::of::<bool>() {
        switch(value).map(drop)
    } else {
        Ok(())
    };
    result.map_err(|reason| FlagError::InvalidValue {
        flag: flag.to_owned(),
        value: value.to_owned(),
        reason,
    })
}

/// An integer as Go reads one: decimal, or hexadecimal, octal and binary by prefix.
fn number(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = if let Some(digits) = lower.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (digits, 2)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (digits, 8)
    } else {
        match lower.strip_prefix('0').filter(|rest| !rest.is_empty()) {
            Some(digits) => (digits, 8),
            None => (lower.as_str(), 10),
        }
    };
    if digits.starts_with(['+', '-']) {
        return Err("parse error".into());
    }
    i64::from_str_radix(digits, radix)
        .map(|number| if negative { -number } else { number })
        .map_err(|_| "parse error".to_owned())
}

/// A boolean as Go reads one.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("parse error".into()),
    }
}

/// What `--help` prints.
pub const USAGE: &str = "\
Usage: nats-server [options]

Server:
  -a,  --addr, --net <host>            Host to bind for clients (default 0.0.0.0)
  -p,  --port <port>                   Port for clients (default 4222, -1 for any free one)
  -n,  --name, --server_name <name>    Name of this server (default: its id)
  -c,  --config <file>                 Configuration file
  -t                                   Check the configuration file and exit
  -P,  --pid <file>                    File that receives the process id
       --ports_file_dir <dir>          Directory that receives a file with the ports in use
  -sl, --signal <signal>[=<pid>]       Send a signal to a server: stop, quit, term, reopen, ldm, reload;
                                       <pid> is a process id, the start of one and '*', or a pid file
       --client_advertise <address>    Address that clients are told

Monitoring:
  -m,  --http_port <port>              Port for monitoring over HTTP
  -ms, --https_port <port>             Port for monitoring over HTTPS, with the certificate for clients
       --http_base_path <path>         Path in front of every monitoring endpoint
       --profile <port>                Port for profiling over HTTP

Logging:
  -l,  --log <file>                    Log to a file instead of standard error
  -T,  --logtime                       Date and time in front of each line (default true)
       --logtime_utc                   Date and time in UTC
  -D,  --debug                         Log what helps to find a fault
  -V,  --trace                         Log the protocol itself
  -VV                                  Log the protocol of the system account as well
  -DV                                  -D and -V
  -DVV                                 -D and -VV
       --log_size_limit <bytes>        Put the log file aside when it is larger
       --max_traced_msg_len <bytes>    How much of a traced message is shown (default: all)
  -s,  --syslog                        Log to the syslog of this machine
  -r,  --remote_syslog <address>       Log to another: udp://host:port, tcp://host:port, unix://path
       --log_level_override <part>=<level>   Level of a part of the server (error, warn, info, debug, trace),
                                       as connection=debug; may be repeated

JetStream:
  -js, --jetstream                     Enable JetStream
  -sd, --store_dir <dir>               Directory that streams are stored in

Authorization:
       --user <user>                   User that clients must name
       --pass <password>               Password of that user
       --auth <token>                  Token that clients must present

TLS:
       --tls                           Encrypt client connections
       --tlscert <file>                Certificate of this server, in PEM
       --tlskey <file>                 Key of the certificate, in PEM
       --tlsverify                     Clients must show certificates
       --tlscacert <file>              Authorities that sign their certificates, in PEM
       --help_tls                      More about TLS

Cluster:
       --routes <urls>                 Servers of the cluster to connect to, separated by commas
       --cluster, --cluster_listen <url>   Where servers of the cluster connect to
       --cluster_name <name>           Name of the cluster (default: made up)
       --cluster_advertise <address>   Address that other servers are told
       --no_advertise                  Do not tell clients of the other servers
       --connect_retries <number>      Dials of a server that another one told of

  -h,  --help                          Show this
  -v,  --version                       Show the version
";

/// What there is of TLS.
pub fn tls_usage() -> String {
    use super::options::tls::{CIPHER_SUITES, CURVES};
    let list = |names: &[&str]| format!("    {}\n", names.join("\n    "));
    format!(
        "TLS configuration is specified in the tls block of the configuration file:\n\n\
         tls {{\n    cert_file:     \"./certs/server-cert.pem\"\n    key_file:      \"./certs/server-key.pem\"\n    \
         ca_file:       \"./certs/ca.pem\"\n    verify:        true    # or verify_and_map: clients are the users their certificates name\n    \
         timeout:       2       # seconds for a handshake\n    min_version:   \"1.2\"\n}}\n\n\
         Cipher suites for cipher_suites; all of them without it (those of TLS 1.3 are always offered):\n{}\n\
         Curves for curve_preferences; all of them, in this order, without it:\n{}",
        list(&CIPHER_SUITES),
        list(&CURVES),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, FlagError> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    fn flags(line: &str) -> Flags {
        match parse(line) {
            Ok(Command::Run(flags)) => *flags,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn one_dash_and_two_are_the_same_and_a_value_follows_equals_or_a_blank() {
        for line in [
            "-p 4333 -js -sd /x -m 8333",
            "--p=4333 --js --sd=/x --m=8333",
            "-port=4333 -jetstream -store_dir /x --http_port 8333",
            "--port 4333 --jetstream=true --store_dir=/x -http_port=8333",
            "-p 1 -p 4333 -js=false -js -sd=/y -sd=/x -m=1 -m=8333",
        ] {
            let flags = flags(line);
            assert_eq!(flags.port, Some(4333), "{line}");
            assert_eq!(flags.jetstream, Some(true), "{line}");
            assert_eq!(flags.store_dir.as_deref(), Some("/x"), "{line}");
            assert_eq!(flags.http_port, Some(8333), "{line}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash_or_hold_an_equals_sign() {
        let flags = flags("-p -1 --pass -x -n=a=b -a :: --user=");
        assert_eq!(flags.port, Some(-1));
        assert_eq!(flags.pass.as_deref(), Some("-x"));
        assert_eq!(flags.server_name.as_deref(), Some("a=b"));
        assert_eq!(flags.addr.as_deref(), Some("::"));
        assert_eq!(flags.user.as_deref(), Some(""));
    }

    #[test]
    fn the_logging_combinations_are_flags_of_their_own() {
        assert_eq!(flags("-DV").debug_trace, Some(true));
        assert_eq!(flags("-DVV").debug_trace_verbose, Some(true));
        assert_eq!(flags("-VV").trace_verbose, Some(true));
        assert_eq!(flags("-D -V=false").trace, Some(false));
        assert_eq!(flags("-T=0").logtime, Some(false));
    }

    #[test]
    fn commands_are_told_apart() {
        assert_eq!(parse("-v"), Ok(Command::Version));
        assert_eq!(parse("--version"), Ok(Command::Version));
        assert_eq!(parse("version"), Ok(Command::Version));
        assert_eq!(parse("-p 1 help"), Ok(Command::Help));
        assert_eq!(parse("-h"), Ok(Command::Help));
        assert_eq!(parse("--help_tls"), Ok(Command::HelpTls));
        assert!(tls_usage().contains("CurveP384") && tls_usage().contains("cert_file"));
        assert_eq!(
            parse("--signal ldm=123"),
            Ok(Command::Signal("ldm=123".into()))
        );
        assert_eq!(parse("-sl=reload"), Ok(Command::Signal("reload".into())));
        assert!(matches!(parse("-t -c x"), Ok(Command::Check(_))));
        assert!(matches!(parse("-- "), Ok(Command::Run(_))));
    }

    #[test]
    fn what_is_no_flag_is_refused() {
        let unknown = |name: &str| Err(FlagError::Unknown(name.into()));
        assert_eq!(parse("--nonsense"), unknown("nonsense"));
        assert_eq!(parse("-px"), unknown("px"));
        assert_eq!(parse("-store-dir /x"), unknown("store-dir"));
        assert_eq!(parse("-p"), Err(FlagError::MissingValue("p".into())));
        assert_eq!(parse("run"), Err(FlagError::UnknownCommand("run".into())));
        assert!(matches!(parse("-p x"), Err(FlagError::InvalidValue { .. })));
        assert!(matches!(
            parse("-D=maybe"),
            Err(FlagError::InvalidValue { .. })
        ));
        assert!(matches!(parse("---p 1"), Err(FlagError::Syntax(_))));
    }

    #[test]
    fn completions_name_every_flag() {
        for (shell, text) in [
            (
                "bash",
                include_str!("../../docs/deploy/completions/nats-server.bash"),
            ),
            (
                "zsh",
                include_str!("../../docs/deploy/completions/_nats-server"),
            ),
            (
                "fish",
                include_str!("../../docs/deploy/completions/nats-server.fish"),
            ),
        ] {
            for argument in Flags::command().get_arguments() {
                for name in argument.get_long_and_visible_aliases().unwrap_or_default() {
                    let is_named = text
                        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .any(|word| word == name);
                    assert!(is_named, "{shell}: {name}");
                }
            }
        }
    }

    #[test]
    fn the_usage_names_every_flag() {
        for argument in Flags::command().get_arguments() {
            for name in argument.get_long_and_visible_aliases().unwrap_or_default() {
                let named = [
                    format!("-{name} "),
                    format!("-{name},"),
                    format!("-{name}\n"),
                ]
                .iter()
                .any(|written| USAGE.contains(written.as_str()));
                assert!(named, "{name}");
            }
        }
    }
}
