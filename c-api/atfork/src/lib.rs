//! Tells a binding when its process has forked, whoever forked it: the interpreter, a host in C, a
//! pre-forking server. Not a fork that goes past the C library (a bare system call): that is found by
//! the process id, later.

use std::sync::Once;

/// Has `in_child` called in the child of every fork from now on, on the thread that forked, before
/// `fork` returns there. It may take no lock and must not panic. The first call counts.
pub fn watch(in_child: fn()) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| register(in_child));
}

#[cfg(unix)]
fn register(in_child: fn()) {
    use std::sync::OnceLock;

    static IN_CHILD: OnceLock<fn()> = OnceLock::new();

    extern "C" fn child() {
        if let Some(in_child) = IN_CHILD.get() {
            in_child();
        }
    }

    let _ = IN_CHILD.set(in_child);
    // SAFETY: the handler is a function of this library, which the C library forgets about when it is
    // unloaded. If there is no memory for the entry the process id tells all the same.
    let _ = unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

#[cfg(not(unix))]
fn register(_: fn()) {}
