//! The command line. Results go to standard output, everything else to standard error.
//!
//! Exit codes: 0 done, 1 failed or a bad configuration, 2 wrong usage.

mod admin_client;
mod admin_tls;
mod connections;
mod providers;
mod revoke_all;
mod secrets;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::environment::Environment;
use crate::config::error::ConfigErrors;
use crate::config::{self, ConfigFile, GatewayConfig};
use connections::ConnectionsCommand;

/// OAuth 2.0 client gateway: internal applications call it, and it calls APIs with the right tokens.
#[derive(Debug, Parser)]
#[command(version, name = "claviger")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until it is told to stop (SIGTERM or SIGINT).
    Run(ConfigArgs),
    /// Check the configuration: tell everything that is wrong with it, or one line if nothing is.
    Check(ConfigArgs),
    /// Try it out: gateway, sandbox provider and sample API, all on loopback.
    Demo {
        /// The first of the ports it listens on.
        #[arg(long, value_name = "PORT")]
        port_base: Option<u16>,
    },
    /// List the providers that are known by name, or show one.
    Providers {
        /// The provider to show.
        name: Option<String>,
        /// Print its file instead: what `[providers.NAME]` would say.
        #[arg(long)]
        source: bool,
    },
    /// Read a password from standard input and print its hash, for `password_hash`.
    HashSecret {
        /// Hash an API key instead, for `api_key_hash`: a long random one, made by a machine.
        #[arg(long)]
        api_key: bool,
    },
    /// Make keys that token sets are sealed with.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look at and change connections of a running gateway, through its admin API.
    Connections {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(subcommand)]
        command: ConnectionsCommand,
    },
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Print a new key: 32 random bytes in base64.
    Generate,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_PATH, global = true)]
    config: PathBuf,
}

/// What is left to do after a command.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing.
    Done(ExitCode),
    /// Serve with this configuration, from this file.
    Serve(Box<GatewayConfig>, ConfigFile),
    /// Run the demo.
    Demo {
        /// The first of the ports it listens on, if one was asked for.
        port_base: Option<u16>,
    },
}

/// Standard input and output, as ports.
pub struct Streams<'a> {
    /// Where secrets and token sets come from.
    pub input: &'a mut dyn io::BufRead,
    /// Where results go.
    pub output: &'a mut dyn Write,
    /// Where the rest goes.
    pub errors: &'a mut dyn Write,
}

impl Cli {
    /// Reads this process's arguments. Ends it with exit code 2 if they are wrong, and with 0 for
    /// `--help` and `--version`.
    pub fn of_process() -> Self {
        Self::parse()
    }

    /// Does what was asked, except for serving.
    pub fn execute(self, environment: &dyn Environment, streams: &mut Streams<'_>) -> Outcome {
        let done = match self.command {
            Command::Run(args) => {
                let (config, files) = config::load_watched(&args.config, environment, None);
                match config {
                    Ok(config) => {
                        let file = ConfigFile { path: args.config, files };
                        return Outcome::Serve(Box::new(config), file);
                    }
                    Err(errors) => Err(errors.to_string()),
                }
            }
            Command::Demo { port_base } => return Outcome::Demo { port_base },
            Command::Check(args) => check(&args, environment, streams.errors),
            Command::Providers { name, source } => providers::execute(name.as_deref(), source),
            Command::HashSecret { api_key } => secrets::hash(streams.input, api_key),
            Command::Keys(KeysCommand::Generate) => Ok(secrets::generate_key()),
            Command::Connections { config, command } => {
                connections::execute(command, &config.config, environment, streams.input)
            }
        };
        let code = match done {
            Ok(result) => result.print(streams.output),
            Err(problem) => writeln!(streams.errors, "{problem}").map(|()| ExitCode::FAILURE),
        };
        // A closed pipe is all that can be wrong with it, and nobody is left to tell.
        Outcome::Done(code.unwrap_or(ExitCode::FAILURE))
    }
}

/// Text that a command prints, wiped afterwards: it may be a key.
struct Printed(zeroize::Zeroizing<String>);

impl Printed {
    fn new(text: impl Into<String>) -> Self {
        Self(zeroize::Zeroizing::new(text.into()))
    }

    fn print(&self, output: &mut dyn Write) -> io::Result<ExitCode> {
        if !self.0.is_empty() {
            writeln!(output, "{}", self.0.trim_end())?;
            output.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn check(
    args: &ConfigArgs,
    environment: &dyn Environment,
    errors: &mut dyn Write,
) -> Result<Printed, String> {
    let config = config::load(&args.config, environment).map_err(|errors| errors.to_string())?;
    for warning in &config.warnings {
        writeln!(errors, "warning: {warning}").map_err(|error| error.to_string())?;
    }
    if !config.invalid_certificates.is_empty() {
        return Err(ConfigErrors(config.invalid_certificates).to_string());
    }
    let count = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    Ok(Printed::new(format!(
        "{}: good: {}, {}, {}",
        args.config.display(),
        count(config.profiles.len(), "profile"),
        count(config.callers.len(), "caller"),
        count(config.routing.iter().count(), "route"),
    )))
}
