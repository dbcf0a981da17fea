//! SMTP syntax without state or I/O: commands, replies, addresses and framing
