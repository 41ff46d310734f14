//! Rows R: what tries to use up descriptors, memory, time.
