//! How calls end, row by row, over real sockets: a real core between a client of HTTP/1.1 and a server of HTTP/2 that are
//! written byte by byte, so that each can do what no library would. Every test says exactly what the caller got and what the
//! backend saw.
//!
//! Names begin with the row of the catalogue of faults that they cover, where there is one.

mod backend;
mod client;
mod ends;
mod http1;
mod leaving;
mod local;
mod pool;
mod repeats;
mod sharing;
mod time;
mod world;
