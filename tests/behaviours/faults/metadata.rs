//! Rows M: what crosses between headers and metadata, and what does not.
