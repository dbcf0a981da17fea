//! Mistakes that are likely, and what the compiler says about them. Each is compiled by the
//! documentation tests. Only a nightly compiler checks the error numbers: with a stable one any
//! error will do.
//!
//! A closure, an async function and a closure that looks at its client are services.
//!
//! ```
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! async fn connect(cx: Context) -> Result<Discard, Refusal> {
//!     if cx.peer.address.ip_or_loopback().is_ipv6() { Err(refusal!("554 5.7.1 No")) } else { Ok(Discard) }
//! }
//! Server::new(connect);
//! Server::new(|_| async { Ok(Discard) });
//! Server::new(|cx: Context| async move { println!("{}", cx.peer.address); Ok(Discard) });
//! ```
//!
//! A handler is no service: "use a closure that makes a handler for each connection".
//!
//! ```compile_fail,E0277
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! Server::new(Discard);
//! ```
//!
//! What a closure makes has to be a handler: "implement `Handler` with at least ..".
//!
//! ```compile_fail,E0277
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! struct NoHandler;
//! Server::new(|_| async { Ok(NoHandler) });
//! ```
//!
//! A reply that could be any does not decide: "expected `Result<Accepted, Refusal>`".
//!
//! ```compile_fail,E0271
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! struct Replies;
//! impl Handler for Replies {
//!     async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Reply, Reply> {
//!         Ok(reply!("250 2.0.0 OK"))
//!     }
//! }
//! ```
//!
//! A handler goes from thread to thread: "future returned by `message` is not `Send`".
//!
//! ```compile_fail
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! struct Guarded(std::sync::Mutex<u32>);
//! impl Handler for Guarded {
//!     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//!         let guard = self.0.lock().expect("no panic under the lock");
//!         body.collect(1 << 20).await?;
//!         drop(guard);
//!         Ok(accepted!("250 2.0.0 OK"))
//!     }
//! }
//! ```
//!
//! `?` needs to know which refusal an error is: "`?` couldn't convert the error to `Refusal`".
//!
//! ```compile_fail,E0277
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! struct LooksUp;
//! impl Handler for LooksUp {
//!     async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
//!         let _: u32 = rcpt.to_string().parse()?;
//!         Ok(())
//!     }
//!     async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
//!         Ok(accepted!("250 2.0.0 OK"))
//!     }
//! }
//! ```
//!
//! The same with a remedy.
//!
//! ```
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! struct LooksUp;
//! impl Handler for LooksUp {
//!     async fn rcpt(&mut self, _: &Context, rcpt: &Rcpt) -> Result<(), Refusal> {
//!         let _: u32 = rcpt.to_string().parse().map_err(std::io::Error::other)?;
//!         Ok(())
//!     }
//!     async fn message(&mut self, _: &Context, _: Envelope, _: Body<'_>) -> Result<Accepted, Refusal> {
//!         Ok(accepted!("250 2.0.0 OK"))
//!     }
//! }
//! ```
//!
//! Each connection has a clone of a layer: "the trait bound `Count: Clone` is not satisfied".
//!
//! ```compile_fail,E0277
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! struct Count(u32);
//! impl Layer for Count {}
//! ```
//!
//! What stands before a service has to be a layer: "`Count` is no layer".
//!
//! ```compile_fail,E0277
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! #[derive(Clone)]
//! struct Count(u32);
//! let service = |_: Context| async { Ok(Discard) };
//! Server::new(service.layer(Count(0)));
//! ```
//!
//! An acceptance cannot refuse: "a refusal begins with 4yz or 5yz".
//!
//! ```compile_fail,E0080
//! # use posthaste_server::{Accepted, Body, Context, Envelope, Handler, Layer, Refusal, Server, Service as _, accepted, refusal, reply, wire::{Rcpt, Reply}};
//! # struct Discard;
//! # impl Handler for Discard {
//! #     async fn message(&mut self, _: &Context, _: Envelope, body: Body<'_>) -> Result<Accepted, Refusal> {
//! #         body.collect(1 << 20).await?;
//! #         Ok(accepted!("250 2.0.0 OK"))
//! #     }
//! # }
//! let refusal = refusal!("250 2.0.0 OK");
//! ```
