//! Files to bodies and back.
