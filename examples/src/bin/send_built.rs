//! Sends messages that other crates build, over one pool: a letter of mail-builder and a letter of
//! lettre, each with a file attached.
//!
//! ```text
//! cargo run --bin send_built -- 127.0.0.1:2525 me@example.org you@example.net
//! ```

use std::{error::Error, process::ExitCode};

use lettre::message::{Attachment, Message, MultiPart, SinglePart, header::ContentType};
use mail_builder::MessageBuilder;
use posthaste::client::{ClientOptions, Pool, Tls};

const TEXT: &str = "Grüße\n.\nThe dot above is a line of the letter.\n";
const ROWS: &str = "name,octets\r\nhello,5\r\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    posthaste_examples::report(run().await)
}

async fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, from, to] = &arguments[..] else { return Err("usage: send_built HOST:PORT FROM TO".into()) };
    let mut options = ClientOptions::new("localhost".parse()?);
    options.tls = Tls::opportunistic()?;
    let pool = Pool::new([server], options)?;

    // mail-builder makes the letter alone, so the envelope is the program's own.
    let letter = of_mail_builder(from, to)?;
    let first = pool.send(from, [to], letter).await?;

    // lettre collects the recipients of To, Cc and Bcc, and leaves Bcc out of the letter.
    let letter = of_lettre(from, to)?;
    let recipients = letter.envelope().to().iter().map(AsRef::<str>::as_ref);
    let second = pool.send(from, recipients, letter.formatted()).await?;
    pool.close().await;

    for recipient in first.recipients.iter().chain(&second.recipients) {
        println!("{recipient}");
    }
    Ok(if first.is_complete() && second.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of_mail_builder(from: &str, to: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let letter = MessageBuilder::new().from(("Me", from)).to(("You", to)).subject("Größe, by mail-builder");
    Ok(letter.text_body(TEXT).attachment("text/csv", "rows.csv", ROWS).write_to_vec()?)
}

fn of_lettre(from: &str, to: &str) -> Result<Message, Box<dyn Error>> {
    let letter = Message::builder().from(from.parse()?).to(to.parse()?).subject("Größe, by lettre").message_id(None);
    let rows = Attachment::new("rows.csv".to_owned()).body(ROWS.to_owned(), ContentType::parse("text/csv")?);
    Ok(letter.multipart(MultiPart::mixed().singlepart(SinglePart::plain(TEXT.to_owned())).singlepart(rows))?)
}
