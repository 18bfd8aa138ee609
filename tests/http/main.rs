//! The HTTP layer, by its behaviour.
