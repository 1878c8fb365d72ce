//! One pending authorization.
