//! The interop tool of the Rust crate: the same command line as those of the other languages.

use std::path::Path;
use std::process::ExitCode;

use ottla_scenarios::{interop, records};

const USAGE: &str = "usage: interop write BOOTSTRAP TOPIC FILE [none|lz4|snappy|gzip|zstd]\n       \
                     interop read BOOTSTRAP TOPIC COUNT FILE";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &[&str]) -> interop::Result<()> {
    match args {
        ["write", bootstrap, topic, file, codec @ ..] if codec.len() < 2 => {
            let rows = records::load(Path::new(file)).map_err(|e| e.to_string())?;
            let codec = codec
                .first()
                .copied()
                .unwrap_or("none")
                .parse()
                .map_err(|e: ottla::Error| e.to_string())?;
            interop::write(bootstrap, topic, &rows, codec).await
        }
        ["read", bootstrap, topic, count, file] => {
            let count = count.parse().map_err(|_| format!("'{count}' is not a number"))?;
            let rows = interop::read(bootstrap, topic, count).await?;
            records::save(Path::new(file), &rows).map_err(|e| e.to_string())
        }
        _ => Err(USAGE.to_owned()),
    }
}
