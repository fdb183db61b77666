//! Every setting, with its flag, variables, default and meaning; the only reader of our environment.
//!
//! Checked whole at start: a bad value ends the program with exit code 2 and names its setting. Services get values,
//! never the environment; tests build a [`Config`] with [`Config::parse_from`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use http::Uri;

use crate::platform::users;

/// Port of the toolbox API.
pub const PORT: u16 = 2280;

/// Serves the toolbox API of a sandbox: files, commands, sessions, terminals and more over HTTP and WebSocket.
///
/// Without DAYTONA_SANDBOX_ID it runs stand-alone: it listens on 127.0.0.1:2280 and also answers the few platform
/// calls of an SDK at /api. Words after the options are run as the entrypoint command; `entrypoint logs` alone prints
/// the log of that command, as far as it goes or, with --no-follow, as far as it is there.
#[derive(Debug, Clone, Parser)]
#[command(name = "toolboxd", version, about, long_about, max_term_width = 100, args_override_self = true)]
pub struct Config {
    /// Command to run beside the daemon, as an image's entrypoint would.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub entrypoint: Vec<OsString>,

    /// Ask the daemon that serves at this address whether it answers, then exit with 0 or 1: an image's health check.
    #[arg(long)]
    pub health: bool,

    /// Copy this program to a file, atomically, and exit: for images that have nothing else to copy it with.
    #[arg(long, value_name = "FILE")]
    pub install: Option<PathBuf>,

    /// The kernel of a microVM starts the daemon as pid 1: mount what is missing of /proc, /sys, /dev, /run and /tmp, and
    /// restart the machine, which ends it, when the daemon has ended.
    #[arg(
        long,
        env = "TOOLBOXD_MICROVM",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub microvm: bool,

    /// Address to serve the API on. Default: all interfaces, IPv4 and IPv6; stand-alone 127.0.0.1:2280.
    #[arg(long, env = "TOOLBOXD_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// Token that every request except /version must carry. Only as a variable, because arguments show in `ps`; it is
    /// removed from the environment at once.
    #[arg(skip)]
    pub token: Option<Token>,

    /// The environment that processes inherit: ours, without the token.
    #[arg(skip)]
    pub environment: Environment,

    /// File that holds the token, as a secret mount gives it; surrounding white space does not count.
    #[arg(long, env = "TOOLBOXD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Identity of the sandbox; when set, a platform is around it. Stand-alone the host name is used.
    #[arg(long, env = "TOOLBOXD_SANDBOX_ID", value_name = "ID")]
    pub sandbox_id: Option<String>,

    /// User that the desktop runs for, as the platform names it.
    #[arg(long, env = "TOOLBOXD_SANDBOX_USER", value_name = "USER")]
    pub sandbox_user: Option<String>,

    /// Snapshot that the sandbox was made from: a telemetry label.
    #[arg(long, env = "TOOLBOXD_SANDBOX_SNAPSHOT", value_name = "NAME")]
    pub sandbox_snapshot: Option<String>,

    /// Organisation that the sandbox belongs to: a telemetry label.
    #[arg(long, env = "TOOLBOXD_ORGANIZATION_ID", value_name = "ID")]
    pub organization_id: Option<String>,

    /// Region that the sandbox runs in: a telemetry label.
    #[arg(long, env = "TOOLBOXD_REGION_ID", value_name = "ID")]
    pub region_id: Option<String>,

    /// Change to the home directory at start, and so make it the base of relative paths.
    #[arg(
        long,
        env = "TOOLBOXD_USER_HOME_AS_WORKDIR",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub user_home_as_workdir: bool,

    /// Time between SIGTERM and SIGKILL when processes are stopped; at least 1s.
    #[arg(
        long,
        env = "TOOLBOXD_TERMINATION_GRACE_PERIOD",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = at_least_a_second
    )]
    pub termination_grace_period: Duration,

    /// How often to look whether stopped processes have ended, on kernels that cannot tell; at least 1ms.
    #[arg(
        long,
        env = "TOOLBOXD_TERMINATION_CHECK_INTERVAL",
        value_name = "DURATION",
        default_value = "100ms",
        value_parser = at_least_a_millisecond
    )]
    pub termination_check_interval: Duration,

    /// Time for requests and streams to end after SIGTERM, before they are cut.
    #[arg(
        long,
        env = "TOOLBOXD_SHUTDOWN_GRACE_PERIOD",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_grace_period: Duration,

    /// Longest wait for a byte from a remote of git; at least 1s. There is no limit on the whole.
    #[arg(
        long,
        env = "TOOLBOXD_GIT_STALL_TIMEOUT",
        value_name = "DURATION",
        default_value = "2m",
        value_parser = at_least_a_second
    )]
    pub git_stall_timeout: Duration,

    /// Connections served at a time; more wait to be accepted.
    #[arg(long, env = "TOOLBOXD_MAX_CONNECTIONS", value_name = "COUNT", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// Output kept of one command, in memory and in an unlinked temporary file; of more, the middle is dropped and the
    /// result says so.
    #[arg(
        long,
        env = "TOOLBOXD_MAX_OUTPUT",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size_of_a_mebibyte_or_more
    )]
    pub max_output: ByteSize,

    /// Output kept of one terminal, in memory, for viewers that are slow or come back; of more, the oldest is dropped.
    #[arg(
        long,
        env = "TOOLBOXD_TERMINAL_SCROLLBACK",
        value_name = "SIZE",
        default_value = "2MiB",
        value_parser = size_of_a_mebibyte_or_more
    )]
    pub terminal_scrollback: ByteSize,

    /// Give new files and directories that root writes the owner of the directory they are in.
    #[arg(
        long,
        env = "TOOLBOXD_INHERIT_OWNER",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub inherit_owner: bool,

    /// Who may call /init and /env.
    #[arg(long, env = "TOOLBOXD_CONTROL_FROM", value_name = "WHO", default_value = "anyone")]
    pub control_from: ControlFrom,

    /// Form of the preview links that SDKs get from a stand-alone daemon: a path of its own address, which every program
    /// can fetch, or a host name below localhost, which browsers know and which apps with absolute paths need.
    #[arg(long, env = "TOOLBOXD_PREVIEW_LINKS", value_name = "FORM", default_value = "path")]
    pub preview_links: PreviewLinks,

    /// Directory that screen recordings go to. Default: .daytona/recordings in the home directory.
    #[arg(long, env = "TOOLBOXD_RECORDINGS_DIR", value_name = "DIRECTORY")]
    pub recordings_dir: Option<PathBuf>,

    /// Lowest level of messages in the log.
    #[arg(
        long,
        env = "TOOLBOXD_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        ignore_case = true
    )]
    pub log_level: LogLevel,

    /// Shape of the log's lines.
    #[arg(long, env = "TOOLBOXD_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// File that the log goes to as well, beside stderr.
    #[arg(long, env = "TOOLBOXD_DAEMON_LOG_FILE_PATH", value_name = "FILE")]
    pub daemon_log_file_path: Option<PathBuf>,

    /// Size of the log file, in megabytes, at which a new one is begun.
    #[arg(long, env = "TOOLBOXD_DAEMON_LOG_MAX_SIZE_MB", value_name = "MEGABYTES", default_value = "100",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub daemon_log_max_size_mb: u32,

    /// Old log files kept.
    #[arg(long, env = "TOOLBOXD_DAEMON_LOG_MAX_BACKUPS", value_name = "COUNT", default_value = "5",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub daemon_log_max_backups: u32,

    /// Days that old log files are kept.
    #[arg(long, env = "TOOLBOXD_DAEMON_LOG_MAX_AGE_DAYS", value_name = "DAYS", default_value = "14",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub daemon_log_max_age_days: u32,

    /// Compress old log files.
    #[arg(long, env = "TOOLBOXD_DAEMON_LOG_COMPRESS", value_name = "BOOL", default_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub daemon_log_compress: bool,

    /// Base URL, http or https, that traces, logs and metrics are sent to as OTLP over HTTP once /init was called; none
    /// switches telemetry off.
    #[arg(long, env = "TOOLBOXD_OTEL_ENDPOINT", value_name = "URL", value_parser = http_url)]
    pub otel_endpoint: Option<Uri>,

    /// More telemetry labels, as key=value pairs with commas between; malformed pairs are skipped.
    #[arg(long, env = "TOOLBOXD_SANDBOX_OTEL_EXTRA_LABELS", value_name = "LABELS")]
    pub sandbox_otel_extra_labels: Option<String>,

    /// X display of the desktop; one that runs already is used as it is.
    #[arg(long, env = "TOOLBOXD_DISPLAY", value_name = "DISPLAY", default_value = ":0")]
    pub display: String,

    /// Width and height of the desktop's screen, in pixels, when the daemon starts it.
    #[arg(long, env = "TOOLBOXD_VNC_RESOLUTION", value_name = "WxH", default_value = "1024x768",
          value_parser = resolution)]
    pub vnc_resolution: (u16, u16),

    /// Port of the desktop's VNC server, on loopback only.
    #[arg(long, env = "TOOLBOXD_VNC_PORT", value_name = "PORT", default_value = "5901",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub vnc_port: u16,

    /// Port of the desktop's live view in the browser.
    #[arg(long, env = "TOOLBOXD_NO_VNC_PORT", value_name = "PORT", default_value = "6080",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub no_vnc_port: u16,

    /// What USER is for the desktop's programs. Default: that of --sandbox-user, else root.
    #[arg(long, env = "TOOLBOXD_VNC_USER", value_name = "USER")]
    pub vnc_user: Option<String>,

    /// Time without any input after which a key that is held down on the desktop is released.
    #[arg(
        long,
        env = "TOOLBOXD_HELD_KEY_TIMEOUT",
        value_name = "DURATION",
        default_value = "1m",
        value_parser = humantime::parse_duration
    )]
    pub held_key_timeout: Duration,

    /// Read x, y, width and height of a region screenshot in the wrong order in which the TypeScript and Ruby SDKs up to
    /// 0.218 send them, when one of them calls.
    #[arg(long, env = "TOOLBOXD_FIX_SWAPPED_REGIONS", value_name = "BOOL", default_value = "false",
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub fix_swapped_regions: bool,

    /// Serve the API's description at /docs and /openapi.json.
    #[arg(long, env = "TOOLBOXD_DOCS", value_name = "BOOL", default_value = "true",
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
    pub docs: bool,
}

/// Names and values, as the operating system has them.
pub type Environment = BTreeMap<OsString, OsString>;

/// Who may call the endpoints that change the daemon itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ControlFrom {
    /// Whoever reaches the API.
    Anyone,
    /// Not connections from inside the sandbox, over loopback.
    Outside,
}

/// Form of preview links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PreviewLinks {
    /// `http://127.0.0.1:2280/proxy/3000`
    Path,
    /// `http://3000-box.localhost:2280`
    Host,
}

/// Lowest level of messages in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Things start and stop.
    Info,
    /// Odd, but it went on.
    Warn,
    /// Someone should look.
    Error,
}

/// Shape of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the secret; nothing is left of an empty one.
    pub fn new(secret: &str) -> Option<Self> {
        let secret = secret.trim();
        (!secret.is_empty()).then(|| Self(secret.to_owned()))
    }

    /// A new secret of 256 random bits.
    pub fn random() -> Self {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).expect("the kernel has random bytes");
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The secret itself, for comparing and for telling the user at start.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Our own variable for the token.
pub const TOKEN_VARIABLE: &str = "TOOLBOXD_TOKEN";

/// The original daemon's variables, by the setting they stand for. Our own name wins where both are set.
const DROP_IN: &[(&str, &str)] = &[
    ("sandbox_id", "DAYTONA_SANDBOX_ID"),
    ("sandbox_user", "DAYTONA_SANDBOX_USER"),
    ("sandbox_snapshot", "DAYTONA_SANDBOX_SNAPSHOT"),
    ("organization_id", "DAYTONA_ORGANIZATION_ID"),
    ("region_id", "DAYTONA_REGION_ID"),
    ("user_home_as_workdir", "DAYTONA_USER_HOME_AS_WORKDIR"),
    ("termination_grace_period", "DAYTONA_TERMINATION_GRACE_PERIOD"),
    ("termination_check_interval", "DAYTONA_TERMINATION_CHECK_INTERVAL"),
    ("recordings_dir", "DAYTONA_RECORDINGS_DIR"),
    ("log_level", "LOG_LEVEL"),
    ("daemon_log_file_path", "DAYTONA_DAEMON_LOG_FILE_PATH"),
    ("daemon_log_max_size_mb", "DAYTONA_DAEMON_LOG_MAX_SIZE_MB"),
    ("daemon_log_max_backups", "DAYTONA_DAEMON_LOG_MAX_BACKUPS"),
    ("daemon_log_max_age_days", "DAYTONA_DAEMON_LOG_MAX_AGE_DAYS"),
    ("daemon_log_compress", "DAYTONA_DAEMON_LOG_COMPRESS"),
    ("otel_endpoint", "DAYTONA_OTEL_ENDPOINT"),
    ("sandbox_otel_extra_labels", "DAYTONA_SANDBOX_OTEL_EXTRA_LABELS"),
    ("display", "DISPLAY"),
    ("vnc_resolution", "VNC_RESOLUTION"),
    ("vnc_port", "VNC_PORT"),
    ("no_vnc_port", "NO_VNC_PORT"),
    ("vnc_user", "VNC_USER"),
];

impl Config {
    /// Reads the program's own arguments and environment.
    ///
    /// # Errors
    /// As [`Config::parse_from`].
    pub fn from_process() -> Result<Self, clap::Error> {
        Self::parse_from(std::env::args_os(), std::env::vars_os().collect())
    }

    /// Reads arguments, which begin with the program's name, and environment.
    ///
    /// # Errors
    /// What clap says of a bad value; [`clap::Error::exit_code`] is the program's exit code.
    pub fn parse_from(
        arguments: impl IntoIterator<Item = OsString>,
        mut environment: Environment,
    ) -> Result<Self, clap::Error> {
        // Images often set variables to nothing: an empty one is an unset one.
        let variable =
            |name: &str| environment.get(OsStr::new(name)).filter(|value| !value.is_empty()).cloned();
        let mut command = Self::command_with(&variable);
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut config = Self::from_arg_matches(&matches)?;
        let from_variable = variable(TOKEN_VARIABLE).map(|secret| secret.to_string_lossy().into_owned());
        config.token = match (&from_variable, &config.token_file) {
            (Some(secret), _) => Token::new(secret),
            (None, Some(file)) => {
                let secret = std::fs::read_to_string(file).map_err(|error| {
                    let text = format!("--token-file {}: {error}", file.display());
                    command.error(clap::error::ErrorKind::ValueValidation, text)
                })?;
                let token = Token::new(&secret);
                if token.is_none() {
                    let text = format!("--token-file {}: the file is empty", file.display());
                    return Err(command.error(clap::error::ErrorKind::ValueValidation, text));
                }
                token
            }
            (None, None) => None,
        };
        if variable("ENVIRONMENT").is_some_and(|value| value == "production")
            && variable("TOOLBOXD_DOCS").is_none()
        {
            config.docs = false;
        }
        environment.remove(OsStr::new(TOKEN_VARIABLE));
        config.environment = environment;
        Ok(config)
    }

    /// The command with, for each setting, the variable that counts: ours, else the original daemon's.
    fn command_with(variable: &impl Fn(&str) -> Option<OsString>) -> clap::Command {
        let mut command = Self::command();
        let names: Vec<String> =
            command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
        for name in names {
            let other = DROP_IN.iter().find(|(setting, _)| *setting == name).map(|(_, other)| *other);
            command = command.mut_arg(&name, |mut argument| {
                argument = argument.hide_env(true);
                let Some(own) = argument.get_env().map(|own| own.to_string_lossy().into_owned()) else {
                    return argument;
                };
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let help = match other {
                    Some(other) => format!("{help} [env: {own}, {other}]"),
                    None => format!("{help} [env: {own}]"),
                };
                let chosen = match other {
                    Some(other) if variable(&own).is_none() && variable(other).is_some() => other.to_owned(),
                    _ => own,
                };
                let argument = argument.help(&help).long_help(&help).env(None::<&'static str>);
                match variable(&chosen) {
                    Some(value) => argument.default_value(value),
                    None => argument,
                }
            });
        }
        command.after_help(format!(
            "The token comes from the variable {TOKEN_VARIABLE} or from --token-file. Durations have a unit (500ms, 5s, \
             2m), sizes too (64KiB, 1GiB). ENVIRONMENT=production hides /docs."
        ))
    }

    /// The home directory: `HOME`, else the password database's word for our user, else the root.
    pub fn home(&self) -> PathBuf {
        let home =
            self.environment.get(OsStr::new("HOME")).filter(|home| !home.is_empty()).map(PathBuf::from);
        home.or_else(|| users::user_by_id(rustix::process::geteuid().as_raw()).map(|user| user.home))
            .unwrap_or_else(|| PathBuf::from("/"))
    }

    /// Where the user's own settings of programs are, when it is not `.config` in the home directory:
    /// `XDG_CONFIG_HOME`, which only counts when it is absolute.
    pub fn xdg_config_home(&self) -> Option<PathBuf> {
        let set = self.environment.get(OsStr::new("XDG_CONFIG_HOME")).map(PathBuf::from);
        set.filter(|path| path.is_absolute())
    }

    /// Where temporary files go: `TMPDIR`, else `/tmp`.
    pub fn temporary_directory(&self) -> PathBuf {
        let set = self.environment.get(OsStr::new("TMPDIR")).filter(|path| !path.is_empty());
        set.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }

    /// The program is to print the entrypoint's log instead of serving: whether it follows it.
    pub fn prints_entrypoint(&self) -> Option<bool> {
        let words: Vec<&str> = self.entrypoint.iter().map(|word| word.to_str().unwrap_or_default()).collect();
        match words[..] {
            ["entrypoint", "logs"] | ["entrypoint", "logs", "--follow"] => Some(true),
            ["entrypoint", "logs", "--no-follow"] => Some(false),
            _ => None,
        }
    }

    /// No platform is around this daemon.
    pub fn is_stand_alone(&self) -> bool {
        self.sandbox_id.is_none()
    }

    /// Identity of the sandbox: what the platform says, else the host name.
    pub fn identity(&self) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.sandbox_id.clone().unwrap_or_else(host)
    }

    /// Where to listen: what was asked for, else the default of the way it runs. A second address is for machines
    /// without IPv6.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        let address = self.listen.unwrap_or_else(|| {
            let ip: IpAddr =
                if self.is_stand_alone() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            (ip, PORT).into()
        });
        let is_everything = address.is_ipv6() && address.ip().is_unspecified();
        let second = is_everything.then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into());
        std::iter::once(address).chain(second).collect()
    }
}

fn at_least(text: &str, least: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < least {
        return Err(format!("must be at least {}", humantime::format_duration(least)));
    }
    Ok(duration)
}

fn at_least_a_second(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_secs(1))
}

fn at_least_a_millisecond(text: &str) -> Result<Duration, String> {
    at_least(text, Duration::from_millis(1))
}

fn size_of_a_mebibyte_or_more(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size < ByteSize::mib(1) {
        return Err("must be at least 1MiB".to_owned());
    }
    Ok(size)
}

fn resolution(text: &str) -> Result<(u16, u16), String> {
    // A depth behind a second x, as the X server's own option has it, is taken and not used.
    let mut numbers = text.split(['x', 'X', '×']).map(|number| number.trim().parse::<u16>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(width)), Some(Ok(height)))
            if (64..=16384).contains(&width) && (64..=16384).contains(&height) =>
        {
            Ok((width, height))
        }
        _ => Err("must be width, x and height, from 64x64 to 16384x16384, as 1280x800".to_owned()),
    }
}

/// A URL without a scheme is taken for an http one, as `collector:4318` is often written.
fn http_url(text: &str) -> Result<Uri, String> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(url),
        _ => Err("must be an http or https URL".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, clap::Error> {
        let arguments = std::iter::once("toolboxd").chain(arguments.iter().copied()).map(OsString::from);
        Config::parse_from(
            arguments,
            variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        )
    }

    #[test]
    fn every_setting_has_a_default() {
        let config = parse(&[], &[]).unwrap();
        assert!(config.is_stand_alone());
        assert_eq!(config.listen_addresses(), ["127.0.0.1:2280".parse().unwrap()]);
        assert_eq!(config.termination_grace_period, Duration::from_secs(5));
        assert_eq!(config.max_output, ByteSize::mib(64));
    }

    #[test]
    fn flags_win_over_our_variables_and_those_over_the_original_ones() {
        let theirs = ("DAYTONA_TERMINATION_GRACE_PERIOD", "7s");
        let ours = ("TOOLBOXD_TERMINATION_GRACE_PERIOD", "8s");
        fn grace(arguments: &[&str], variables: &[(&str, &str)]) -> u64 {
            parse(arguments, variables).unwrap().termination_grace_period.as_secs()
        }
        assert_eq!(grace(&[], &[theirs]), 7);
        assert_eq!(grace(&[], &[theirs, ours]), 8);
        assert_eq!(grace(&["--termination-grace-period", "9s"], &[theirs, ours]), 9);
    }

    #[test]
    fn a_bad_value_exits_with_2_and_names_its_setting() {
        let error = parse(&[], &[("DAYTONA_TERMINATION_GRACE_PERIOD", "soon")]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--termination-grace-period"), "{error}");
        let error = parse(&["--max-output", "3"], &[]).unwrap_err();
        assert!(error.to_string().contains("--max-output"), "{error}");
        let error = parse(&[], &[("DAYTONA_OTEL_ENDPOINT", "ftp://collector")]).unwrap_err();
        assert!(error.to_string().contains("--otel-endpoint"), "{error}");
    }

    #[test]
    fn an_endpoint_may_come_without_a_scheme() {
        let endpoint =
            |text| parse(&["--otel-endpoint", text], &[]).unwrap().otel_endpoint.unwrap().to_string();
        assert_eq!(endpoint("collector:4318"), "http://collector:4318/");
        assert_eq!(endpoint("https://otlp.example/base"), "https://otlp.example/base");
    }

    #[test]
    fn words_after_the_options_are_the_entrypoint() {
        let config =
            parse(&["--log-level", "WARN", "sleep", "--listen", "x"], &[("DAYTONA_SANDBOX_ID", "s")])
                .unwrap();
        assert_eq!(config.entrypoint, ["sleep", "--listen", "x"]);
        assert_eq!((config.log_level, config.prints_entrypoint()), (LogLevel::Warn, None));
        assert_eq!(parse(&["entrypoint", "logs"], &[]).unwrap().prints_entrypoint(), Some(true));
        assert_eq!(config.listen_addresses().len(), 2);
    }

    #[test]
    fn the_token_comes_from_variable_or_file_and_is_never_shown() {
        let config = parse(&[], &[(TOKEN_VARIABLE, " s3cret\n")]).unwrap();
        assert_eq!(config.token.as_ref().map(Token::reveal), Some("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
        assert_eq!(parse(&["--token-file", "/no/such/file"], &[]).unwrap_err().exit_code(), 2);
    }
}
