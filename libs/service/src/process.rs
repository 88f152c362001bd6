//! What a program holds and takes of its machine.

#[doc(hidden)]
pub use mimalloc;

/// The allocator of a server's program. Messages are made of many small strings, which come and go on several threads: this
/// takes less than half of the time that the system's allocator takes for them. Collectors keep the system's, which holds less.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::process::mimalloc::MiMalloc = $crate::process::mimalloc::MiMalloc;
    };
}

/// From here on the kernel gives pages of the usual size. The allocator asks for large ones, which are filled with zeros as a whole,
/// two megabytes for the first byte, and again after each time that they were given back: that took a quarter of the time of a
/// repository to which thousands report, and an idle evaluator held twice as much. A kernel that cannot do it goes on as before.
pub fn take_small_pages() {
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// How much programs with much to do stand back behind those that have to hear at once: `nice`(1), 0 to 19.
const NICENESS: i32 = 5;

/// Stands back behind the other programs of an installation: this thread, and those that it starts. On one machine a repository to
/// which thousands report at once would leave the broker a third of a core, and whoever is asked something would hear it late.
pub fn step_back() {
    let _ = rustix::process::nice(NICENESS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_small_from_then_on() {
        take_small_pages();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        // Kernels before 5.0 do not say it.
        if let Some(line) = status.lines().find(|line| line.starts_with("THP_enabled:")) {
            assert_eq!(line.split_whitespace().last(), Some("0"));
        }
    }

    #[test]
    fn who_stands_back_does_so_with_all_threads_that_it_starts() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let here = nice();
        let there = std::thread::spawn(move || {
            step_back();
            std::thread::spawn(nice).join().unwrap()
        });
        assert_eq!(there.join().unwrap(), (here + NICENESS).min(19));
        assert_eq!(nice(), here);
    }
}
