//! The actor that owns the store.
