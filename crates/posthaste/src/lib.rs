//! SMTP for Rust: parser, sessions, client, server, queue and relay behind one name
