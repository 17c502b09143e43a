//! Option structs that may grow: their first member is the size that the caller was compiled
//! with. A shorter one is an older caller, and what it does not know keeps its default (zero);
//! a longer one is a newer caller, and what this library does not know must be zero. So must
//! members that mean nothing yet: a newer caller may give them a meaning.

use std::mem::MaybeUninit;

use ottla::Result;
use ottla::bindings::argument_error;

/// A struct of the C interface whose first member is `size`.
///
/// # Safety
/// The type is `repr(C)`, starts with a `usize`, and all-zero bytes are a valid value of it.
pub(crate) unsafe trait Options: Copy {
    /// The member that means nothing yet; 0 if there is none.
    fn reserved(&self) -> i64;
}

/// # Safety
/// `pointer` is null or points to a `usize` and, from there, to as many bytes as that says.
pub(crate) unsafe fn read<T: Options>(pointer: *const T, name: &str) -> Result<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not null; the first member is the size, as the trait demands.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < size_of::<usize>() || size > 1 << 16 {
        return Err(argument_error(format!(
            "size of {name} is {size}; start from its _INIT macro, which sets it"
        )));
    }
    let known = size.min(size_of::<T>());
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: both are valid for `known` bytes and do not overlap: `value` is new.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known);
    }
    if size > known {
        // SAFETY: the caller's struct has `size` bytes.
        let rest =
            unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known) };
        if rest.iter().any(|b| *b != 0) {
            return Err(argument_error(format!(
                "{name} has settings that this version of the library does not know"
            )));
        }
    }
    // SAFETY: zeroes, valid by the trait's demand, with members of the caller's over them.
    let value = unsafe { value.assume_init() };
    match value.reserved() {
        0 => Ok(Some(value)),
        other => Err(argument_error(format!(
            "reserved of {name} is {other}, and this version of the library knows no meaning of it; \
             start from its _INIT macro, which sets it to 0"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Two {
        size: usize,
        a: u64,
        b: u64,
        reserved: u64,
    }
    // SAFETY: repr(C), starts with a usize, plain numbers.
    unsafe impl Options for Two {
        fn reserved(&self) -> i64 {
            self.reserved as i64
        }
    }

    fn read_words(words: &[u64]) -> Result<Option<Two>> {
        // SAFETY: the tests never say a larger size than there are words.
        unsafe { read(words.as_ptr().cast::<Two>(), "two") }
    }

    #[test]
    fn older_and_newer_callers() {
        let same = read_words(&[32, 1, 2, 0]).unwrap().unwrap();
        assert_eq!((same.size, same.a, same.b), (32, 1, 2));
        let older = read_words(&[16, 1, 99, 99]).unwrap().unwrap();
        assert_eq!((older.a, older.b), (1, 0));
        assert_eq!(read_words(&[40, 1, 2, 0, 0]).unwrap().unwrap().b, 2);
        assert!(read_words(&[40, 1, 2, 0, 3]).is_err());
        for (size, reserved) in [(32, 1), (40, u64::MAX), (32, 1 << 63)] {
            let error = read_words(&[size, 1, 2, reserved, 0]).err().expect("it has no meaning");
            assert!(error.message().starts_with("reserved of two is "), "{error}");
        }
        assert!(read_words(&[0, 1, 2]).is_err());
        assert!(read_words(&[u64::MAX, 1, 2]).is_err());
        // SAFETY: null is allowed.
        assert!(unsafe { read::<Two>(std::ptr::null(), "two") }.unwrap().is_none());
    }
}
