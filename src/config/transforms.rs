//! Flags for what clients see of a transform.

use crate::transform::{OnFailure, Rules, Sizes};

/// The flags for what clients see of a transform.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Transforms")]
pub(super) struct TransformArgs {
    /// Which sizes STAT and LIST tell: stored, those of the messages before the transform, or exact, those of its output;
    /// for that each message is transformed once more, before or at the login
    #[arg(
        long,
        value_enum,
        value_name = "WHICH",
        default_value = "stored",
        hide_possible_values = true,
        requires = "transform"
    )]
    transform_sizes: Sizes,

    /// What a client gets if the transform fails before its first octet: error, or original (the message as it is stored)
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value = "error",
        hide_possible_values = true,
        requires = "transform"
    )]
    transform_failure: OnFailure,
}

impl TransformArgs {
    pub(super) fn rules(&self) -> Rules {
        Rules { sizes: self.transform_sizes, on_failure: self.transform_failure }
    }
}
