//! What SMTP clients and servers share on tokio: buffered connections, plain or TLS
