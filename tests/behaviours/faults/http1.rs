//! Rows H1: heads, bodies and the ways to smuggle a request past a parser.
