//! A path with a delay: forwards connections, and holds all octets back for half of a round trip in
//! each direction.
//!
//! ```text
//! cargo run --release --bin delay -- 127.0.0.1:2526 127.0.0.1:2525 20
//! ```
//!
//! It listens at the first address, forwards to the second, and adds this many milliseconds to each
//! round trip.

use std::{error::Error, io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Pieces of 16 KiB that are on their way in one direction.
const PIECES: usize = 256;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, round_trip] = arguments.as_slice() else {
        return Err("say `delay LISTEN FORWARD MILLISECONDS`".into());
    };
    let delay = Duration::from_millis(round_trip.parse()?) / 2;
    let listener = TcpListener::bind(from).await?;
    loop {
        let (near, _) = listener.accept().await?;
        let to = to.clone();
        tokio::spawn(async move {
            let far = TcpStream::connect(to).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(forward(near_in, far_out, delay));
            tokio::spawn(forward(far_in, near_out, delay));
            io::Result::Ok(())
        });
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (pieces, mut due) = mpsc::channel::<(Instant, BytesMut)>(PIECES);
    tokio::spawn(async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    loop {
        let mut piece = BytesMut::with_capacity(16 * 1_024);
        match from.read_buf(&mut piece).await {
            Ok(1..) => {}
            _ => return,
        }
        if pieces.send((Instant::now() + delay, piece)).await.is_err() {
            return;
        }
    }
}
