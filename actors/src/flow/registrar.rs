//! Starts, finds, caps and expires flows.
