//! The desktop: see and act on a real screen.

pub(crate) mod x11;
