//! The flags that name outputs. A test of the command line makes sure that none is missing, and the tests of outputs try
//! each of them.

/// How a command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// In one pass.
    Stream,
    /// At any position of a file.
    Seekable,
    /// Several files in a directory.
    Directory,
    /// New files, after whose common beginning they are named.
    Prefix,
}

/// Command, flag, and how the command writes what the flag names, in the order of their names.
pub(crate) const OUTPUTS: [(&str, &str, Way); 12] = [
    ("build", "output", Way::Seekable),
    ("check", "patch", Way::Stream),
    ("export", "output", Way::Stream),
    ("import", "output", Way::Stream),
    ("import", "receipt", Way::Directory),
    ("inventory", "output", Way::Stream),
    ("keygen", "output", Way::Prefix),
    ("lock", "output", Way::Stream),
    ("node-config", "output", Way::Directory),
    ("sign", "payload_out", Way::Stream),
    ("sign", "statement_out", Way::Stream),
    ("tls init", "output", Way::Directory),
];
