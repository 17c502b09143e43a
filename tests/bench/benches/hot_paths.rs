//! Instructions of the hot paths, counted under callgrind: they repeat exactly where seconds do not.
//! Run by `cargo run -p ottla-bench --bin instructions`, which compares them with what is recorded.
//!
//! No network and no second thread: which task runs when would change the count. Every path runs
//! once before the one that is counted, so that buffers are warm and one-time decisions (which
//! checksum code this processor can run) are made.

#![allow(missing_docs, unreachable_pub, reason = "what the macros expand to is not documented")]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use ottla::bench::{Open, Pool, Sealed, Sends, append, read};
use ottla::{Compression, Delivery};
use ottla_bench::{TOPIC, VALUE_LEN, values};

/// Records of a full batch of the default size.
const RECORDS: usize = 2400;

type Values = Vec<[u8; VALUE_LEN]>;

/// A pool that has buffers, and what goes in.
fn warm() -> (Pool, Values) {
    let (pool, values) = (Pool::default(), values(RECORDS));
    for codec in [Compression::None, Compression::Lz4] {
        let wire = append(&pool, &values).seal(codec).wire();
        read(&pool, wire, |value| {
            black_box(value);
        });
    }
    (pool, values)
}

fn open(codec: Compression) -> (Pool, Open, Compression) {
    let (pool, values) = warm();
    let open = append(&pool, &values);
    (pool, open, codec)
}

fn sealed() -> Sealed {
    open(Compression::None).1.seal(Compression::None)
}

fn wire(codec: Compression) -> (Pool, Bytes) {
    let (pool, values) = warm();
    let wire = append(&pool, &values).seal(codec).wire();
    (pool, wire)
}

/// A producer that has sent and had acknowledged as much before, and room for the handles.
fn sends(codec: Compression) -> (Sends, Values, Vec<Delivery>) {
    let (mut sends, values) = (Sends::new(codec), values(RECORDS));
    let mut kept = Vec::with_capacity(RECORDS);
    for _ in 0..3 {
        sends.send(TOPIC, &values, &mut kept);
        sends.acknowledge();
        kept.clear();
    }
    (sends, values, kept)
}

// All a send does on the caller's thread, the batch's acknowledgement, and reading every handle.
#[library_benchmark]
#[bench::plain(args = (Compression::None), setup = sends)]
#[bench::lz4(args = (Compression::Lz4), setup = sends)]
fn send((mut sends, values, mut kept): (Sends, Values, Vec<Delivery>)) -> (Sends, Vec<Delivery>) {
    sends.send(black_box(TOPIC), black_box(&values), &mut kept);
    sends.acknowledge();
    for handle in &kept {
        black_box(handle.try_get());
    }
    (sends, kept)
}

#[library_benchmark]
#[bench::plain(setup = warm)]
fn append_records((pool, values): (Pool, Values)) -> Open {
    append(black_box(&pool), black_box(&values))
}

#[library_benchmark]
#[bench::plain(args = (Compression::None), setup = open)]
#[bench::lz4(args = (Compression::Lz4), setup = open)]
fn seal((_pool, open, codec): (Pool, Open, Compression)) -> Sealed {
    black_box(open).seal(codec)
}

#[library_benchmark]
#[bench::once(setup = sealed)]
fn header(sealed: Sealed) -> (Sealed, [u8; 61]) {
    let header = black_box(&sealed).header(black_box(7));
    (sealed, header)
}

#[library_benchmark]
#[bench::plain(args = (Compression::None), setup = wire)]
#[bench::lz4(args = (Compression::Lz4), setup = wire)]
fn consume((pool, wire): (Pool, Bytes)) {
    read(&pool, black_box(wire), |value| {
        black_box(value);
    });
}

library_benchmark_group!(
    name = records,
    benchmarks = [send, append_records, seal, header, consume]
);
main!(library_benchmark_groups = records);
