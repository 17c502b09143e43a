//! Writes messages by the tables: what tests and fuzzing begin with.

use bytes::BufMut;
use rand::{RngExt, rngs::StdRng};

use super::schema::{Field, Kind, Schema, Struct};

/// A message with every list short, every text plain and every other byte random. No value is null but structures that may be.
pub(crate) fn message(schema: &'static Schema, version: i16, dice: &mut StdRng) -> Vec<u8> {
    let flexible = version >= schema.flexible;
    let mut author = Author { out: vec![], version, flexible, dice };
    author.fields(schema.root);
    author.out
}

struct Author<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    dice: &'a mut StdRng,
}

impl Author<'_> {
    fn fields(&mut self, of: &'static Struct) {
        let version = self.version;
        for field in of.fields.iter().filter(|field| field.exists_in(version)) {
            self.value(field);
        }
        if !self.flexible {
            return;
        }
        let mut tags: Vec<(u32, Option<&Field>)> = vec![];
        for (tag, field) in of.tagged {
            if field.exists_in(self.version) && self.dice.random() {
                tags.push((*tag, Some(field)));
            }
        }
        // Small numbers too: one that the decoder knows and the table does not would be found out.
        let foreign = self.dice.random_range(0..8) * [1, 50_000][self.dice.random_range(0..2)];
        if self.dice.random_range(0..4) == 0 && of.tagged.iter().all(|(tag, _)| *tag != foreign) {
            tags.push((foreign, None));
        }
        self.varint(tags.len() as u32);
        for (tag, field) in tags {
            let before = std::mem::take(&mut self.out);
            match field {
                Some(field) => self.value(field),
                None => self.noise(20),
            }
            let value = std::mem::replace(&mut self.out, before);
            self.varint(tag);
            self.varint(value.len() as u32);
            self.out.extend(value);
        }
    }

    fn value(&mut self, field: &'static Field) {
        match field.kind {
            Kind::Fixed(bytes) => (0..bytes).for_each(|_| self.out.push(self.dice.random())),
            Kind::Text => {
                let text = "x".repeat(self.dice.random_range(0..200));
                if self.flexible {
                    self.varint(text.len() as u32 + 1);
                } else {
                    self.out.put_i16(text.len() as i16);
                }
                self.out.extend(text.bytes());
            }
            Kind::Bytes => {
                let bytes = self.dice.random_range(0..300);
                self.count(bytes);
                (0..bytes).for_each(|_| self.out.push(self.dice.random()));
            }
            Kind::Numbers(size) => {
                let count = self.dice.random_range(0..4);
                self.count(count);
                (0..count * size).for_each(|_| self.out.push(self.dice.random()));
            }
            Kind::Structs(of) => {
                let count = self.dice.random_range(0..4);
                self.count(count);
                (0..count).for_each(|_| self.fields(of));
            }
            Kind::Struct(of) => self.fields(of),
            Kind::Nullable(of) => {
                let there = self.dice.random();
                self.out.push(if there { 1 } else { 0xff });
                if there {
                    self.fields(of);
                }
            }
        }
    }

    fn noise(&mut self, most: usize) {
        let bytes = self.dice.random_range(0..most);
        (0..bytes).for_each(|_| self.out.push(self.dice.random()));
    }

    fn count(&mut self, count: usize) {
        if self.flexible {
            self.varint(count as u32 + 1);
        } else {
            self.out.put_i32(count as i32);
        }
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
