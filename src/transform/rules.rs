//! What clients are told of a transform's effects (`--transform-sizes`, `--transform-failure`).

use clap::ValueEnum;

/// Which sizes STAT and LIST tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Sizes {
    /// Those of the stored messages.
    #[default]
    Stored,
    /// Those of the transformed messages, which are transformed once for that.
    Exact,
}

/// What a client gets if the transform fails before its first octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OnFailure {
    /// An error.
    #[default]
    Error,
    /// The message as it is stored.
    Original,
}

/// The rules of a transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// Which sizes STAT and LIST tell.
    pub sizes: Sizes,
    /// What a client gets if it fails.
    pub on_failure: OnFailure,
}
