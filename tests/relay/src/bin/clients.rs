//! Clients in a process of their own, for tests: see [`ottla_relay::load::process`].

use std::process::ExitCode;

use ottla_relay::load::process;

fn main() -> ExitCode {
    let job = std::env::args().nth(1).unwrap_or_default();
    match process::serve(&job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("clients: {why}");
            ExitCode::FAILURE
        }
    }
}
