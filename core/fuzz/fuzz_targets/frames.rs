//! See `ottla::fuzz::frames`.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ottla::fuzz::{Verdict, frames};

fuzz_target!(|input: &[u8]| -> Corpus {
    match frames(input) {
        Verdict::Unfit => Corpus::Reject,
        Verdict::Taken | Verdict::Refused => Corpus::Keep,
    }
});
