//! Row R-21: a panic ends one key and nothing else.
