//! Evidence end to end (promise P5): what was stored verifies, live and exported, and every kind of damage is found and named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod bundles;
mod damage;
mod scene;
mod sound;
