//! What a connection to a backend must live through: mass cancellations, late frames, GOAWAY under load.
