//! Rows U: what a backend may do wrong.
