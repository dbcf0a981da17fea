//! An asynchronous SMTP client: connect, transact, per-recipient outcomes
