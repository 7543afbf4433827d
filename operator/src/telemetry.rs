//! Logs: one line an event on standard error, as text or JSON.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Starts logging. `filter` is a level (`info`) or a list of directives (`postroad_operator=debug,kube=info`).
///
/// # Errors
/// When the filter cannot be read; the text says why.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives(filter)).map_err(|error| {
        format!("POSTROAD_LOG={filter:?} is neither a level nor a list of directives: {error}")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// A bare level is ours: of libraries only warnings, and of the Kubernetes client nothing, because every failure of it is
/// reported by the code that called it, with what it was for.
fn directives(filter: &str) -> String {
    let bare = !filter.is_empty() && filter.chars().all(|c| c.is_ascii_alphabetic());
    if bare {
        format!("warn,kube_client=off,kube_runtime=off,postroad_operator={filter}")
    } else {
        filter.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_the_operators_own() {
        assert!(directives("debug").ends_with("postroad_operator=debug"));
        assert_eq!(directives("kube=info"), "kube=info");
    }
}
