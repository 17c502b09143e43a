//! See `ottla::fuzz::answer`.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use ottla::fuzz::{Verdict, response, known_responses, written_response};

fuzz_target!(|input: &[u8]| -> Corpus {
    match response(input) {
        Verdict::Unfit => Corpus::Reject,
        Verdict::Taken | Verdict::Refused => Corpus::Keep,
    }
});

// Now and then a sound answer, to any request: what has a table since the last run is found soon.
fuzz_mutator!(|input: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let written = (seed % 256 == 0).then(|| {
        let all: Vec<_> = known_responses().collect();
        let (api_key, version) = all[(seed >> 8) as usize % all.len()];
        written_response(api_key, version, seed.into())
    });
    match written.flatten().filter(|written| written.len() <= max_size) {
        Some(written) => {
            input[..written.len()].copy_from_slice(&written);
            written.len()
        }
        None => fuzzer_mutate(input, size, max_size),
    }
});
