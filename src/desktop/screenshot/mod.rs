//! Pictures of the screen (contract `computer-use.md` 5).
//!
//! One piece of work takes the picture, draws the pointer, scales, and writes the file, on a thread of its own kind:
//! as many at a time as there are processors, so that any number of requests holds few pictures in memory.

mod encode;
mod picture;
pub(super) mod routes;
mod service;
mod wire;

pub(super) use picture::{Picture, PictureRequest};
pub(super) use service::Camera;
