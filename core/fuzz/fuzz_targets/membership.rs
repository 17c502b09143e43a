//! See `ottla::fuzz::membership`.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ottla::fuzz::{Verdict, membership};

fuzz_target!(|input: &[u8]| -> Corpus {
    match membership(input) {
        Verdict::Unfit => Corpus::Reject,
        Verdict::Taken | Verdict::Refused => Corpus::Keep,
    }
});
