//! The program `ottla-test-broker`.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ottla-test-broker"))
}

#[test]
fn it_prints_the_bootstrap_string_and_ends_with_its_input() {
    let mut child = program()
        .args(["--brokers", "2", "--topic", "orders:6:2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let input = child.stdin.take();
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let addresses: Vec<&str> = line.trim_end().split(',').collect();
    assert_eq!(addresses.len(), 2, "{line}");
    for address in addresses {
        TcpStream::connect(address).expect("a broker listens");
    }
    drop(input);
    assert!(child.wait().expect("its end").success());
}

#[cfg(unix)]
#[test]
fn it_runs_a_command_and_ends_as_it_does() {
    let output = program()
        .args(["--brokers", "3", "--", "sh", "-c", "echo \"$BOOTSTRAP\"; exit 7"])
        .output()
        .expect("the program runs");
    let addresses = String::from_utf8(output.stdout).expect("text");
    assert_eq!(addresses.trim_end().split(',').count(), 3, "{addresses}");
    assert_eq!(output.status.code(), Some(7));
}

#[cfg(unix)]
#[test]
fn it_hands_out_what_tls_needs() {
    let folder = std::env::temp_dir().join(format!("ottla-test-broker-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let output = program()
        .args(["--sasl", "PLAIN", "--user", "alice:secret", "--client-certificates", "--tls"])
        .arg(&folder)
        .args(["--", "ls"])
        .arg(&folder)
        .output()
        .expect("the program runs");
    let ca = std::fs::read_to_string(folder.join("ca.pem")).expect("the authority");
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(output.status.success());
    let names = String::from_utf8(output.stdout).expect("text");
    assert_eq!(names.lines().collect::<Vec<_>>(), ["ca.pem", "client.key", "client.pem"]);
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn wrong_arguments_are_explained() {
    for args in [
        &["--brokers", "none"][..],
        &["--brokers"],
        &["--source", "100"],
        &["--source", "0x100"],
        &["--unknown"],
        &["--topic", "a b:1"],
        &["--tls", "/no/such/folder"],
        &["--client-certificates"],
        &["--sasl", "GSSAPI"],
        &["--sasl", "PLAIN", "--user", "alice"],
        &["--token", "token"],
        &["--max-reauth", "never"],
        &["--"],
    ] {
        let output = program().args(args).output().expect("the program runs");
        let message = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{args:?}");
        assert!(message.contains("usage:"), "{args:?}: {message}");
    }
}
