//! See `ottla::fuzz::answer`.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ottla::fuzz::{Verdict, answer};

fuzz_target!(|input: &[u8]| -> Corpus {
    match answer(input) {
        Verdict::Unfit => Corpus::Reject,
        Verdict::Taken | Verdict::Refused => Corpus::Keep,
    }
});
