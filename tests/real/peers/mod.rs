//! The programs around the test: each is started, waited for, and stopped when its owner is dropped.

pub mod echo;
pub mod etcd;
pub mod program;
pub mod wharf;

pub use wharf::Wharf;
