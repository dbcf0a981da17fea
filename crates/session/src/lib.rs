//! The SMTP conversation as sans-IO state machines, for servers and clients
