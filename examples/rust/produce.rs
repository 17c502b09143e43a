//! Sends each line of standard input as a record: `produce BOOTSTRAP TOPIC < lines`.

use std::io::BufRead;

use ottla::Record;
use ottla::blocking::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(bootstrap), Some(topic)) = (args.next(), args.next()) else {
        return Err("usage: produce BOOTSTRAP TOPIC < lines".into());
    };
    let client = Client::connect(&bootstrap)?;
    let producer = client.producer(|settings| settings)?;
    let mut sent = 0u64;
    for line in std::io::stdin().lock().lines() {
        // The handle may be dropped: `flush` waits, and failures are counted below.
        drop(producer.send(Record::to(&topic).value(&line?))?);
        sent += 1;
    }
    producer.flush(None)?;
    let failed = client.stats().records_failed;
    eprintln!("{} acknowledged, {failed} failed", sent - failed);
    if failed > 0 { Err("some records were not acknowledged".into()) } else { Ok(()) }
}
