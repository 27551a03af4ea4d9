//! Who may do what: roles, the policy that decides for every door, and what of a record a role doesn't get to see. No input or output: callers bring the principal,
//! and the clock is an argument.

mod action;
mod area;
mod masking;
mod policy;
mod principal;
mod role;
mod view;

pub use action::Action;
pub use area::{area, areas};
pub use masking::{FieldMasks, MASKED_FIELD, Masking, MaskingError};
pub use policy::{Decision, Policy, PolicyError};
pub use principal::{Principal, Scope};
pub use role::{Role, UnknownRole};
pub use view::{Cleared, MASK, Mask, View, Views};
