//! See `ottla::fuzz::records`.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use ottla::fuzz::{Verdict, records};

fuzz_target!(|input: &[u8]| -> Corpus {
    match records(input) {
        Verdict::Unfit => Corpus::Reject,
        Verdict::Taken | Verdict::Refused => Corpus::Keep,
    }
});
