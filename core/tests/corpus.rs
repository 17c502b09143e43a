//! What fuzzing found worth keeping (core/fuzz/corpus), and changes of it that are the same in each run,
//! through everything that reads bytes from the network: no panic, a response or an error that has its
//! type, and memory in proportion to what was sent.

use std::collections::BTreeMap;

use allocation_counter::measure;
use ottla::fuzz::{self, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Changes of each input.
const CHANGES: usize = 50;

/// Inputs of a target: one line of hexadecimal digits each.
fn corpus(lines: &str) -> Vec<Vec<u8>> {
    let byte = |two: &[u8]| {
        let two = str::from_utf8(two).expect("digits");
        u8::from_str_radix(two, 16).unwrap_or_else(|e| panic!("'{two}': {e}"))
    };
    lines.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// What fuzzers do to an input, without their sense of what is new.
fn change(input: &mut Vec<u8>, other: &[u8], dice: &mut StdRng) {
    let at = dice.random_range(0..=input.len());
    let byte = [0, 1, 2, 0x7f, 0x80, 0xff, dice.random()][dice.random_range(0..7)];
    match dice.random_range(0..7) {
        0 if at < input.len() => input[at] ^= 1 << dice.random_range(0..8),
        1 if at < input.len() => input[at] = byte,
        2 => input.insert(at, byte),
        3 => drop(input.drain(at..input.len().min(at + dice.random_range(1..9)))),
        4 => input.truncate(at),
        5 => {
            let from = dice.random_range(0..=other.len());
            input.truncate(at);
            input.extend(&other[from..]);
        }
        _ => {
            let huge = [0x7fu8, 0xff, 0xff, 0xff, 0x0f];
            let from = dice.random_range(0..2);
            for (slot, byte) in input.iter_mut().skip(at).zip(&huge[from..from + 4]) {
                *slot = *byte;
            }
        }
    }
}

/// Says which input it was when a target panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("the input: {hex}");
        }
    }
}

/// Runs every input and its changes, and gives what became of each.
fn replay(
    inputs: &[Vec<u8>],
    target: fn(&[u8]) -> Verdict,
    allowed_bytes: fn(&[u8]) -> usize,
    mut seen: impl FnMut(&[u8], Verdict),
) {
    let mut dice = StdRng::seed_from_u64(0x0771a);
    let mut run = |input: &[u8]| {
        let shown = Shown(input);
        let mut verdict = Verdict::Unfit;
        let peak = measure(|| verdict = target(input)).bytes_max as usize;
        let allowed = allowed_bytes(input);
        assert!(peak <= allowed, "{peak} bytes of memory for {} ({allowed} at most)", input.len());
        std::mem::forget(shown);
        seen(input, verdict);
        peak
    };
    let mut most = 0;
    for input in inputs {
        most = most.max(run(input));
        for _ in 0..CHANGES {
            let mut changed = input.clone();
            for _ in 0..dice.random_range(1..4) {
                let other = &inputs[dice.random_range(0..inputs.len())];
                change(&mut changed, other, &mut dice);
            }
            most = most.max(run(&changed));
        }
    }
    assert!(most > 0, "memory is not measured");
    println!("{} inputs, at most {most} bytes of memory", inputs.len());
}

/// How often each verdict was given.
fn count(inputs: &[Vec<u8>], target: fn(&[u8]) -> Verdict, allowed: fn(&[u8]) -> usize) {
    let (mut taken, mut refused) = (0, 0);
    replay(inputs, target, allowed, |_, verdict| match verdict {
        Verdict::Taken => taken += 1,
        Verdict::Refused => refused += 1,
        Verdict::Unfit => {}
    });
    println!("{taken} taken, {refused} refused");
    assert!(taken > inputs.len() / 2 && refused > inputs.len() / 2, "{taken} and {refused}");
}

#[test]
fn responses() {
    let mut inputs = corpus(include_str!("../fuzz/corpus/responses.hex"));
    assert!(inputs.len() > 100);
    // Answers added since, too.
    for (api_key, version) in fuzz::known_responses() {
        inputs.extend((0..10).filter_map(|seed| fuzz::written_response(api_key, version, seed)));
    }
    let mut verdicts: BTreeMap<(i16, i16), (usize, usize)> =
        fuzz::known_responses().map(|response| (response, (0, 0))).collect();
    // A tagged field of two bytes becomes a node of a tree.
    let allowed = |sent: &[u8]| (4 << 10) + 256 * sent.len();
    replay(&inputs, fuzz::response, allowed, |input, verdict| {
        let [api_key, version] = [0, 1].map(|at| input.get(at).map_or(-1, |b| i16::from(*b)));
        let Some((taken, refused)) = verdicts.get_mut(&(api_key, version)) else {
            assert_eq!(verdict, Verdict::Unfit, "request {api_key} version {version}");
            return;
        };
        match verdict {
            Verdict::Taken => *taken += 1,
            Verdict::Refused => *refused += 1,
            Verdict::Unfit => panic!("request {api_key} version {version} is not known"),
        }
    });
    for (response, (taken, refused)) in verdicts {
        assert!(taken >= 10 && refused >= 10, "{response:?}: {taken} taken, {refused} refused");
    }
}

#[test]
fn frames() {
    let inputs = corpus(include_str!("../fuzz/corpus/frames.hex"));
    assert!(inputs.len() > 20);
    // What is read ahead, the first piece of a large frame whatever size it announces, and then
    // what came: twice in a buffer that grows, once in the one it grows from, and the pool keeps the
    // first piece.
    let allowed = |input: &[u8]| {
        let filler = input.get(4).map_or(0, |byte| usize::from(byte.saturating_sub(0xf0)) << 20);
        let came = input.len() + filler;
        (4 << 20) + (66 << 10) + 3 * came + came.min(4 << 20)
    };
    count(&inputs, fuzz::frames, allowed);
}

#[test]
fn logins() {
    let inputs = corpus(include_str!("../fuzz/corpus/logins.hex"));
    assert!(inputs.len() > 35);
    // Tables of a hundred headers, words of an error, and what came a few times over.
    let allowed = |input: &[u8]| (128 << 10) + 64 * input.len();
    count(&inputs, fuzz::logins, allowed);
}

#[test]
fn records() {
    let inputs = corpus(include_str!("../fuzz/corpus/records.hex"));
    assert!(inputs.len() > 100);
    // What a codec works with, however little there is: gzip the most. A byte of LZ4 stands for 255,
    // twice while a buffer grows, in buffers of up to four times what is needed; up to the limit of
    // 1 MiB.
    let allowed = |sent: &[u8]| (512 << 10) + (2048 * sent.len()).min(8 << 20) + 64 * sent.len();
    count(&inputs, fuzz::records, allowed);
}

#[test]
fn membership() {
    let inputs = corpus(include_str!("../fuzz/corpus/membership.hex"));
    assert!(inputs.len() > 20);
    // A topic of two bytes becomes one that is shared, and is there three times: as it was read, as it is written,
    // and as it is read again.
    let allowed = |sent: &[u8]| (4 << 10) + 128 * sent.len();
    count(&inputs, fuzz::membership, allowed);
}

/// A frame of 21 bytes that says its blocks may have 4 MiB must not cost a buffer of that size: fifty
/// thousand of them fit a batch that any producer may write.
#[test]
fn many_small_frames_of_large_blocks() {
    const FRAMES: usize = 5000;
    // Content checksum, blocks of 4 MiB; a block of one literal.
    let mut frame =
        vec![0x04, 0x22, 0x4d, 0x18, 0x44, 0x70, 0x1d, 2, 0, 0, 0, 0x10, b'a', 0, 0, 0, 0];
    frame.extend(0x550d_7456_u32.to_le_bytes());
    let input = [vec![0, 3, 0, 0], frame.repeat(FRAMES)].concat();
    let mut verdict = Verdict::Unfit;
    let memory = measure(|| verdict = fuzz::records(&input));
    // Letters are no records, but all of them were read.
    assert_eq!(verdict, Verdict::Refused);
    let limit = (4 << 20) + 16 * input.len() as u64;
    assert!(memory.bytes_total < limit, "{} bytes allocated in all", memory.bytes_total);
}

/// The judge of memory is one: what asks for more than it may is found.
#[test]
#[should_panic = "bytes of memory"]
fn memory_is_judged() {
    let greedy = |_: &[u8]| {
        drop(std::hint::black_box(vec![0u8; 1 << 20]));
        Verdict::Taken
    };
    replay(&[vec![1]], greedy, |_| 1 << 10, |_, _| {});
}
