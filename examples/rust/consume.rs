//! Prints the records of a topic from its beginning, until nothing came for five seconds:
//! `consume BOOTSTRAP TOPIC`.

use std::io::Write;
use std::time::Duration;

use ottla::blocking::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(bootstrap), Some(topic)) = (args.next(), args.next()) else {
        return Err("usage: consume BOOTSTRAP TOPIC".into());
    };
    let client = Client::connect(&bootstrap)?;
    let mut consumer = client.consumer(|settings| settings.topics([topic.as_str()]))?;
    let mut out = std::io::stdout().lock();
    while let Some(batch) = consumer.next_timeout(Duration::from_secs(5))? {
        for record in &batch {
            out.write_all(record.value().unwrap_or_default())?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}
