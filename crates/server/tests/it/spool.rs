//! Content in memory or in a temporary file, and what becomes of the file.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use posthaste_server::{
    Body, BodyError, Context, Envelope, Layer, Refusal, ServerOptions, Service as _, SpoolOptions, accepted, handlers,
    refusal, test::Client,
};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

fn options(memory: usize, limit: u64, folder: &Path) -> SpoolOptions {
    let mut options = SpoolOptions::default();
    (options.memory, options.limit, options.folder) = (memory, limit, folder.to_owned());
    options
}

/// A body of pieces of this many octets.
fn body(content: &[u8], piece: usize) -> Body<'static> {
    let pieces: Vec<_> = content.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Body::new(stream::iter(pieces))
}

/// Files of this process that are open below a folder, those without a name included.
fn open_files(folder: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    open.filter(|target| target.starts_with(folder)).count()
}

#[tokio::test]
async fn content_of_every_size_is_read_as_it_came_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    for octets in [0, 1, 99, 100, 101, 65_536, 200_000] {
        for piece in [1_000, 16_384] {
            let content = &content[..octets];
            let mut spooled = body(content, piece).spool(&options(100, u64::MAX, folder.path())).await.unwrap();
            assert_eq!((spooled.len(), spooled.is_empty()), (octets as u64, octets == 0));
            assert_eq!(spooled.in_memory().is_some(), octets <= 100, "{octets}");
            assert_eq!(open_files(folder.path()), usize::from(octets > 100));
            for _ in 0..2 {
                let mut read = Vec::new();
                spooled.read_to_end(&mut read).await.unwrap();
                assert!(read == content, "{octets}");
                spooled.rewind().await.unwrap();
            }
            // From the start, wherever the reader was.
            let _ = spooled.read(&mut [0; 10]).await.unwrap();
            assert!(spooled.into_body().await.unwrap().collect(octets).await.unwrap() == content, "{octets}");
            assert_eq!(open_files(folder.path()), 0);
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn too_much_content_and_a_folder_that_is_not_there_are_errors_with_their_replies() {
    let folder = tempfile::tempdir().unwrap();
    for (octets, memory, fails) in [(50, 100, false), (51, 100, true), (50, 10, false), (51, 10, true)] {
        let spooled = body(&vec![0; octets], 10).spool(&options(memory, 50, folder.path())).await;
        assert_eq!(matches!(spooled, Err(BodyError::TooLarge(50))), fails, "{octets} {memory}");
    }
    assert_eq!(open_files(folder.path()), 0);
    let gone = folder.path().join("gone");
    let error = body(&[0; 20], 10).spool(&options(10, 50, &gone)).await.unwrap_err();
    assert!(error.to_string().contains("check `SpoolOptions::folder`"), "{error}");
    assert_eq!(Refusal::from(error).to_string(), "451 4.3.0 Local error, try again later");
    let full = BodyError::Spool(std::io::ErrorKind::StorageFull.into());
    assert_eq!(Refusal::from(full).to_string(), "452 4.3.1 Out of storage, try again later");
}

/// Looks into the content before the handler gets it.
#[derive(Clone)]
struct NoViruses(SpoolOptions);

impl Layer for NoViruses {
    async fn message<'b>(&mut self, _: &Context, _: &mut Envelope, body: Body<'b>) -> Result<Body<'b>, Refusal> {
        let mut content = body.spool(&self.0).await?;
        let mut text = String::new();
        content.read_to_string(&mut text).await?;
        if text.contains("virus") {
            return Err(refusal!("554 5.7.1 A virus"));
        }
        Ok(content.into_body().await?)
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_reads_the_whole_content_and_hands_it_on() {
    let folder = tempfile::tempdir().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let taken = Arc::clone(&taken);
        handlers::message(move |_, _, body: Body<'static>| {
            let taken = Arc::clone(&taken);
            async move {
                let content = body.collect(10_000).await?;
                taken.lock().unwrap().push(content.len());
                Ok(accepted!("250 2.0.0 Yes"))
            }
        })
    };
    let mut client = Client::connect(service.layer(NoViruses(options(100, 1_000, folder.path())))).await;
    client.ehlo().await;
    for (content, code) in [
        ("small".to_owned(), "250 2.0.0 Yes"),
        ("large ".repeat(100), "250 2.0.0 Yes"),
        ("a virus".to_owned(), "554 5.7.1 A virus"),
        ("a virus ".repeat(100), "554 5.7.1 A virus"),
        ("too large ".repeat(101), "552 5.3.4"),
    ] {
        // Lines of at most 998 octets.
        let content = content.replace(' ', "\r\n");
        client.send("me@a.test", ["you@b.test"], content).await.expect(code);
    }
    assert_eq!(*taken.lock().unwrap(), [7, 700]);
    assert_eq!(open_files(folder.path()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_half_way_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(10, 1_000, folder.path());
    let service = handlers::message(move |_, _, body: Body<'static>| {
        let options = options.clone();
        async move {
            body.spool(&options).await?;
            Ok(accepted!("250 2.0.0 Yes"))
        }
    });
    let mut client = Client::connect(service).await;
    client.ehlo().await;
    for reply in client.pipeline(["MAIL FROM:<me@a.test>", "RCPT TO:<you@b.test>", "DATA"]).await {
        assert!(reply.code() < 400);
    }
    client.write("more than ten octets\r\n").await;
    client.wait(std::time::Duration::from_secs(1)).await;
    assert_eq!(open_files(folder.path()), 1);
    client.close().await;
    client.closed().await;
    client.drain();
    client.drained().await;
    assert_eq!(open_files(folder.path()), 0);
}

#[tokio::test]
async fn spooled_content_goes_into_a_file_when_memory_has_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let spool = options(1 << 20, u64::MAX, folder.path());
    let service = handlers::message(move |_, _, body| {
        let spool = spool.clone();
        async move {
            let mut spooled = body.spool(&spool).await?;
            let mut content = Vec::new();
            spooled.read_to_end(&mut content).await?;
            let place = if spooled.in_memory().is_some() { "memory" } else { "file" };
            Ok(accepted!("250 2.0.0 {} octets in a {}", content.len(), place))
        }
    });
    let mut limits = ServerOptions::default();
    limits.contents = 50_000;
    let mut client = Client::connect(service).options(limits).await;
    client.ehlo().await;
    for (lines, place) in [(10_000, "memory"), (20_000, "file"), (10_000, "memory")] {
        let sent = client.send("a@a.test", ["you@b.test"], "x\r\n".repeat(lines)).await;
        sent.expect(&format!("250 2.0.0 {} octets in a {place}", 3 * lines));
    }
}
