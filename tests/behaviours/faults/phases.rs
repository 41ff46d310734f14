//! Rows U-P: a backend that is lost at each phase of a call, in each way.
