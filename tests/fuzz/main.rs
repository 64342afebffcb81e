//! What comes from outside may be anything: entries that others wrote, metadata, options, configurations, patterns, cursors.
//! None of it ends the process, none of it is lost without a word, and no error shows a secret.
//!
//! Each target is played with what `proptest` makes up and with the files in `corpus/<target>/`, one case each: what was
//! found once, and what is not made up easily. A failure is shrunk and noted in `<target>.regressions` beside its source, to
//! be committed with the fix. `PROPTEST_CASES=<count>` plays more cases of every target.

mod configuration;
mod corpus;
mod envelope;
mod foreign;
mod json;
mod messages;
mod options;
mod patterns;
mod places;
