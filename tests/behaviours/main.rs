//! How calls end, row by row, over real sockets: a real core between a client of HTTP/1.1 and a server of HTTP/2 that are
//! written byte by byte, so that each can do what no library would. Every test says exactly what the caller got and what the
//! backend saw.
//!
//! The rows of the catalogue of faults stand in `faults`, each test named after its row.

mod backend;
mod caller;
mod client;
mod ends;
mod faults;
mod faulty;
mod frames;
mod http1;
mod leaving;
mod local;
mod pool;
mod records;
mod repeats;
mod sharing;
mod time;
mod world;
