//! See `ottla::fuzz::logins`.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ottla::fuzz::{Verdict, logins};

fuzz_target!(|input: &[u8]| -> Corpus {
    match logins(input) {
        Verdict::Unfit => Corpus::Reject,
        Verdict::Taken | Verdict::Refused => Corpus::Keep,
    }
});
