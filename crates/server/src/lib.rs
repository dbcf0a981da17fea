//! An asynchronous SMTP server framework: a service trait, listeners, limits, TLS and SASL
