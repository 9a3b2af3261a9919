//! Flags that every subcommand takes.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use dray::upstream::parse_endpoint;
use url::Url;

/// Flags that every subcommand takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// How to print results: text for people, json for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, help_heading = "Output")]
    pub(crate) format: Format,

    /// Print results and errors only
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,

    /// Increase log verbosity; -vv logs every request
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,

    /// Draw no progress bars
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) no_progress: bool,

    /// Read HOST's images from URL, e.g. registry.k8s.io=http://127.0.0.1:5001/registry.k8s.io; may be repeated
    #[arg(
        long,
        global = true,
        value_name = "HOST=URL",
        value_parser = parse_endpoint,
        value_delimiter = ',',
        help_heading = "Upstream"
    )]
    pub(crate) upstream: Vec<(String, Url)>,

    /// Talk to HOST without TLS; may be repeated
    #[arg(long, global = true, value_name = "HOST", value_delimiter = ',', help_heading = "Upstream")]
    pub(crate) plain_http: Vec<String>,

    /// Trust the certificate authorities in this PEM file as well; may be repeated
    #[arg(long, global = true, value_name = "FILE", value_delimiter = ',', help_heading = "Upstream")]
    pub(crate) ca_file: Vec<PathBuf>,

    /// Transfers at the same time
    #[arg(short = 'j', long, global = true, value_name = "N", default_value_t = 6,
          value_parser = clap::value_parser!(u16).range(1..=128), help_heading = "Upstream")]
    pub(crate) concurrency: u16,

    /// Releases and Windows builds in DIR add to the built-in catalog or override it; may be repeated
    #[arg(long, global = true, value_name = "DIR", value_delimiter = ',', help_heading = "Upstream")]
    pub(crate) catalog: Vec<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}
