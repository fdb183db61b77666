//! What the `routes.rs` files share: taking requests apart and putting replies together.

pub mod body;
pub mod client;
pub mod exit;
pub mod extract;
pub mod output;
pub mod range;
pub mod reply;
pub mod routes;
pub mod socket;
